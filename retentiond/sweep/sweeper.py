"""One sweep of one target: plan, guard, then batch after batch, each under its permit.

The order inside a batch is the safety of the whole (4-safety, "Permits and the hold barrier"); it depends on what makes
a batch harmless, and is in `by_transaction`, `by_expiry`, `by_presence` and `by_request`. Here is which window comes
next, and what
follows from how its batch ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from retentiond.control import units
from retentiond.domain.permit import Lease
from retentiond.domain.plan import TargetPlan
from retentiond.errors import (
    Blind,
    Conflict,
    EpochMoved,
    Guarded,
    Hostile,
    Locked,
    NotArchived,
    Refused,
)
from retentiond.stores.base import PARTITIONS, AnyStore, Part, Tally, Way, Window
from retentiond.sweep.batches import Batches, Carrier
from retentiond.sweep.by_expiry import ByExpiry
from retentiond.sweep.by_presence import ByPresence
from retentiond.sweep.by_request import ByRequest
from retentiond.sweep.by_transaction import ByTransaction
from retentiond.sweep.events import Overhead, Throttled
from retentiond.sweep.legs import resumed
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.parts import Hands, WholeParts
from retentiond.sweep.plans import Tools, with_holds
from retentiond.sweep.spec import Target
from retentiond.sweep.throttle import Pacer
from retentiond.sweep.yielding import Yielder

# In a row: a walk of hours meets any number of changed holds, each of which lets the next batch have its permit.
_MAX_EPOCH_RETRIES = 100
_MOST_ASIDE = 100
_CAREFUL_BATCHES = 10


class Sweeper:
    """Carries one sweep of one target through, under a lease."""

    def __init__(
        self,
        tools: Tools,
        store: AnyStore,
        target: Target,
        plan: TargetPlan,
        lease: Lease,
        sweep: str,
        outcome: Outcome,
        *,
        now: datetime,
        shards: int = 1,
        bound: int | None = None,
        groups: int | None = None,
    ) -> None:
        """It is one of `shards` that share the target's pace; it may act on `bound` records (None: any number).

        `groups`: of how many groups of records it may shorten the retention.
        `now` is the present: the plan's may be of hours ago, when the sweep was begun.
        """
        self._tools, self._store, self._target = tools, store, target
        self._lease = lease
        self._pacer = Pacer(target.pace.share(shards))
        self._now, self._began = now, time.monotonic()
        self._aside = self._denied = 0
        self._careful = 0
        self._last_refusal: Refused | None = None
        self.outcome = outcome
        self.stop = asyncio.Event()
        self._batches = Batches(tools, store, target, plan, lease, sweep, outcome, bound, groups)
        self._carrier = self._carrier_of(store)
        self.cut_short = False
        """Whether it was left before its end for what passes: a stop, a window that closed, a strained server."""
        self._yielder = Yielder(tools, store, target, lease, sweep, self.stop)

    def _carrier_of(self, store: AnyStore) -> Carrier:
        if store.fence == "expiry":
            return ByExpiry(self._batches, store, self.stop.is_set)
        if store.fence == "presence":
            return ByPresence(self._batches, store)
        if store.fence == "request":
            return ByRequest(self._batches, store, self.stop.is_set)
        return ByTransaction(self._batches, store, lambda: self._pacer.size)

    async def drop(self, parts: WholeParts) -> None:
        """Destroy the partitions in which all is due, before the legs are walked."""
        await self._carrier.begin()
        if await self._yielder.ready(self._open):
            await parts.drop(Hands(self._whole_may_go, self._whole, self._rest_well, lambda: self._plan))

    async def run(self, legs: Sequence[Window], cursor: Mapping[str, Any] | None = None) -> Outcome:
        """Sweep the legs until drained, stopped or capped; errors of guards, fences and the target pass through.

        `cursor` is where an earlier sweep was cut short: this one goes on from there, and comes round to it at the end.
        """
        await self._carrier.begin()
        for leg in resumed(self._store, self._plan, legs, cursor):
            try:
                await self._walk(leg, self._carrier.usual)
            except (Blind, Refused):
                if leg.after is not None and not self._progress():
                    await self._forget_cursor()
                raise
        if self.outcome.locked:
            await self._again_for_locked(legs)
        if self.outcome.failed:
            why = f"; the last was refused: {self._last_refusal.message}" if self._last_refusal else ""
            self.outcome.broken(
                Refused(
                    f"{self.outcome.failed} records of target {self._target.name} are due but were not erased{why}",
                    remedy=(self._last_refusal and self._last_refusal.remedy) or self._carrier.blame,
                ),
                "failed",
            )
        return self.outcome

    @property
    def _plan(self) -> TargetPlan:
        """The plan by which the next batch goes."""
        return self._batches.plan

    async def _read_holds(self) -> None:
        """A hold has come, gone or changed: what follows goes by the holds as they are now."""
        self._batches.plan = await with_holds(self._tools.database, self._store, self._plan)

    def _progress(self) -> bool:
        return bool(self.outcome.batches or self.outcome.failed or self.outcome.locked)

    async def _forget_cursor(self) -> None:
        """A position that can't be gone on from, whatever is wrong with it, must not keep every later sweep there."""
        async with self._tools.database.transaction() as tx:
            await units.save_cursor(tx, self._lease, None)

    async def _again_for_locked(self, legs: Sequence[Window]) -> None:
        """A blocking pass for rows that were locked or became due meanwhile; what is left even then is said."""
        # This pass meets again what the first one has counted, so only what it erases is added.
        self.outcome.locked = self.outcome.failed = 0
        kept = (self.outcome.held, self.outcome.minimum, self.outcome.unresolved, self.outcome.blocked)
        orphans = self.outcome.orphans
        for leg in legs:
            await self._walk(leg, Way.PATIENT)
        self.outcome.held, self.outcome.minimum, self.outcome.unresolved, self.outcome.blocked = kept
        self.outcome.orphans = orphans
        if self.outcome.locked:
            why, remedy = self._carrier.passed_over
            self.outcome.broken(
                Refused(
                    f"{self.outcome.locked} records of target {self._target.name} {why}",
                    remedy=remedy,
                ),
                "capped",
            )

    async def _walk(self, leg: Window, way: Way) -> None:
        after = leg.after
        retries = 0
        while await self._may_go_on():
            window = await self._carrier.within_bound(self._carrier.window(leg, after, self._pacer.size))
            if window is None:
                break
            began = time.monotonic()
            try:
                found = await self._batch(window, self._way(way))
            except EpochMoved:
                retries += 1
                if retries > _MAX_EPOCH_RETRIES:
                    raise
                await self._read_holds()
                continue
            except Conflict:
                retries = 0
                await self._carrier.give_up()
                self._careful = _CAREFUL_BATCHES
                continue
            except (Blind, Guarded, NotArchived):
                await self._carrier.give_up()
                raise
            except Refused as error:
                self._yielder.took(time.monotonic() - began)
                retries = 0
                after, ended = await self._refused(window, error)
                if ended:
                    return
                continue
            if found is None:
                break
            self._heed(found)
            self._aside = retries = 0
            seconds = time.monotonic() - began
            # A slow listing makes no batch too large, and no smaller one makes it quicker.
            work = max(seconds - self._batches.looking, 0.0)
            self._pacer.after(work)
            self._tools.observer(Overhead(self._target, self._pacer.overhead))
            if way is not Way.PATIENT:  # which waits for others' locks
                self._yielder.took(max(work - self._pacer.overhead, 0.0))
            after = found.after
            if after is None:
                return
            await self._rest(seconds, found.changed)
        self.outcome.outcome = "capped"

    def _heed(self, found: Tally) -> None:
        """Remember why records of a batch did not go; raise it where so many in a row did not that it is not them."""
        self._last_refusal = found.refusal or self._last_refusal
        self._denied = 0 if found.changed else self._denied + found.failed
        if found.refusal is not None and self._denied > _MOST_ASIDE:
            raise found.refusal

    async def _may_go_on(self) -> bool:
        """Whether a batch may begin; else, and where Strained is raised, the sweep is cut short."""
        self.cut_short = True
        if self.stop.is_set() or not self._open() or not await self._yielder.ready(self._open):
            return False
        self.cut_short = False
        return True

    def _whole_may_go(self, parts: Sequence[Part]) -> bool:
        """Whether a batch of these partitions may begin now."""
        left = self._batches.left
        return not self.stop.is_set() and self._open() and (left is None or sum(p.records for p in parts) <= left)

    async def _rest_well(self, seconds: float, records: int) -> None:
        await self._rest(seconds, records)
        await self._yielder.ready(self._open)

    async def _whole(self, parts: tuple[Part, ...]) -> int:
        """One batch of whole partitions: how many records it destroyed. Raises what refused it, with nothing done."""
        for _ in range(_MAX_EPOCH_RETRIES):
            try:
                found = await self._batch(Window(PARTITIONS, None, len(parts), parts=parts), Way.WHOLE)
            except EpochMoved:
                await self._read_holds()
            except (Blind, Guarded, Refused):
                await self._carrier.give_up()
                raise
            else:
                return found.changed if found is not None else 0
        raise EpochMoved

    def _way(self, wanted: Way) -> Way:
        """How the next batch goes: after a conflict a number of them go carefully, since there will be more."""
        if wanted is not Way.QUICK or not self._careful:
            return wanted
        self._careful -= 1
        return Way.CAREFUL

    async def _refused(self, window: Window, error: Refused) -> tuple[tuple[str, ...] | None, bool]:
        """The batch was refused: where to go on, with half of it or past the one record, and whether that is the end.

        One that can't go must not keep the others (4-safety, "Postgres, what bites" 10). Where many in a row can't, it
        is not the records: the error ends the sweep.
        """
        if window.size > 1:
            self._pacer.trouble(window.size)
            await self._carrier.give_up()
            return window.after, False
        try:
            judged = await self._judge_one(window)
        except Refused:
            await self._carrier.give_up()
            raise
        if not judged.selected:
            await self._carrier.give_up()
            raise error
        self._aside += 1
        locked = isinstance(error, Locked)
        one = Tally(selected=1, locked=int(locked), failed=int(not locked))
        permit = self._batches.permit
        told = None if locked or permit is None else self._batches.entry(permit, one, time.monotonic())
        await self._carrier.give_up(told, self._batches.cursor(window, judged.after, one))
        self.outcome.locked += one.locked
        self.outcome.failed += one.failed
        self._last_refusal = error
        if self._aside > _MOST_ASIDE:
            raise error
        return judged.after, judged.after is None

    async def _judge_one(self, window: Window) -> Tally:
        """The one record judged; one whose values can't be judged counts as due, so that it is set aside and said."""
        try:
            return await self._store.count(self._plan, window)
        except Hostile:
            return Tally(selected=1, after=await self._store.past(self._plan, window))

    def _open(self) -> bool:
        """Whether the target's window is open."""
        window = self._target.window
        return window is None or window.open_at(self._now + timedelta(seconds=time.monotonic() - self._began))

    async def _rest(self, seconds: float, records: int) -> None:
        reason, rest = self._pacer.rest(seconds, records)
        if rest <= 0:
            return
        self._tools.observer(Throttled(self._target, reason, rest))
        try:
            await asyncio.wait_for(self.stop.wait(), rest)
        except TimeoutError:
            return

    async def _batch(self, window: Window, way: Way) -> Tally | None:
        return await self._carrier.carry(window, way)
