"""`plan` and `promises`: what is due, by target, class and tier. Both count by the statements that sweeps go by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import click

from retentiond.cli.lasting import ceilings_told, lasting
from retentiond.cli.looking import open_view
from retentiond.cli.output import EXIT_CODES, as_json, command, day, json_option, note, settings, size, table
from retentiond.cli.progress import Progress
from retentiond.cli.promises import Promise, beyond, promised
from retentiond.cli.targets import Broken, chosen, exit_code, open_plan, show_broken, targets_option
from retentiond.daemon import App
from retentiond.domain.duration import Duration, expires_at, parse_duration, rfc3339
from retentiond.errors import DurationError, UsageError
from retentiond.stores.base import EXACT_BELOW, TierTally
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.parts import left_behind
from retentiond.sweep.plans import count_due
from retentiond.sweep.spec import Target

_FIGURES = ("records", "bytes", "oldest", "newest", "overdue_seconds", "held", "minimum", "unresolved", "blocked")
_KEPT = ("held", "minimum", "unresolved", "blocked")


@dataclass(frozen=True, slots=True)
class Planned:
    """What is due in a target now, and at the horizon if nothing were swept until then; `total` of its records.

    `as_of`: when the inventory was begun that it is judged by; None: by what there is now.
    """

    now: datetime
    due: Outcome
    until: datetime | None
    later: Outcome | None
    total: int
    as_of: datetime | None

    def document(self, tiers: Sequence[str]) -> dict[str, object]:
        """The plan of one target as JSON; `tiers` are always there, others where they have something."""
        by_tier = _by_tier(self.due, tiers)
        return {
            "now": rfc3339(self.now),
            "as_of": rfc3339(self.as_of) if self.as_of is not None else None,
            "total": {"records": self.total, "estimate": self.total >= EXACT_BELOW},
            **_figures(sum_of(self.due)),
            "by_tier": by_tier,
            "by_horizon": self._by_horizon(tiers) if self.later else None,
            "coming": self._coming(tiers) if self.later else None,
        }

    def _by_horizon(self, tiers: Sequence[str]) -> dict[str, object]:
        assert self.later is not None
        return {"estimate": True, **_figures(sum_of(self.later)), "by_tier": _by_tier(self.later, tiers)}

    def _coming(self, tiers: Sequence[str]) -> dict[str, object]:
        assert self.later is not None
        now, later = self.due.tiers, self.later.tiers
        names = [*tiers, *sorted({*now, *later} - set(tiers))]
        by_tier = {
            name: {
                "records": max(later.get(name, TierTally()).due - now.get(name, TierTally()).due, 0),
                "bytes": max(later.get(name, TierTally()).bytes - now.get(name, TierTally()).bytes, 0),
            }
            for name in names
        }
        total = {key: sum(each[key] for each in by_tier.values()) for key in ("records", "bytes")}
        return {"estimate": True, **total, "by_tier": by_tier}


def sum_of(outcome: Outcome) -> TierTally:
    """All tiers together."""
    total = TierTally()
    for tally in outcome.tiers.values():
        total = total.plus(tally)
    return total


def _figures(tally: TierTally) -> dict[str, object]:
    found = {name: getattr(tally, "due" if name == "records" else name) for name in _FIGURES}
    return found | {"overdue_seconds": round(tally.overdue_seconds, 3)}


def _by_tier(outcome: Outcome, tiers: Sequence[str]) -> dict[str, dict[str, object]]:
    more = sorted(name for name in set(outcome.tiers) - set(tiers) if _has_something(outcome.tiers[name]))
    return {name: _figures(outcome.tiers.get(name, TierTally())) for name in (*tiers, *more)}


def _has_something(tally: TierTally) -> bool:
    return bool(tally.due or any(getattr(tally, name) for name in _KEPT))


@click.command(epilog=EXIT_CODES)
@targets_option
@click.option("--horizon", metavar="DURATION", help="Also what comes due until then, such as P30D.")
@json_option
@command
async def plan(targets: tuple[str, ...], horizon: str | None, json_: bool) -> int:
    r"""What a sweep would erase now, and what comes due within a horizon; nothing is touched.

    By target, class and tier: the records that are due, their bytes as stored, the oldest and newest of their
    anchors; and of what is due but stays: held (by a legal hold), minimum (a legal minimum), unresolved (its anchor,
    tier or override can't be told) and blocked (another table's rows refer to it).

    With --horizon a forecast: what is due by then if nothing is swept and no account changes. It is an estimate.

    \b
    Examples:
      retentiond plan
      retentiond plan --target request_logs --horizon P30D
      retentiond plan --json | jq '.targets.request_logs.by_tier.free.records'

    \b
    JSON: {"mode", "digest", "horizon", "targets": {T: {"class", "action", "error", "now", "as_of",
      "total": {"records", "estimate"}, FIGURES, "by_tier": {TIER: {FIGURES}},
      "by_horizon": {"estimate": true, FIGURES, "by_tier"}, all that is due then, also what is due now;
      "coming": {"estimate": true, "records", "bytes", "by_tier"}, what comes due between now and then}}}
      FIGURES: "records", "bytes", "oldest", "newest", "overdue_seconds", "held", "minimum", "unresolved",
      "blocked". Instants are RFC 3339. by_horizon and coming are null without --horizon; "as_of" is when
      the inventory was begun that a bucket is judged by, null where it is judged by what there is now. A target
      that can't be read has its error and none of the figures.
    """
    ahead = _horizon(horizon) if horizon is not None else None
    found: dict[str, Planned | Broken] = {}
    async with open_view(settings()) as app:
        wanted = chosen(app, targets)
        with Progress(json=json_) as progress:
            for target in wanted:
                found[target.name] = await _looked_ahead(app, target, ahead, progress)
    broken = {name: each for name, each in found.items() if isinstance(each, Broken)}
    if json_:
        documents = {t.name: _document(t, found[t.name], app.spec.policy.tiers) for t in wanted}
        mode, digest = app.settings.mode, app.spec.digest
        as_json({"mode": mode, "digest": digest, "horizon": horizon, "targets": documents})
    else:
        _show_plan([(t, each) for t in wanted if isinstance(each := found[t.name], Planned)])
        show_broken(broken)
    return exit_code(broken.values())


def _horizon(text: str) -> Duration:
    try:
        return parse_duration(text)
    except DurationError as error:
        # The remedy of terms offers `forever`, by which nothing can be foretold.
        raise UsageError(
            f"--horizon {error.message}", remedy="write an ISO 8601 duration such as P30D or P1Y"
        ) from error


async def _looked_ahead(app: App, target: Target, ahead: Duration | None, progress: Progress) -> Planned | Broken:
    due = Outcome(action=target.action)
    later = Outcome(action=target.action) if ahead else None
    progress.begin(target.name, "counting", "judged", lambda: due.scanned + (later.scanned if later else 0))
    try:
        store, now_plan = await open_plan(app, target)
        await count_due(store, now_plan, due)
        until = expires_at(now_plan.now, ahead) if ahead else None
        if later is not None:
            if until is None:
                raise UsageError("the horizon lies past the year 9999", remedy="give a shorter one, such as P30D")
            await count_due(store, replace(now_plan, now=until), later)
        found = Planned(now_plan.now, due, until, later, await store.total(), store.as_of)
    except UsageError:
        raise
    except Exception as error:
        progress.end(target.name, "can't be read")
        return Broken.by(target.name, error)
    progress.end(target.name, f"{due.would} due")
    return found


def _document(target: Target, found: Planned | Broken, tiers: Sequence[str]) -> dict[str, object]:
    head: dict[str, object] = {"class": target.data_class.name, "action": target.action}
    if isinstance(found, Broken):
        return {**head, "error": found.document()}
    return {**head, "error": None, **found.document(tiers)}


def _show_plan(found: Sequence[tuple[Target, Planned]]) -> None:
    ahead = any(planned.later for _, planned in found)
    columns = ["target", "class", "tier", "due", "bytes", "oldest", "newest", *_KEPT]
    if ahead:
        until = next(planned.until for _, planned in found if planned.until)
        columns += [f"due by {rfc3339(until)[:10]} (estimate)", "bytes then"]
    table("plan", columns, [row for target, planned in found for row in _plan_rows(target, planned)])
    for target, planned in found:
        about = "about " if planned.total >= EXACT_BELOW else ""
        note(f"{target.name} has {about}{planned.total:,} records; `due` are those that a sweep would {target.action}")
        if planned.as_of is not None:
            note(f"{target.name} is judged by its inventory, as of {rfc3339(planned.as_of)}")
        if takes := lasting(sum_of(planned.due).due, target.pace):
            note(f"{target.name}: what is due takes {takes} at {target.pace.records_per_second:g} records a second")
        for told in ceilings_told(planned.due.ceilings, "would be"):
            note(f"{target.name}: {told}")


def _plan_rows(target: Target, planned: Planned) -> Iterable[list[object]]:
    now, then = planned.due.tiers, planned.later.tiers if planned.later else {}
    rows = [(name, now.get(name, TierTally()), then.get(name, TierTally())) for name in sorted({*now, *then})]
    rows = [row for row in rows if _has_something(row[1]) or _has_something(row[2])]
    if len(rows) != 1:
        rows.append(("all", sum_of(planned.due), sum_of(planned.later) if planned.later else TierTally()))
    for name, tally, later in rows:
        row: list[object] = [target.name, target.data_class.name, name, tally.due, size(tally.bytes)]
        row += [day(tally.oldest), day(tally.newest), *(getattr(tally, kept) for kept in _KEPT)]
        yield [*row, later.due, size(later.bytes)] if planned.later else row


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def promises(targets: tuple[str, ...], json_: bool) -> int:
    r"""Do we keep what we promised?

    For each class and tier: its term, its oldest record, and what is overdue, held or a legal minimum. A promise is
    kept when nothing is past its term but what is on hold or a legal minimum. That one is not kept is an answer, no
    failure: the exit code stays 0. A class that no target enforces can't be said to be kept.

    \b
    Examples:
      retentiond promises
      retentiond promises --json | jq '.promises[] | select(.kept == false)'

    \b
    JSON: {"mode", "digest", "promises": [{"class", "tier", "targets", "term", "after", "legal_minimum",
      "oldest", "oldest_age_days", "oldest_known", "overdue", "overdue_seconds", "blocked", "held", "minimum",
      "unresolved", "kept"}], "errors": {T: {"kind", "message", "remedy"}}}
      "oldest" is the anchor of the oldest record, due or not: null where there is none, or with
      "oldest_known": false where it takes too long to find out. "kept" is null where a target can't be read, also
      while a partition of it is detached by a sweep that was cut short.
    """
    found: dict[str, Promise | Broken] = {}
    async with open_view(settings()) as app:
        wanted = chosen(app, targets)
        with Progress(json=json_) as progress:
            for target in wanted:
                found[target.name] = await _judged(app, target, progress)
    classes = {target.data_class.name for target in wanted} if targets else set(app.spec.policy.classes)
    rows = promised(app.spec.policy, classes, wanted, found)
    broken = {name: each for name, each in found.items() if isinstance(each, Broken)}
    if json_:
        errors = {name: each.document() for name, each in broken.items()}
        as_json({"mode": app.settings.mode, "digest": app.spec.digest, "promises": rows, "errors": errors})
    else:
        _show_promises(rows)
        show_broken(broken)
    return exit_code(broken.values())


async def _judged(app: App, target: Target, progress: Progress) -> Promise | Broken:
    outcome = Outcome(action=target.action)
    progress.begin(target.name, "judging", "judged", lambda: outcome.scanned)
    try:
        store, made = await open_plan(app, target)
        if (left := await left_behind(app.database, store)) is not None:
            raise left
        await count_due(store, made, outcome)
        promise = await beyond(store, made, outcome, app.spec.policy.tiers)
    except Exception as error:
        progress.end(target.name, "can't be read")
        return Broken.by(target.name, error)
    progress.end(target.name, f"{outcome.would} overdue")
    return promise


def _show_promises(rows: Sequence[dict[str, object]]) -> None:
    columns = ["class", "tier", "term", "oldest", "days", "overdue", "held", "minimum", "unresolved", "kept"]
    shown = [row for row in rows if row["targets"]]
    table("promises", columns, [_promise_row(row) for row in shown])
    if loose := list(dict.fromkeys(str(row["class"]) for row in rows if not row["targets"])):
        note(f"no target enforces: {', '.join(loose)}")


def _promise_row(row: dict[str, object]) -> list[object]:
    after = " after deletion" if row["after"] == "account_deleted" else ""
    oldest, age = (row["oldest"], row["oldest_age_days"]) if row["oldest_known"] else ("not known", None)
    kept = {True: "kept", False: "behind", None: "not known"}[row["kept"]]  # type: ignore[index]  # bool or None
    days = None if age is None else f"{age:.1f}"
    counts = (row[name] for name in ("overdue", "held", "minimum", "unresolved"))
    shown = day(str(oldest)) if oldest else None
    return [row["class"], row["tier"], f"{row['term']}{after}", shown, days, *counts, kept]


COMMANDS = [plan, promises]
