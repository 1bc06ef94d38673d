"""A sweep over targets: the clocks are asked, the directory surveyed, then each target swept under its lease.

One target's failure leaves the others working, and is said in its outcome. What decides between targets (whose turn,
and when) is the scheduler's; this runs one of them.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from uuid import uuid4

from retentiond.control import flags, units
from retentiond.domain.accounts import NOTHING_REMEMBERED, Surveyed
from retentiond.domain.clock import ClockReading, agreed_now, require_no_jump, skew
from retentiond.domain.permit import Lease, Unit
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import Verdict, judge
from retentiond.errors import (
    Blind,
    Fenced,
    Guarded,
    Paused,
    PlanMode,
    PolicySuperseded,
    RetentiondError,
    Strained,
    Unexpected,
    Unreachable,
)
from retentiond.ledger import kinds
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.extent import Extent
from retentiond.stores.postgres.store import PostgresStore
from retentiond.sweep.events import ClocksRead, Failed, OldestSeen, SweepDone, guards_after
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools, count_due, make_plan
from retentiond.sweep.questions import CLOCK, Question, allowed, not_asked
from retentiond.sweep.recovery import settle_open_permits
from retentiond.sweep.spec import Target
from retentiond.sweep.survey import look, recall, survey
from retentiond.sweep.sweeper import Sweeper
from retentiond.sweep.upkeep import look_after

_LEASE_POLL_SECONDS = 0.5
_SHARED_SECONDS = 2.0
_EXTENT_SECONDS = 60.0


@dataclass(slots=True)
class Engine:
    """The targets of a configuration and what sweeps them; `account_key` keys the memory of accounts."""

    tools: Tools
    stores: Mapping[str, PostgresStore]
    directory: Directory | None
    account_key: bytes
    running: dict[str, Sweeper] = field(default_factory=dict)
    stopping: bool = False
    _surveying: asyncio.Lock = field(default_factory=asyncio.Lock)
    _surveyed: tuple[float, Surveyed] | None = None
    _extents: dict[str, tuple[float, Extent | None]] = field(default_factory=dict)

    async def now(self, store: PostgresStore) -> datetime:
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
        """One sweep of one target, whatever happens; the outcome says it all."""
        began = time.monotonic()
        sweep = sweep or str(uuid4())
        store = self.stores[target.name]
        outcome = Outcome(action=target.action)
        try:
            if self.tools.spec.enforce:
                await self._enforced(store, target, sweep, outcome)
            else:
                await self._planned(store, target, outcome)
        except Exception as error:
            self._broken(outcome, error)
        outcome.seconds = time.monotonic() - began
        self._tell(target, sweep, outcome)
        return outcome

    async def open(self, target: Target) -> PostgresStore:
        """The target's store, open, with the directory where its verdicts need one; raises Blind, Unreachable.

        Blind also where another target is over some of the same records: a hold on that one would not be minded here.
        """
        store = self.stores[target.name]
        needed = target.knows_account or target.tier_source == "directory"
        await store.open(self.directory if needed else None)
        mine = await store.extent()
        others = [name for name in self.stores if name != target.name]
        for name, theirs in zip(others, await asyncio.gather(*map(self._extent, others)), strict=True):
            if theirs is not None and mine.meets(theirs):
                raise Blind(
                    f"targets {target.name} and {name} are over the same records: tables {store.config.table} and "
                    f"{self.stores[name].config.table} are one, or one is a part of the other",
                    remedy=f"keep one of targets.{target.name} and targets.{name}, or give each its own partitions",
                )
        return store

    async def _extent(self, name: str) -> Extent | None:
        """The extent of a target as of a moment ago; None where it can't be told: then it can't be swept either.

        Not asked each time, so that a server which is slow to answer slows down no more than its own targets.
        """
        asked, found = self._extents.get(name, (-_EXTENT_SECONDS, None))
        if time.monotonic() - asked >= _EXTENT_SECONDS:
            with suppress(RetentiondError):
                found = await self.stores[name].extent()
            self._extents[name] = (time.monotonic(), found)
        return found

    async def in_order(self, targets: Sequence[Target]) -> list[Target]:
        """The targets, those whose records refer to another's before it; in a circle as they were given."""
        for target in targets:
            with suppress(RetentiondError):  # its own sweep will say what is wrong with it
                await self.open(target)
        by_name = {target.name: target for target in targets}
        before = {name: {child for child in by_name if name in self._parents(child)} for name in by_name}
        try:
            return [by_name[name] for name in TopologicalSorter(before).static_order()]
        except CycleError:
            return list(targets)

    def _parents(self, name: str) -> list[str]:
        """The other targets that records of this one keep from going."""
        mine = self.stores[name].records
        return [other for other, store in self.stores.items() if other != name and mine in store.children]

    async def prepare(self, store: PostgresStore, target: Target) -> TargetPlan:
        """Open the store, agree on `now`, survey the directory; raises what makes the target unfit to be swept."""
        await self.open(target)
        now = await self.now(store)
        surveyed = NOTHING_REMEMBERED
        if self.directory is not None and target.knows_account:
            surveyed = await self._survey(self.directory, now)
        return await make_plan(self.tools, store, target, now, surveyed)

    async def _survey(self, directory: Directory, now: datetime) -> Surveyed:
        """The survey; one that began a moment ago does for sweeps that begin together."""
        async with self._surveying:
            began = time.monotonic()
            if self._surveyed is None or began - self._surveyed[0] > _SHARED_SECONDS:
                self._surveyed = None
                self._surveyed = (began, await survey(self.tools, directory, now, self.account_key))
            return self._surveyed[1]

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

    async def _planned(self, store: PostgresStore, target: Target, outcome: Outcome) -> None:
        plan = await self.plan(target)
        self.tools.observer(ClocksRead(store.name, skew({"target": await store.clock()}).total_seconds()))
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        await count_due(store, plan, outcome)

    async def _enforced(self, store: PostgresStore, target: Target, sweep: str, outcome: Outcome) -> None:
        lease = await self._lease(Unit(target.name))
        keeper = asyncio.create_task(self._keep(lease))
        try:
            next_due: datetime | None = None
            try:
                next_due = await self._swept(store, target, lease, sweep, outcome)
            except Exception as error:
                self._broken(outcome, error)
            await self._finish(target, lease, outcome, next_due)
        finally:
            self.running.pop(target.name, None)
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._let_go(lease)

    async def _swept(
        self, store: PostgresStore, target: Target, lease: Lease, sweep: str, outcome: Outcome
    ) -> datetime:
        """Sweep, and return when the target is due again."""
        spec, journal = self.tools.spec, self.tools.journal
        async with self.tools.database.transaction(read_only=True) as tx:
            await journal.require_continued(tx)
        plan = await self.prepare(store, target)
        now = plan.now
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        outcome.in_doubt = await settle_open_permits(self.tools.database, journal, store, lease)
        intent = kinds.intent(
            plan,
            sweep=sweep,
            store=target.store,
            shard=lease.unit.shard,
            mode="enforce",
            due=None,
            by=self.tools.worker,
        )
        async with self.tools.database.transaction() as tx:
            await journal.append(tx, intent)
        sweeper = Sweeper(self.tools, store, target, plan, lease, sweep, outcome)
        self.running[target.name] = sweeper
        if self.stopping:
            sweeper.stop.set()
        async with self.tools.database.transaction(read_only=True) as tx:
            cursor = (await units.state(tx, lease.unit)).cursor
        await sweeper.run(cursor)
        await look_after(store, target, outcome, sweeper.stop)
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        soonest, latest = now + spec.min_interval, now + spec.max_interval
        # What was blocked by records that are gone now may go next.
        if outcome.outcome != "drained" or (outcome.blocked and outcome.changed):
            return soonest
        return min(max(await store.next_expiry(plan) or latest, soonest), latest)

    async def _finish(self, target: Target, lease: Lease, outcome: Outcome, next_due: datetime | None) -> None:
        drained = outcome.outcome == "drained"
        async with self.tools.database.transaction() as tx:
            if drained:
                await units.save_cursor(tx, lease, None)
            if next_due is None:
                # By the clock that judges what is due: by one that is years ahead it would not be due for years.
                next_due = (await flags.clock_state(tx)).now + self.tools.spec.min_interval
            if target.window is not None:
                next_due = target.window.next_opening(next_due)
            await units.finish_sweep(tx, lease, outcome.document(plan_mode=False), next_due, success=drained)
            if outcome.changed and (parents := self._parents(target.name)):
                await units.make_due(tx, parents)
            if outcome.outcome in ("guarded", "blind", "failed") and outcome.error:
                await self.tools.journal.append(
                    tx,
                    kinds.guard(
                        str(outcome.error.get("guard", outcome.error["kind"])),
                        tripped=True,
                        target=target.name,
                        detail=outcome.evidence(),
                    ),
                )

    async def _lease(self, unit: Unit) -> Lease:
        """The unit's lease; one that another worker has is waited for."""
        async with self.tools.database.transaction() as tx:
            await units.ensure(tx, [unit])
        while True:
            lease = await units.acquire(self.tools.database, unit, self.tools.worker)
            if lease is not None:
                return lease
            if self.stopping:
                raise Fenced(f"another worker has {unit}")
            await asyncio.sleep(_LEASE_POLL_SECONDS)

    async def _keep(self, lease: Lease) -> None:
        """Renew the lease while the sweep counts or rests; a lost one is found by the next permit."""
        while True:
            await asyncio.sleep(10)
            try:
                async with self.tools.database.transaction() as tx:
                    await units.renew(tx, lease)
            except (Fenced, Unreachable):
                continue

    async def _let_go(self, lease: Lease) -> None:
        try:
            async with self.tools.database.transaction() as tx:
                await units.release(tx, lease)
        except Unreachable:
            return  # The lease runs out by itself.

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
        if (error := outcome.error) is not None and outcome.outcome != "paused":
            remedy = str(error["remedy"]) if error["remedy"] else None
            observer(Failed(target.name, str(error["kind"]), str(error["message"]), remedy, sweep, outcome.trace))
        for state in guards_after(target.name, document):
            observer(state)
        observer(SweepDone(target, sweep, document))

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
