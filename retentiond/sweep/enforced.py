"""A sweep that erases: of a whole target under its lease, or of one shard of a target whose sweep is divided.

Whoever has the target's unit counts, asks the guard, divides, and at the end puts together what the shards came to. It
takes shards itself as well, and those whose worker is gone; so a single process needs nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from retentiond.control import due, flags, units
from retentiond.control.database import Tx
from retentiond.control.units import UnitState
from retentiond.domain.permit import Lease, Unit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Busy, PolicySuperseded
from retentiond.ledger import kinds
from retentiond.stores.base import AnyStore, Window
from retentiond.sweep.division import Divided, Shard, names, wanted
from retentiond.sweep.events import Counted, OldestSeen
from retentiond.sweep.following import catch_up
from retentiond.sweep.guards import Allowance, backlog
from retentiond.sweep.health import pause
from retentiond.sweep.leftovers import settle, settle_orphans, so_far
from retentiond.sweep.legs import whole
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.parts import WholeParts
from retentiond.sweep.rest import Rest, basis_of, rest_after, still_resting
from retentiond.sweep.retries import next_try, passes
from retentiond.sweep.spec import Target
from retentiond.sweep.sweeper import Sweeper
from retentiond.sweep.upkeep import look_after

if TYPE_CHECKING:
    from retentiond.sweep.engine import Engine

_POLL_SECONDS = 0.5


@dataclass(slots=True)
class Enforced:
    """One sweep under one lease; `outcome` is filled in as it goes."""

    engine: Engine
    target: Target
    lease: Lease
    sweep: str
    outcome: Outcome
    _divided: Divided | None = None
    _together: bool = False
    _rest: Rest | None = None
    _since: datetime | None = None

    def _stopping(self) -> bool:
        return self.engine.stopping

    @property
    def _store(self) -> AnyStore:
        return self.engine.stores[self.target.name]

    # --- The whole target ---

    async def target_swept(self) -> datetime:
        """Sweep the target, and return when it is due again."""
        engine, spec = self.engine, self.engine.tools.spec
        async with engine.tools.database.transaction(read_only=True) as tx:
            state = await units.state(tx, self.lease.unit)
            now = self._since = (await flags.clock_state(tx)).now
        here = min(now, datetime.now(UTC))
        digest = partial(engine.directory_digest, self.target, here)
        self._rest = await still_resting(engine.tools, self._store, state, here, digest)
        if self._rest is not None:
            self.outcome.rested(state.outcome or {})
            return min(max(self._rest.until, now + spec.min_interval), now + spec.max_interval)
        divided = Divided.of(state.sweep, digest=spec.digest, after=now - spec.max_interval)
        if divided is not None:
            # From here on, whatever happens: it is that sweep that ends, or is left to be gone on with.
            self.sweep, self._divided = divided.sweep, divided
        plan = await self._begin()
        legs = whole(self._store, plan)
        parts = WholeParts(engine.tools, self._store, self.lease, self.sweep)
        await parts.restore()
        if divided is not None:
            async with engine.tools.database.transaction() as tx:
                await units.reopen(tx, self.lease, self.sweep)
            await self._resume()
            await self._settle_orphans()
            await self._in_shards(plan, legs, divided)
        else:
            await self._settle_orphans()
            await self._anew(plan, legs, state, parts)
        # Shards that were still worked on then are over now.
        await self._settle_orphans()
        parts.tell(self.outcome)
        sweeper = engine.running.get(self.lease.unit)
        stop = sweeper.stop if sweeper is not None else asyncio.Event()
        await look_after(self._store, self.target, self.outcome, stop)
        engine.tools.observer(OldestSeen(self.target, await self._store.oldest(plan)))
        soonest, latest = plan.now + spec.min_interval, plan.now + spec.max_interval
        # What was blocked by records that are gone now may go next.
        if self.outcome.outcome != "drained" or (self.outcome.blocked and self.outcome.changed):
            return soonest
        if self._store.rests:
            self._rest = rest_after(plan, self.outcome, began=divided.now if divided is not None else plan.now)
            return min(max(self._rest.until, soonest), latest) if self._rest is not None else soonest
        return min(max(await self._store.next_expiry(plan) or latest, soonest), latest)

    async def _begin(self) -> TargetPlan:
        """What comes before the first batch of every sweep; raises what makes the target unfit."""
        tools, store = self.engine.tools, self.engine.stores[self.target.name]
        async with tools.database.transaction(read_only=True) as tx:
            await tools.journal.require_continued(tx)
        plan = await self.engine.prepare(store, self.target)
        directory = plan.surveyed.digest
        self.outcome.basis = basis_of(store, policy=plan.digest, epoch=plan.epoch, directory=directory)
        tools.observer(OldestSeen(self.target, await store.oldest(plan)))
        doubtful, _ = await settle(tools, store, self.target, self.lease, self.sweep, stopping=self._stopping)
        self.outcome.in_doubt += doubtful
        if store.fence == "request":
            # What is over is no longer in the way of what is due.
            await catch_up(tools, store, self.target)
        intent = kinds.intent(
            plan,
            sweep=self.sweep,
            store=self.target.store,
            shard=self.lease.unit.shard,
            mode="enforce",
            due=None,
            by=tools.worker,
        )
        async with tools.database.transaction() as tx:
            await tools.journal.append(tx, intent)
        return plan

    async def _settle_orphans(self) -> None:
        engine, store = self.engine, self._store
        found = await settle_orphans(
            engine.tools, store, self.target, self.sweep, engine.in_hand, stopping=self._stopping
        )
        self.outcome.in_doubt += found[0]
        for uncounted in found[1]:
            self.outcome.erased(uncounted)

    async def _resume(self) -> None:
        """Begin with what earlier workers have come to in the same sweep."""
        async with self.engine.tools.database.transaction(read_only=True) as tx:
            self.outcome.make_up_to(await so_far(tx, self.lease, self.target))

    async def _anew(self, plan: TargetPlan, legs: Sequence[Window], state: UnitState, parts: WholeParts) -> None:
        """Count where the guard wants it, drop whole partitions, divide the rest where it is worth it, and sweep."""
        tools, outcome = self.engine.tools, self.outcome
        each, most = wanted(self.target.pace)
        cuts = await self._store.shards(plan, each=each, most=most) if most > 1 else ()
        cut = {leg.walk for leg in cuts}
        rest = [leg for leg in legs if leg.walk not in cut]
        allowance = await backlog(
            tools, self._store, self.target, plan, self.lease, outcome, [*rest, *cuts] if cuts else legs
        )
        if outcome.counted is not None:
            tools.observer(Counted(self.target, outcome.counted.would))
        if outcome.counted is not None and not (outcome.counted.would or outcome.counted.ceilings):
            outcome.kept_as(outcome.counted)
            return
        sweeper = self._sweeper(plan, bound=allowance.most, groups=allowance.groups)
        await sweeper.drop(parts)
        if cuts and not outcome.changed:
            await self._in_shards(plan, legs, await self._divide(plan, len(rest), cuts, allowance))
        else:
            # What went as whole partitions was counted in the legs of shards, whose bounds would be too high.
            await sweeper.run(legs, state.cursor)

    async def _divide(self, plan: TargetPlan, rest: int, cuts: Sequence[Window], allowance: Allowance) -> Divided:
        """Make the shards and announce them; those of an earlier sweep that are still worked on are waited for."""
        walk = cuts[0].walk
        divided = Divided(self.sweep, plan.now, plan.digest, walk, len(cuts), allowance.of(range(rest)))
        order = self._store.order(plan, walk)
        shards = [
            Shard(name, self.sweep, plan.now, plan.digest, leg, len(cuts), allowance.of([rest + at]), order)
            for at, (name, leg) in enumerate(zip(names(len(cuts)), cuts, strict=True))
        ]
        documents = {shard.name: shard.document() for shard in shards}
        while True:
            try:
                async with self.engine.tools.database.transaction() as tx:
                    await units.divide(tx, self.lease, documents)
                    await units.save_sweep(tx, self.lease, divided.document())
                    await units.save_cursor(tx, self.lease, None)
                self._divided = divided
            except Busy:
                if self.engine.stopping:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                await self.engine.announce(Unit(self.target.name, shard.name) for shard in shards)
                return divided

    async def _in_shards(self, plan: TargetPlan, legs: Sequence[Window], divided: Divided) -> None:
        """Sweep what is in no shard, then the shards with whoever helps, and put together what all came to."""
        rest = [leg for leg in legs if leg.walk != divided.walk]
        if rest and not self.engine.stopping:
            await self._sweeper(plan, bound=divided.bound).run(rest)
        await asyncio.gather(*(self._take_shards() for _ in range(self.engine.shards_at_once)))
        await self._put_together(divided)

    async def _take_shards(self) -> None:
        """Take one free shard after another; until all are over, since a worker may be gone and leave its own.

        One whose end could not be written (the control database takes nothing) is taken again after a growing pause.
        """
        engine, failures, not_before = self.engine, Counter[Unit](), dict[Unit, float]()
        while not engine.stopping:
            async with engine.tools.database.transaction(read_only=True) as tx:
                still, free = await units.open_shards(tx, self.target.name, self.sweep)
            if not still:
                return
            waits = {unit for unit, until in not_before.items() if time.monotonic() < until}
            mine = next((unit for unit in free if unit not in engine.in_hand and unit not in waits), None)
            if mine is None:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            outcome = await engine.sweep_shard(mine)
            if outcome is not None and outcome.error is not None:
                not_before[mine] = time.monotonic() + pause(failures[mine])
                failures[mine] += 1

    async def _put_together(self, divided: Divided) -> None:
        async with self.engine.tools.database.transaction(read_only=True) as tx:
            await self._add_shards(tx, divided)

    async def _add_shards(self, tx: Tx, divided: Divided) -> None:
        """Add what the shards have come to, also those that are not over: it is in the ledger under this sweep."""
        over, self._together = 0, True
        for state in await units.shards(tx, self.target.name):
            if state.outcome is not None and state.outcome.get("sweep") == self.sweep:
                self.outcome.add(state.outcome)
                over += 1
            elif self._is_of_this(state) and state.cursor is not None and "so_far" in state.cursor:
                self.outcome.resume(state.cursor["so_far"])
        if over < divided.shards and self.outcome.outcome == "drained":
            self.outcome.outcome = "capped"

    def _is_of_this(self, state: UnitState) -> bool:
        """Whether the shard is one of this sweep, and not over."""
        return state.sweep is not None and state.sweep.get("sweep") == self.sweep

    async def finish_target(self, next_due: datetime | None) -> None:
        """Write how it ended and when the target is due again (None: after a while); wake up what waits for it."""
        engine, target, outcome = self.engine, self.target, self.outcome
        drained = outcome.outcome == "drained"
        parents = engine.parents(target.name)
        async with engine.tools.database.transaction() as tx:
            await due.lock_targets(tx, [target.name, *parents])
            if drained:
                await units.save_cursor(tx, self.lease, None)
            if next_due is None:
                # By the clock that judges what is due: by one that is years ahead it would not be due for years.
                next_due = (await flags.clock_state(tx)).now + engine.tools.spec.min_interval
            if target.window is not None:
                next_due = target.window.next_opening(next_due)
            if self._divided is not None and not self._together:
                # It failed before it came to that.
                self.outcome.make_up_to(await so_far(tx, self.lease, self.target))
                await self._add_shards(tx, self._divided)
            rest = self._rest.document() if self._rest is not None and drained else None
            shown = {**outcome.state(), "rest": rest}
            unfinished = any(map(self._is_of_this, await units.shards(tx, target.name)))
            await units.finish_sweep(
                tx, self.lease, shown, next_due, success=drained, keep_sweep=unfinished, began=self._since
            )
            if outcome.changed and parents:
                await due.make_due(tx, parents)
            await self._tell_what_stopped_it(tx)

    # --- A shard ---

    async def shard_swept(self, state: UnitState) -> None:
        """Sweep the shard as its division says, from where its last worker came to."""
        shard = Shard.of(self.lease.unit.shard, state.sweep or {})
        self.sweep = shard.sweep
        plan = await self._begin()
        await self._resume()
        if shard.digest != plan.digest:
            raise PolicySuperseded(
                f"the sweep of {self.lease.unit} was begun under the policy {shard.digest[:12]}",
                remedy="nothing to do: the next sweep is by the policy in force",
            )
        now, plan = plan.now, replace(plan, now=min(plan.now, shard.now))
        if self._store.order(plan, shard.leg.walk) != shard.order:
            raise Blind(
                f"the walk over target {self.target.name} goes in another order than when it was divided",
                remedy="nothing to do: the next sweep divides it anew",
            )
        # What earlier workers have erased is in the outcome, and counts.
        sweeper = self._sweeper(plan, bound=shard.bound, now=now, shards=shard.shards)
        await sweeper.run([shard.leg], state.cursor)

    async def finish_shard(self, error: Exception | None) -> None:
        """Write how it ended, for whoever has the target's unit.

        One that was left by a process which stops is for anybody to take; one that an error ended which passes, after a
        while; one whose window has closed, or whose server is strained, for the next sweep. What else is left of one is
        for a sweep that counts anew.
        """
        sweeper = self.engine.running.get(self.lease.unit)
        left = self.outcome.outcome == "capped" and sweeper is not None and sweeper.cut_short
        if left and self.engine.stopping:
            return
        async with self.engine.tools.database.transaction() as tx:
            # A batch may be written though its end was not heard of.
            self.outcome.make_up_to(await so_far(tx, self.lease, self.target))
            if error is not None and passes(error) and await self._postponed(tx):
                return
            shown = {"sweep": self.sweep, **self.outcome.state()}
            success = self.outcome.outcome == "drained"
            await units.finish_sweep(tx, self.lease, shown, None, success=success, keep_sweep=left)
            await self._tell_what_stopped_it(tx)

    async def _postponed(self, tx: Tx) -> bool:
        """Leave the shard to be tried again after a while; False where it was tried enough."""
        kept = (await units.state(tx, self.lease.unit)).sweep or {}
        retry = next_try(kept.get("retry"), batches=self.outcome.batches, longest=self.engine.tools.spec.min_interval)
        if retry is None:
            return False
        await units.postpone(tx, self.lease, {**kept, "retry": retry.document()}, retry.seconds)
        if self.outcome.error is not None:
            self.outcome.error["remedy"] = retry.told()
        return True

    # --- Both ---

    def _sweeper(
        self,
        plan: TargetPlan,
        *,
        bound: int | None,
        groups: int | None = None,
        now: datetime | None = None,
        shards: int = 1,
    ) -> Sweeper:
        sweeper = Sweeper(
            self.engine.tools,
            self._store,
            self.target,
            plan,
            self.lease,
            self.sweep,
            self.outcome,
            now=now or plan.now,
            shards=shards,
            bound=bound,
            groups=groups,
        )
        self.engine.running[self.lease.unit] = sweeper
        if self.engine.stopping:
            sweeper.stop.set()
        return sweeper

    async def _tell_what_stopped_it(self, tx: Tx) -> None:
        outcome = self.outcome
        if outcome.outcome in ("guarded", "blind", "failed") and outcome.error:
            guard = str(outcome.error.get("guard", outcome.error["kind"]))
            entry = kinds.guard(guard, tripped=True, target=self.target.name, detail=outcome.evidence())
            await self.engine.tools.journal.append(tx, entry)
