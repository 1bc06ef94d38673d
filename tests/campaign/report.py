"""What a campaign prints: how it begins, how it goes, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.actions import Scene
from tests.campaign.history import History, Violation
from tests.campaign.oracle import in_doubt
from tests.campaign.rules import TARGETS
from tests.campaign.schedule import Schedule
from tests.campaign.workers import Worker


def begun(schedule: Schedule, workers: Sequence[Worker], folder: Path, *, told: bool) -> None:
    """The seed above all."""
    if not told:
        return
    hosts = "hosts of their own" if workers[0].host.cable else "this host"
    grace = "a downgrade grace" if schedule.grace else "no downgrade grace"
    print(f"campaign: seed {schedule.seed}, {schedule.seconds:.0f} s, {len(schedule.actions)} actions", flush=True)
    print(f"{len(workers)} workers on {hosts}, {grace}; logs in {folder}", flush=True)


def progress(phase: str, seconds: float, scene: Scene, workers: Sequence[Worker]) -> None:
    """One line of how it goes."""
    taken = sum(taken_by_target(scene_transactions(scene)).values())
    states = " ".join(
        f"{each.name}:{'up' if each.runs else 'down'}{''.join(each.args)}{each.clock}" for each in workers
    )
    done = sum(scene.counts.values())
    print(f"{seconds:6.0f} s {phase}: {done} actions, {taken} records taken, {states}", flush=True)
    for fault in scene.faults:
        print(f"  so far: {fault.splitlines()[0]}", flush=True)


def scene_transactions(scene: Scene) -> list:
    return [each for stream in scene.world.streams.values() for each in stream.transactions]


def taken_by_target(transactions: list) -> Counter[str]:
    """How many records the product took of each target."""
    return Counter(
        change.table for each in transactions if each.own is None for change in each.changes if change.table in TARGETS
    )


def summary(schedule: Schedule, scene_counts: Counter[str], history: History, violations: Sequence[Violation]) -> str:
    """What came of it, in a few lines; and all the evidence where something was broken."""
    doubts = Counter(each["found"] for each in history.ledger if each["kind"] == "in_doubt")
    states = Counter(hold.state for hold in history.holds)
    outcomes = Counter(permit.outcome for permit in history.permits)
    lines = [
        f"actions: {_counts(scene_counts)}",
        f"records taken: {_counts(taken_by_target(history.transactions))}",
        f"records left: {_counts(Counter({name: len(records) for name, records in history.left.items()}))}",
        (
            f"permits: {_counts(outcomes)}; looked into after a crash: {_counts(doubts) or 'none'};"
            f" sweeps taken over: {history.takeovers}"
        ),
        f"holds: {_counts(states)}; {len(history.pauses)} pauses; ledger: {len(history.ledger)} entries",
    ]
    lines += [f"IN DOUBT, and said so: {each}" for each in in_doubt(history)]
    lines += [f"VIOLATION {each.kind}: {each.evidence}" for each in violations]
    verdict = f"{len(violations)} VIOLATIONS" if violations else "every promise was kept"
    lines.append(f"seed {schedule.seed}: {verdict}")
    return "\n".join(lines)


def _counts(counts: Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: str(each[0])))
