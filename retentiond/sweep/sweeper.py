"""One sweep of one target: plan, guard, then batch after batch, each under its permit.

The order inside a batch is the safety of the whole (4-safety, "Permits and the hold barrier"):
the target's transaction and its lock, then the permit, then the deleting statement, then the outcome as it will be,
then COMMIT, then the ledger, cursor and permit in one transaction of the control database, under the lease's fence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from retentiond.beside import beside
from retentiond.control import permits, units
from retentiond.control.database import Tx
from retentiond.domain.evidence import keyed_digest
from retentiond.domain.permit import Lease, Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Conflict, EpochMoved, Guarded, Hostile, Locked, Refused
from retentiond.ledger import kinds
from retentiond.stores.base import PARTITIONS, Batch, Part, Store, Tally, Way, Window
from retentiond.sweep.events import BatchDone, Overhead, Throttled
from retentiond.sweep.legs import cursor_at, resumed
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.parts import Hands, WholeParts
from retentiond.sweep.plans import Tools, with_holds
from retentiond.sweep.recovery import give_up
from retentiond.sweep.spec import Target
from retentiond.sweep.throttle import Pacer
from retentiond.sweep.told import outcome_entry
from retentiond.sweep.yielding import Yielder

# In a row: a walk of hours meets any number of changed holds, each of which lets the next batch have its permit.
_MAX_EPOCH_RETRIES = 100
_NUMBERS = 32
_MOST_ASIDE = 100
_CAREFUL_BATCHES = 10


class Sweeper:
    """Carries one sweep of one target through, under a lease."""

    def __init__(
        self,
        tools: Tools,
        store: Store,
        target: Target,
        plan: TargetPlan,
        lease: Lease,
        sweep: str,
        outcome: Outcome,
        *,
        now: datetime,
        shards: int = 1,
        bound: int | None = None,
    ) -> None:
        """It is one of `shards` that share the target's pace; it may act on `bound` records (None: any number).

        `now` is the present: the plan's may be of hours ago, when the sweep was begun.
        """
        self._tools, self._store, self._target = tools, store, target
        self._plan, self._lease, self._sweep = plan, lease, sweep
        self._pacer = Pacer(target.pace.share(shards))
        self._bound = bound
        self._numbers: list[int] = []
        self._now, self._began = now, time.monotonic()
        self._joined = False
        self._permit: Permit | None = None
        self._aside = 0
        self._careful = 0
        self._ahead: Window | None = None
        self._last_refusal: Refused | None = None
        self.outcome = outcome
        self.stop = asyncio.Event()
        self.cut_short = False
        """Whether it was left before its end for what passes: a stop, a window that closed, a strained server."""
        self._yielder = Yielder(tools, store, target, lease, sweep, self.stop)

    async def drop(self, parts: WholeParts) -> None:
        """Destroy the partitions in which all is due, before the legs are walked."""
        self._joined = await self._store.holds_state(*await self._tools.database.name())
        if await self._yielder.ready(self._open):
            await parts.drop(Hands(self._whole_may_go, self._whole, self._rest_well, lambda: self._plan))

    async def run(self, legs: Sequence[Window], cursor: Mapping[str, Any] | None = None) -> Outcome:
        """Sweep the legs until drained, stopped or capped; errors of guards, fences and the target pass through.

        `cursor` is where an earlier sweep was cut short: this one goes on from there, and comes round to it at the end.
        """
        self._joined = await self._store.holds_state(*await self._tools.database.name())
        for leg in resumed(self._store, self._plan, legs, cursor):
            try:
                await self._walk(leg, Way.CAREFUL if self._joined else Way.QUICK)
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
                    remedy="see the table's triggers and constraints; a trigger that returns NULL vetoes the change",
                ),
                "failed",
            )
        return self.outcome

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
        for leg in legs:
            await self._walk(leg, Way.PATIENT)
        self.outcome.held, self.outcome.minimum, self.outcome.unresolved, self.outcome.blocked = kept
        if self.outcome.locked:
            self.outcome.broken(
                Refused(
                    f"{self.outcome.locked} records of target {self._target.name} are locked by other transactions, "
                    "or became due only now",
                    remedy="they are taken by a later sweep; see pg_locks for who may hold them",
                ),
                "capped",
            )

    async def _walk(self, leg: Window, way: Way) -> None:
        after = leg.after
        retries = 0
        while await self._may_go_on():
            window = await self._within_bound(self._window(leg, after))
            if window is None:
                break
            began = time.monotonic()
            try:
                found = await self._batch(window, self._way(way))
            except EpochMoved:
                retries += 1
                if retries > _MAX_EPOCH_RETRIES:
                    raise
                self._plan = await with_holds(self._tools.database, self._store, self._plan)
                continue
            except Conflict:
                permit, self._permit, retries = self._permit, None, 0
                await self._give_up(permit, None)
                self._careful = _CAREFUL_BATCHES
                continue
            except (Blind, Guarded):
                permit, self._permit = self._permit, None
                await self._give_up(permit, None)
                raise
            except Refused as error:
                self._yielder.took(time.monotonic() - began)
                retries = 0
                after, ended = await self._refused(window, error)
                if ended:
                    return
                continue
            self._aside = retries = 0
            seconds = time.monotonic() - began
            self._pacer.after(seconds)
            self._tools.observer(Overhead(self._target, self._pacer.overhead))
            if way is not Way.PATIENT:  # which waits for others' locks
                self._yielder.took(max(seconds - self._pacer.overhead, 0.0))
            after = found.after
            if after is None:
                return
            await self._rest(seconds, found.changed)
        self.outcome.outcome = "capped"

    async def _may_go_on(self) -> bool:
        """Whether a batch may begin; else, and where Strained is raised, the sweep is cut short."""
        self.cut_short = True
        if self.stop.is_set() or not self._open() or not await self._yielder.ready(self._open):
            return False
        self.cut_short = False
        return True

    def _whole_may_go(self, parts: Sequence[Part]) -> bool:
        """Whether a batch of these partitions may begin now."""
        left = None if self._bound is None else self._bound - self.outcome.changed
        return not self.stop.is_set() and self._open() and (left is None or sum(p.records for p in parts) <= left)

    async def _rest_well(self, seconds: float, records: int) -> None:
        await self._rest(seconds, records)
        await self._yielder.ready(self._open)

    async def _whole(self, parts: tuple[Part, ...]) -> int:
        """One batch of whole partitions: how many records it destroyed. Raises what refused it, with nothing done."""
        for _ in range(_MAX_EPOCH_RETRIES):
            try:
                return (await self._batch(Window(PARTITIONS, None, len(parts), parts=parts), Way.WHOLE)).changed
            except EpochMoved:
                self._plan = await with_holds(self._tools.database, self._store, self._plan)
            except (Blind, Guarded, Refused):
                permit, self._permit = self._permit, None
                await self._give_up(permit, None)
                raise
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
        permit, self._permit = self._permit, None
        if window.size > 1:
            self._pacer.trouble(window.size)
            await self._give_up(permit, None)
            return window.after, False
        try:
            judged = await self._judge_one(window)
        except Refused:
            await self._give_up(permit, None)
            raise
        if not judged.selected:
            await self._give_up(permit, None)
            raise error
        self._aside += 1
        locked = isinstance(error, Locked)
        one = Tally(selected=1, locked=int(locked), failed=int(not locked))
        told = None if locked or permit is None else self._entry(permit, one, time.monotonic())
        await self._give_up(permit, told, self._cursor(window, judged.after, one))
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

    async def _give_up(
        self, permit: Permit | None, told: kinds.Entry | None, cursor: Mapping[str, Any] | None = None
    ) -> None:
        if permit is not None:
            await give_up(self._tools.database, self._store, permit, told, self._tools.journal, cursor)

    async def _within_bound(self, window: Window) -> Window | None:
        """The window, narrowed where it could hold more than the approval still allows; None when that is used up.

        What was approved was counted, so this bites only when more has become due in the meantime.
        """
        left = None if self._bound is None else max(self._bound - self.outcome.changed, 0)
        if left is None or left >= window.size:
            return window
        if (await self._store.count(self._plan, window)).selected <= left:
            return window
        return replace(window, size=left, end=None) if left else None

    def _require_within_bound(self, found: Tally) -> None:
        """Raise before the commit of a batch that found more due than was counted: the directory may be damaged."""
        if self._bound is not None and self.outcome.changed + found.changed > self._bound:
            raise Guarded(
                "fraction",
                f"more records of target {self._target.name} became due in the middle of a sweep than the "
                f"{self._bound} that it was allowed",
                remedy="see what changed in the account directory; the next sweep counts anew and asks",
            )

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

    async def _batch(self, window: Window, way: Way) -> Tally:
        database = self._tools.database
        batch_id = str(uuid4())
        number = await self._number()
        began = time.monotonic()
        async with self._store.batch(self._plan, number, way) as batch:
            permit = await permits.issue(
                database,
                number=number,
                lease=self._lease,
                expected_epoch=self._plan.epoch,
                digest=self._plan.digest,
                intent={"sweep": self._sweep, "batch": batch_id, "walk": window.walk, "size": window.size},
            )
            self._permit = permit
            found = await self._erase(batch, permit, window, batch_id)
            self._require_within_bound(found)
            if self._joined:
                await self._settle(batch.connection, permit, found, window, began)
            elif found.changed:
                # The control database writes to its disk meanwhile.
                async with beside(self._measured(batch, window, found)) as ahead:
                    await self._prepare(permit, found, began)
                    self._ahead = await ahead
            await batch.commit()
        if not self._joined:
            async with database.transaction() as tx:
                await self._settle(tx, permit, found, window, began)
        self._permit = None
        self.outcome.erased(found)
        self._tools.observer(
            BatchDone(
                self._target,
                self._sweep,
                batch_id,
                found.changed,
                found.by_tier,
                found.bytes,
                time.monotonic() - began,
            )
        )
        return found

    async def _measured(self, batch: Batch, window: Window, found: Tally) -> Window | None:
        """The next window with its end, if there is one."""
        if found.after is None:
            return None
        return await batch.measured(replace(window, after=found.after, size=self._pacer.size, end=None))

    def _window(self, leg: Window, after: tuple[str, ...] | None) -> Window:
        """The next window of the leg; with its end if the last batch has measured just this one."""
        wanted = replace(leg, after=after, size=self._pacer.size)
        ahead, self._ahead = self._ahead, None
        return ahead if ahead is not None and replace(ahead, end=None) == wanted else wanted

    async def _erase(self, batch: Batch, permit: Permit, window: Window, batch_id: str) -> Tally:
        salt = keyed_digest(self._tools.evidence, batch_id)
        return await batch.erase(permit, window, salt=salt)

    async def _number(self) -> int:
        """The next permit's number, of a handful reserved at a time."""
        if not self._numbers:
            self._numbers = await permits.reserve_some(self._tools.database, _NUMBERS)
        return self._numbers.pop(0)

    async def _prepare(self, permit: Permit, found: Tally, began: float) -> None:
        prepared = {"transaction": found.transaction, "outcome": self._entry(permit, found, began).body}
        await permits.prepare(self._tools.database, permit, prepared)

    async def _settle(self, tx: Tx, permit: Permit, found: Tally, window: Window, began: float) -> None:
        """The outcome: in the batch's own transaction where that can be, else in one of the control database."""
        async with self._store.settling(tx) if self._joined else nullcontext():
            cursor = None if window.walk == PARTITIONS else self._cursor(window, found.after, found)
            await permits.end(tx, permit, "committed" if found.changed else "empty", cursor=cursor)
            if found.changed or found.failed:
                await self._tools.journal.append(tx, self._entry(permit, found, began))

    def _cursor(self, window: Window, after: tuple[str, ...] | None, found: Tally) -> Mapping[str, Any]:
        so_far = self.outcome.with_batch(found).document(plan_mode=False)
        return cursor_at(self._store, self._plan, window, after, so_far)

    def _entry(self, permit: Permit, found: Tally, began: float) -> kinds.Entry:
        milliseconds = int((time.monotonic() - began) * 1000)
        return outcome_entry(self._plan, self._target, self._sweep, permit, found, milliseconds)
