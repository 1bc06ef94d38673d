"""One sweep of one target: plan, guard, then batch after batch, each under its permit.

The order inside a batch is the safety of the whole (4-safety, "Permits and the hold barrier"):
the target's transaction and its lock, then the permit, then the deleting statement, then the outcome as it will be,
then COMMIT, then the ledger, cursor and permit in one transaction of the control database, under the lease's fence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from retentiond.control import approvals, holds, permits, units
from retentiond.control.database import Database
from retentiond.domain.duration import instant
from retentiond.domain.evidence import keyed_digest
from retentiond.domain.holds import covers_target
from retentiond.domain.permit import Lease, Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import EpochMoved, Guarded, UsageError
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.stores.base import Batch, Store, Tally, Window
from retentiond.sweep.events import BatchDone, Observer, Throttled, ignore
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Spec, Target
from retentiond.sweep.throttle import Pacer

_COUNT_WINDOW = 50_000
_MAX_EPOCH_RETRIES = 100


@dataclass(frozen=True, slots=True)
class Tools:
    """What every sweeper works with; `evidence` keys the digests of record ids."""

    database: Database
    journal: Journal
    spec: Spec
    evidence: bytes
    worker: str
    observer: Observer = ignore


async def make_plan(tools: Tools, store: Store, target: Target, now: datetime) -> TargetPlan:
    """The plan of a target at `now`, with the holds of the current epoch in the target's own text."""
    spec = tools.spec
    plan = TargetPlan(
        target=target.name,
        data_class=target.data_class,
        policy=spec.policy,
        now=now,
        rules=spec.rules,
        tier_source=target.tier_source,
        tier=target.tier,
        knows_account=target.knows_account,
        has_directory=spec.has_directory,
        groups=await store.groups(target.data_class.name),
        action=target.action,
        digest=spec.digest,
    )
    return await with_holds(tools.database, store, plan)


async def with_holds(database: Database, store: Store, plan: TargetPlan) -> TargetPlan:
    """The plan under the holds as they are now."""
    async with database.transaction(read_only=True) as tx:
        current = await holds.current(tx)
    bearing = [
        await store.hold(hold)
        for hold in current.holds
        if covers_target(hold.scope, target=plan.target, class_name=plan.data_class.name)
    ]
    return replace(plan, holds=tuple(bearing), epoch=current.epoch)


async def count_due(store: Store, plan: TargetPlan, total: Outcome) -> Outcome:
    """Judge every record that can be due, touching none, and add it to `total`."""
    for walk in store.walks(plan):
        after: tuple[str, ...] | None = None
        while True:
            found = await store.count(plan, Window(walk, after, _COUNT_WINDOW))
            total.judged(found)
            after = found.after
            if after is None:
                break
    return total


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
    ) -> None:
        self._tools, self._store, self._target = tools, store, target
        self._plan, self._lease, self._sweep = plan, lease, sweep
        self._pacer = Pacer(target.pace)
        self._bound: int | None = None
        self.outcome = outcome
        self.stop = asyncio.Event()

    async def run(self) -> Outcome:
        """Sweep until drained, stopped or capped; errors of guards, fences and the target pass through."""
        await self._guard()
        for walk in self._store.walks(self._plan):
            await self._walk(walk, wait_for_locks=False)
        if self.outcome.locked:
            await self._again_for_locked()
        if self.outcome.failed:
            self.outcome.broken(
                UsageError(
                    f"{self.outcome.failed} records of target {self._target.name} are due but were not erased",
                    remedy="see the table's triggers; a trigger that returns NULL vetoes the delete",
                ),
                "failed",
            )
        return self.outcome

    async def _guard(self) -> None:
        """The fraction and count guard: stops before the first batch until approved."""
        limits = self._tools.spec.limits
        fraction = limits.max_fraction * await self._store.total() if limits.max_fraction < 1 else float("inf")
        most = min(fraction, limits.max_records if limits.max_records is not None else float("inf"))
        if most == float("inf"):
            return
        most = max(most, limits.min_records)
        self.outcome.counted = await count_due(self._store, self._plan, Outcome())
        due = self.outcome.counted.would
        if due <= most:
            return
        async with self._tools.database.transaction() as tx:
            approval = await approvals.find(tx, "sweep", self._target.name, self._plan.digest)
            if approval is not None and (approval.bound is None or due <= approval.bound):
                await approvals.use(tx, approval.id, self._lease)
                await self._tools.journal.append(
                    tx,
                    kinds.approval(
                        "used",
                        subject="sweep",
                        target=self._target.name,
                        digest=self._plan.digest,
                        bound=approval.bound,
                        by=self._tools.worker,
                    ),
                )
                self._bound = approval.bound
                return
            await approvals.request(tx, "sweep", self._target.name, self._plan.digest, due, {"limit": int(most)})
        raise Guarded(
            "fraction",
            f"a sweep of target {self._target.name} would {self._plan.action} {due} records, more than {int(most)} "
            "(guards.max_fraction, guards.max_records)",
            remedy=f"look at `retentiond plan`, then run `retentiond approve {self._target.name}`",
        )

    async def _again_for_locked(self) -> None:
        """A blocking pass for rows that the application had locked; what is still locked then is left and said."""
        self.outcome.locked = 0
        # This pass judges again what the first one has counted, so only what it erases is added.
        kept = (self.outcome.held, self.outcome.minimum, self.outcome.unresolved, self.outcome.blocked)
        for walk in self._store.walks(self._plan):
            await self._walk(walk, wait_for_locks=True)
        self.outcome.held, self.outcome.minimum, self.outcome.unresolved, self.outcome.blocked = kept
        if self.outcome.locked:
            self.outcome.broken(
                UsageError(
                    f"{self.outcome.locked} records of target {self._target.name} are locked by other transactions",
                    remedy="they are taken by a later sweep; see pg_locks for who holds them",
                ),
                "capped",
            )

    async def _walk(self, walk: str, *, wait_for_locks: bool) -> None:
        after: tuple[str, ...] | None = None
        retries = 0
        while not self.stop.is_set():
            if not self._open():
                break
            window = await self._within_bound(Window(walk, after, self._pacer.size))
            if window is None:
                break
            began = time.monotonic()
            try:
                found = await self._batch(window, wait_for_locks=wait_for_locks)
            except EpochMoved:
                retries += 1
                if retries > _MAX_EPOCH_RETRIES:
                    raise
                self._plan = await with_holds(self._tools.database, self._store, self._plan)
                continue
            seconds = time.monotonic() - began
            self._pacer.after(seconds)
            after = found.after
            if after is None:
                return
            await self._rest(seconds, found.changed)
        self.outcome.outcome = "capped"

    async def _within_bound(self, window: Window) -> Window | None:
        """The window, narrowed where it could hold more than the approval still allows; None when that is used up.

        What was approved was counted, so this bites only when more has become due in the meantime.
        """
        left = None if self._bound is None else self._bound - self.outcome.changed
        if left is None or left >= window.size:
            return window
        if (await self._store.count(self._plan, window)).selected <= left:
            return window
        return replace(window, size=left) if left else None

    def _open(self) -> bool:
        window = self._target.window
        return window is None or window.open_at(self._plan.now)

    async def _rest(self, seconds: float, records: int) -> None:
        reason, rest = self._pacer.rest(seconds, records)
        if rest <= 0:
            return
        self._tools.observer(Throttled(self._target, reason, rest))
        try:
            await asyncio.wait_for(self.stop.wait(), rest)
        except TimeoutError:
            return

    async def _batch(self, window: Window, *, wait_for_locks: bool) -> Tally:
        database = self._tools.database
        batch_id = str(uuid4())
        number = await permits.reserve(database)
        began = time.monotonic()
        async with self._store.batch(self._plan, number, wait_for_locks=wait_for_locks) as batch:
            permit = await permits.issue(
                database,
                number=number,
                lease=self._lease,
                expected_epoch=self._plan.epoch,
                digest=self._plan.digest,
                intent={"sweep": self._sweep, "batch": batch_id, "walk": window.walk, "size": window.size},
            )
            found = await self._erase(batch, permit, window, batch_id)
            await self._prepare_and_commit(batch, permit, found, began)
        await self._settle(permit, found, window, began)
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

    async def _erase(self, batch: Batch, permit: Permit, window: Window, batch_id: str) -> Tally:
        salt = keyed_digest(self._tools.evidence, batch_id)
        return await batch.erase(permit, window, salt=salt)

    async def _prepare_and_commit(self, batch: Batch, permit: Permit, found: Tally, began: float) -> None:
        if found.changed:
            prepared = {"transaction": found.transaction, "outcome": self._entry(permit, found, began).body}
            await permits.prepare(self._tools.database, permit, prepared)
        await batch.commit()

    async def _settle(self, permit: Permit, found: Tally, window: Window, began: float) -> None:
        async with self._tools.database.transaction() as tx:
            await units.save_cursor(
                tx, self._lease, {"walk": window.walk, "after": list(found.after) if found.after else None}
            )
            await permits.end(tx, permit, "committed" if found.changed else "empty")
            if found.changed or found.failed:
                await self._tools.journal.append(tx, self._entry(permit, found, began))

    def _entry(self, permit: Permit, found: Tally, began: float) -> kinds.Entry:
        plan = self._plan
        work = kinds.Work(
            sweep=self._sweep,
            batch=permit.batch,
            permit=permit.number,
            target=plan.target,
            store=self._target.store,
            class_name=plan.data_class.name,
            action=plan.action,
            policy_digest=plan.digest,
            rule=plan.data_class.after,
            cutoff=plan.horizon(),
            hold_epoch=permit.epoch,
            shard=self._lease.unit.shard,
        )
        counts = kinds.Counts(
            selected=found.selected,
            held=found.held,
            minimum=found.minimum,
            failed=found.failed,
            **self._did(found.changed),
        )
        result = kinds.Result(
            counts=counts,
            verified="returning",
            milliseconds=int((time.monotonic() - began) * 1000),
            tiers={tier: kinds.Counts(**self._did(count)) for tier, count in found.by_tier.items()},
            bytes=found.bytes,
            oldest=_moment(found.oldest),
            newest=_moment(found.newest),
            ids_digest=found.ids_digest,
        )
        return kinds.outcome(work, result)

    def _did(self, count: int) -> Mapping[str, int]:
        return {"erased" if self._plan.action == "delete" else "anonymised": count}


def _moment(text: str | None) -> datetime | None:
    """An anchor's text as an instant; None also for one before year 1, which Python can't say."""
    if text is None:
        return None
    try:
        return instant(text)
    except UsageError:
        return None
