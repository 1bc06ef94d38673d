"""A sweep over targets: the clocks are asked, the directory surveyed, then each target swept under its lease.

One target's failure leaves the others working, and is said in its outcome. What decides between targets (whose turn,
and when) is the scheduler's; this runs one of them.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from uuid import uuid4

from retentiond.control import flags, units
from retentiond.domain.accounts import NOTHING_REMEMBERED, Surveyed
from retentiond.domain.clock import ClockReading, agreed_now, require_no_jump, skew
from retentiond.domain.permit import Unit
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import Verdict, judge
from retentiond.errors import (
    Blind,
    Guarded,
    Paused,
    PlanMode,
    PolicySuperseded,
    RetentiondError,
    Strained,
    Unexpected,
)
from retentiond.stores.base import AnyStore, SurveyedDirectory
from retentiond.sweep.enforced import Enforced
from retentiond.sweep.events import ClocksRead, Failed, OldestSeen, SweepDone, guards_after
from retentiond.sweep.leases import leased
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.overlap import Overlap
from retentiond.sweep.plans import Tools, count_due, make_plan
from retentiond.sweep.questions import CLOCK, Question, allowed, not_asked
from retentiond.sweep.spec import Target
from retentiond.sweep.survey import look, recall, survey
from retentiond.sweep.sweeper import Sweeper

_SHARED_SECONDS = 2.0


Announce = Callable[[Iterable[Unit]], Awaitable[set[Unit]]]
"""Tells all workers of units that are to be had; returns those that they had not been told of yet."""


async def nobody(units: Iterable[Unit]) -> set[Unit]:
    """Where there is nobody to tell."""
    return set(units)


@dataclass(slots=True)
class Engine:
    """The targets of a configuration and what sweeps them; `account_key` keys the memory of accounts.

    `shards_at_once`: how many shards of a divided sweep whoever has the target takes at a time; others take more.
    """

    tools: Tools
    stores: Mapping[str, AnyStore]
    directory: SurveyedDirectory | None
    account_key: bytes
    running: dict[Unit, Sweeper] = field(default_factory=dict)
    stopping: bool = False
    in_hand: set[Unit] = field(default_factory=set)
    shards_at_once: int = 1
    announce: Announce = nobody
    _surveying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _surveyed: tuple[float, Surveyed] | None = None
    _survey_failed: tuple[float, Exception] | None = None
    _seen: tuple[float, str] | None = None
    _overlap: Overlap = field(init=False)

    def __post_init__(self) -> None:
        """What stands on the stores."""
        self._overlap = Overlap(self.stores)

    async def now(self, store: AnyStore) -> datetime:
        """The earliest of the clocks involved; raises Guarded where they can't be trusted, Unreachable."""
        limits = self.tools.spec.limits
        control = await self.tools.database.clock()
        host = datetime.now(UTC)
        readings = {
            "control": ClockReading(control.now, host, control.same_machine),
            "target": await store.clock(),
        }
        self.tools.observer(ClocksRead(store.name, skew(readings).total_seconds()))
        now = agreed_now(readings, host=datetime.now(UTC), max_skew=limits.max_clock_skew)
        await self._believe(now, readings)
        return now

    async def _believe(self, now: datetime, readings: Mapping[str, ClockReading]) -> None:
        """Remember `now`, unless it jumped: that is asked about, and Guarded raised until it is approved."""
        journal, by, max_jump = self.tools.journal, self.tools.worker, self.tools.spec.limits.max_clock_jump
        jumped: Guarded | None = None
        async with self.tools.database.transaction() as tx:
            seen = (await flags.clock_state(tx, lock=True)).high_water
            try:
                require_no_jump(now, latest_seen=seen, max_jump=max_jump, readings=readings)
            except Guarded as error:
                ahead = int((now - (seen or now)).total_seconds())
                question = Question("clock", CLOCK, "", ahead, slack=int(max_jump.total_seconds()))
                jumped = None if await allowed(tx, journal, question, by=by) else error
            else:
                await not_asked(tx, journal, "clock", CLOCK, by=by)
            if jumped is None:
                await flags.observe_clock(tx, now)
        if jumped is not None:
            raise jumped

    async def sweep(self, target: Target, sweep: str | None = None) -> Outcome:
        """One sweep of one target, whatever happens; the outcome says it all.

        Another worker that has it is waited for.
        """
        found = await self._sweep(target, sweep or str(uuid4()), wait=True)
        assert found is not None  # it was waited for
        return found

    async def sweep_if_free(self, target: Target) -> Outcome | None:
        """As `sweep`; None where another worker has it."""
        return await self._sweep(target, str(uuid4()), wait=False)

    async def _sweep(self, target: Target, sweep: str, *, wait: bool) -> Outcome | None:
        began = time.monotonic()
        outcome = Outcome(action=target.action)
        try:
            if not self.tools.spec.enforce:
                await self._planned(self.stores[target.name], target, outcome)
            elif (mine := await self._enforced(target, sweep, outcome, wait=wait)) is None:
                return None
            else:
                sweep = mine
        except Exception as error:
            self._broken(outcome, error)
        outcome.seconds = time.monotonic() - began
        self._tell(target, sweep, outcome)
        return outcome

    async def open(self, target: Target) -> AnyStore:
        """The target's store, open, with the directory where its verdicts need one; raises Blind, Unreachable.

        Blind also where another target is over some of the same records: a hold on that one would not be minded here.
        """
        store = self.stores[target.name]
        needed = target.knows_account or target.tier_source == "directory"
        await store.open(self.directory if needed else None)
        await self._overlap.require_apart(target.name)
        return store

    async def in_order(self, targets: Sequence[Target]) -> list[Target]:
        """The targets, those whose records refer to another's before it; in a circle as they were given."""
        for target in targets:
            with suppress(RetentiondError):  # its own sweep will say what is wrong with it
                await self.open(target)
        by_name = {target.name: target for target in targets}
        before = {name: {child for child in by_name if name in self.parents(child)} for name in by_name}
        try:
            return [by_name[name] for name in TopologicalSorter(before).static_order()]
        except CycleError:
            return list(targets)

    def parents(self, name: str) -> list[str]:
        """The other targets that records of this one keep from going."""
        mine = self.stores[name].records
        return [other for other, store in self.stores.items() if other != name and mine in store.children]

    async def prepare(self, store: AnyStore, target: Target) -> TargetPlan:
        """Open the store, agree on `now`, survey the directory; raises what makes the target unfit to be swept."""
        await self.open(target)
        now = await self.now(store)
        surveyed = NOTHING_REMEMBERED
        if self.directory is not None and target.knows_account:
            surveyed = await self._survey(self.directory, now)
        return await make_plan(self.tools, store, target, now, surveyed)

    async def _survey(self, directory: SurveyedDirectory, now: datetime) -> Surveyed:
        """The survey; one that began a moment before this was asked for, or since, does for it as well.

        So does its failure: where the directory is slow, sweeps that wait for it must not wait for one try each.
        """
        asked = time.monotonic()
        async with self._surveying:
            if self._surveyed is not None and self._surveyed[0] >= asked - _SHARED_SECONDS:
                return self._surveyed[1]
            if self._survey_failed is not None and self._survey_failed[0] >= asked:
                raise self._survey_failed[1]
            began, self._surveyed = time.monotonic(), None
            try:
                self._surveyed = (began, await survey(self.tools, directory, now, self.account_key))
            except Exception as error:
                self._survey_failed = (began, error)
                raise
            return self._surveyed[1]

    async def directory_digest(self, target: Target, now: datetime) -> str:
        """The digest of what the account directory says now for the target's verdicts, with nothing written.

        As with surveys, one look does for all who ask within a moment.
        """
        if self.directory is None or not target.knows_account:
            return NOTHING_REMEMBERED.digest
        asked = time.monotonic()
        async with self._surveying:
            if self._seen is None or self._seen[0] < asked - _SHARED_SECONDS:
                began, self._seen = time.monotonic(), None
                self._seen = (began, (await look(self.tools, self.directory, now, self.account_key)).digest)
            return self._seen[1]

    async def plan(self, target: Target) -> TargetPlan:
        """The plan that a sweep would have now, with nothing written; raises what makes the target unfit."""
        store = await self.open(target)
        now = min((await store.clock()).now, datetime.now(UTC))
        surveyed = NOTHING_REMEMBERED
        if self.directory is not None and target.knows_account:
            surveyed = await look(self.tools, self.directory, now, self.account_key)
        return await make_plan(self.tools, store, target, now, surveyed)

    async def explain(self, target: Target, record: str) -> Verdict:
        """The verdict on one record by its key, with what is remembered of its account; raises NotFound, Blind."""
        store = await self.open(target)
        plan = await make_plan(self.tools, store, target, min((await store.clock()).now, datetime.now(UTC)))
        found, facts = await store.record(plan, record)
        if self.directory is not None and found.account is not None:
            surveyed = await recall(self.tools, self.directory, found.account, plan.now, self.account_key)
            facts = surveyed.applied(found.account, facts, has_grace=plan.grace_cutoff is not None)
        return judge(plan, found, facts)

    async def _planned(self, store: AnyStore, target: Target, outcome: Outcome) -> None:
        plan = await self.plan(target)
        self.tools.observer(ClocksRead(store.name, skew({"target": await store.clock()}).total_seconds()))
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        await count_due(store, plan, outcome)

    async def _enforced(self, target: Target, sweep: str, outcome: Outcome, *, wait: bool) -> str | None:
        """The sweep that it was: this one, or one that was left divided. None where another worker has the target."""
        tools = self.tools
        unit = Unit(target.name)
        async with leased(tools.database, unit, tools.worker, wait=wait, stopping=lambda: self.stopping) as lease:
            if lease is None:
                return None
            work = Enforced(self, target, lease, sweep, outcome)
            try:
                next_due: datetime | None = None
                try:
                    next_due = await work.target_swept()
                except Exception as error:
                    self._broken(outcome, error)
                await work.finish_target(next_due)
            finally:
                self.running.pop(unit, None)
        return work.sweep

    async def sweep_shard(self, unit: Unit) -> Outcome | None:
        """Go on with one shard of a divided sweep, whatever happens; None where there is nothing to do any more."""
        if unit in self.in_hand:
            # The lease of one process would be taken from itself.
            return None
        self.in_hand.add(unit)
        try:
            return await self._sweep_shard(unit)
        finally:
            self.in_hand.discard(unit)

    async def _sweep_shard(self, unit: Unit) -> Outcome | None:
        tools, target = self.tools, self.tools.spec.target(unit.target)
        began, outcome = time.monotonic(), Outcome(action=target.action)
        try:
            async with leased(tools.database, unit, tools.worker, wait=False, stopping=lambda: True) as lease:
                if lease is None:
                    return None
                async with tools.database.transaction(read_only=True) as tx:
                    state = await units.state(tx, unit)
                    # Told of before it failed.
                    postponed = await units.is_postponed(tx, unit)
                if state.sweep is None or state.outcome is not None or postponed:
                    return None
                work = Enforced(self, target, lease, str(state.sweep["sweep"]), outcome)
                ended_by: Exception | None = None
                try:
                    try:
                        await work.shard_swept(state)
                    except Exception as error:
                        self._broken(outcome, error)
                        ended_by = error
                    await work.finish_shard(ended_by)
                finally:
                    self.running.pop(unit, None)
        except Exception as error:
            self._broken(outcome, error)
        outcome.seconds = time.monotonic() - began
        if outcome.error is not None:
            self._tell_error(target, outcome, None)
        return outcome

    def _broken(self, outcome: Outcome, error: Exception) -> None:
        """Say in the outcome what ended the sweep: a defect in one must leave the others working, and must be seen."""
        if isinstance(error, RetentiondError):
            outcome.broken(error, ending(error))
            return
        outcome.broken(Unexpected.of(error), "failed")
        # Where it happened, without the error's text, which may quote data.
        outcome.trace = "".join(traceback.format_tb(error.__traceback__))

    def _tell(self, target: Target, sweep: str, outcome: Outcome) -> None:
        observer = self.tools.observer
        document = outcome.document(plan_mode=not self.tools.spec.enforce)
        self._tell_error(target, outcome, sweep)
        for state in guards_after(target.name, document):
            observer(state)
        observer(SweepDone(target, sweep, document))

    def _tell_error(self, target: Target, outcome: Outcome, sweep: str | None) -> None:
        if (error := outcome.error) is not None and outcome.outcome != "paused":
            remedy = str(error["remedy"]) if error["remedy"] else None
            kind, message = str(error["kind"]), str(error["message"])
            self.tools.observer(Failed(target.name, kind, message, remedy, sweep, outcome.trace))

    def drain(self) -> None:
        """Let the batch in flight finish, and begin no other."""
        self.stopping = True
        for sweeper in self.running.values():
            sweeper.stop.set()


def ending(error: RetentiondError) -> str:
    """How a sweep that this error ended is called (3-interface, `sweep --json`)."""
    if isinstance(error, (Guarded, PolicySuperseded)):
        return "guarded"
    if isinstance(error, (Paused, PlanMode)):
        return "paused"
    if isinstance(error, Strained):
        return "capped"
    return "blind" if isinstance(error, Blind) else "failed"
