"""A sweep over targets: the clocks are asked, the directory surveyed, then each target swept under its lease.

One target's failure leaves the others working, and is said in its outcome. What decides between targets (whose turn,
and when) is the scheduler's; this runs one of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from retentiond.control import approvals, flags, units
from retentiond.domain.clock import ClockReading, agreed_now, require_no_jump, skew
from retentiond.domain.permit import Lease, Unit
from retentiond.errors import (
    Blind,
    Fenced,
    Guarded,
    Paused,
    PlanMode,
    PolicySuperseded,
    RetentiondError,
    Unreachable,
)
from retentiond.ledger import kinds
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.store import PostgresStore
from retentiond.sweep.events import ClocksRead, Failed, OldestSeen, SweepDone, guards_after
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.recovery import settle_open_permits
from retentiond.sweep.spec import Target
from retentiond.sweep.survey import survey
from retentiond.sweep.sweeper import Sweeper, Tools, count_due, make_plan

_LEASE_POLL_SECONDS = 0.5
_CLOCK = "clock"


@dataclass(slots=True)
class Engine:
    """The targets of a configuration and what sweeps them; `account_key` keys the memory of accounts."""

    tools: Tools
    stores: Mapping[str, PostgresStore]
    directory: Directory | None
    account_key: bytes
    running: dict[str, Sweeper] = field(default_factory=dict)
    stopping: bool = False

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
        async with self.tools.database.transaction() as tx:
            seen = (await flags.clock_state(tx)).high_water
            approval = await approvals.find(tx, "clock", _CLOCK, "")
            require_no_jump(
                now,
                latest_seen=seen,
                max_jump=limits.max_clock_jump,
                readings=readings,
                approved=approval is not None,
            )
            if approval is not None and seen is not None and now - seen > limits.max_clock_jump:
                await approvals.use(tx, approval.id, None)
            await flags.observe_clock(tx, now)
        return now

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
        except RetentiondError as error:
            outcome.broken(error, ending(error))
        outcome.seconds = time.monotonic() - began
        self._tell(target, sweep, outcome)
        return outcome

    async def prepare(self, store: PostgresStore, target: Target) -> datetime:
        """Open the store, agree on `now`, survey the directory; raises what makes the target unfit to be swept."""
        await store.open(self.directory)
        now = await self.now(store)
        if self.directory is not None and (target.tier_source == "directory" or target.knows_account):
            found = await survey(self.tools.database, self.directory, self.tools.spec, now, self.account_key)
            store.surveyed(found.recent, found.transaction)
        return now

    async def _planned(self, store: PostgresStore, target: Target, outcome: Outcome) -> None:
        await store.open(self.directory)
        clock = await store.clock()
        self.tools.observer(ClocksRead(store.name, skew({"target": clock}).total_seconds()))
        plan = await make_plan(self.tools, store, target, min(clock.now, datetime.now(UTC)))
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        await count_due(store, plan, outcome)

    async def _enforced(self, store: PostgresStore, target: Target, sweep: str, outcome: Outcome) -> None:
        lease = await self._lease(Unit(target.name))
        keeper = asyncio.create_task(self._keep(lease))
        try:
            next_due: datetime | None = None
            try:
                next_due = await self._swept(store, target, lease, sweep, outcome)
            except RetentiondError as error:
                outcome.broken(error, ending(error))
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
        spec = self.tools.spec
        now = await self.prepare(store, target)
        outcome.in_doubt = await settle_open_permits(self.tools.database, self.tools.journal, store, lease)
        plan = await make_plan(self.tools, store, target, now)
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        sweeper = Sweeper(self.tools, store, target, plan, lease, sweep, outcome)
        self.running[target.name] = sweeper
        if self.stopping:
            sweeper.stop.set()
        await sweeper.run()
        self.tools.observer(OldestSeen(target, await store.oldest(plan)))
        soonest, latest = now + spec.min_interval, now + spec.max_interval
        if outcome.outcome != "drained":
            return soonest
        return min(max(await store.next_expiry(plan) or latest, soonest), latest)

    async def _finish(self, target: Target, lease: Lease, outcome: Outcome, next_due: datetime | None) -> None:
        drained = outcome.outcome == "drained"
        async with self.tools.database.transaction() as tx:
            if next_due is None:
                # By the clock that judges what is due: by one that is years ahead it would not be due for years.
                next_due = (await flags.clock_state(tx)).now + self.tools.spec.min_interval
            if target.window is not None:
                next_due = target.window.next_opening(next_due)
            await units.finish_sweep(tx, lease, outcome.document(plan_mode=False), next_due, success=drained)
            if outcome.outcome in ("guarded", "blind", "failed") and outcome.error:
                await self.tools.journal.append(
                    tx,
                    kinds.guard(
                        str(outcome.error["kind"]),
                        tripped=True,
                        target=target.name,
                        detail={"outcome": outcome.outcome},
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

    def _tell(self, target: Target, sweep: str, outcome: Outcome) -> None:
        observer = self.tools.observer
        document = outcome.document(plan_mode=not self.tools.spec.enforce)
        if (error := outcome.error) is not None and outcome.outcome != "paused":
            remedy = str(error["remedy"]) if error["remedy"] else None
            observer(Failed(target.name, str(error["kind"]), str(error["message"]), remedy, sweep))
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
    return "blind" if isinstance(error, Blind) else "failed"
