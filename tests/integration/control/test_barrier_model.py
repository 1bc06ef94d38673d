"""Holds, permits, leases and batches in any order, on a real Postgres: no record under an active hold is erased.

The target is a model: a batch's transaction is open until it commits, however late, or is cut off; its fence is what
the store's is, "this transaction is over". Everything of the control database is the real thing.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from retentiond.control import flags, holds, permits, policies, units
from retentiond.control.database import Database
from retentiond.domain.holds import HoldState, Scope
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.errors import EpochMoved, Fenced, UsageError

ACCOUNTS = ("a0", "a1", "a2")
UNITS = (Unit("logs"), Unit("logs", "2"))
WORKERS = (0, 1, 2)


@dataclass
class Worker:
    """What one process knows; it may be stopped between any two rules, for any time."""

    name: str
    seen: holds.HoldSet | None = None
    lease: Lease | None = None
    number: int | None = None
    permit: Permit | None = None
    taken: tuple[str, ...] = ()
    committed: bool = False


@dataclass
class Target:
    """Numbers of transactions that are open, and how each ended."""

    open: set[int] = field(default_factory=set)
    fate: dict[int, str] = field(default_factory=dict)


class Barrier(RuleBasedStateMachine):
    dsn = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.workers = [Worker(f"w{n}") for n in WORKERS]
        self.target = Target()
        self.db = self.run(self.begin_clean())

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(self.db.close())
        self.runner.close()

    async def begin_clean(self) -> Database:
        db = await Database.connect(self.dsn)
        await db.migrate()
        async with db.transaction() as tx:
            await tx.execute(
                "ALTER TABLE retentiond.holds DISABLE TRIGGER hold_stays; DELETE FROM retentiond.holds;"
                "DELETE FROM retentiond.permits; DELETE FROM retentiond.units"
            )
            await flags.set_mode(tx, "enforce", "test")
            await policies.adopt(tx, "d", {}, "test")
            await units.ensure(tx, UNITS)
        return db

    async def probe(self, number: int) -> bool:
        return number not in self.target.open

    async def all_holds(self) -> list[holds.Hold]:
        async with self.db.transaction() as tx:
            return await holds.list_all(tx)

    # counsel

    @rule(account=st.sampled_from(ACCOUNTS), at_once=st.booleans())
    def place(self, account, at_once):
        draft = holds.HoldDraft("case", "why", Scope(accounts=(account,)))
        self.run(holds.place(self.db, draft, "counsel"))
        if at_once:
            self.activate()

    @rule()
    def activate(self):
        self.run(holds.activate_pending(self.db, {"logs": self.probe}))

    @rule(pick=st.integers(0, 9), step=st.sampled_from(("release", "reinstate", "mistake")))
    def release_or_reinstate(self, pick, step):
        found = self.run(self.all_holds())
        if not found:
            return
        hold = found[pick % len(found)]
        try:
            if step != "reinstate":
                self.run(holds.release(self.db, hold.id, "counsel", "over", grace_seconds=0))
            if step != "release":
                self.run(holds.reinstate(self.db, hold.id, "counsel", "not over"))
        except UsageError:
            allowed = ("releasing",) if step == "reinstate" else ("pending", "active")
            assert hold.state not in allowed

    @rule()
    def finish_releases(self):
        self.run(holds.finish_releases(self.db))

    # workers

    @rule(who=st.sampled_from(WORKERS))
    def read_the_holds_and_then_be_stopped(self, who):
        self.workers[who].seen = self.run(self.read())

    async def read(self) -> holds.HoldSet:
        async with self.db.transaction() as tx:
            return await holds.current(tx)

    @rule(who=st.sampled_from(WORKERS), unit=st.sampled_from(UNITS), afresh=st.booleans())
    def begin_a_batch(self, who, unit, afresh):
        """Lease, holds (perhaps read long ago), the target's transaction with its fence, then the permit."""
        worker = self.workers[who]
        if worker.number is not None:
            return
        worker.lease = self.run(units.acquire(self.db, unit, worker.name)) or worker.lease
        if afresh or worker.seen is None:
            worker.seen = self.run(self.read())
        if worker.lease is None:
            return
        number = self.run(permits.reserve(self.db))
        self.target.open.add(number)
        try:
            self.run(self.settle(worker.lease))
            worker.permit = self.run(
                permits.issue(
                    self.db,
                    number=number,
                    lease=worker.lease,
                    expected_epoch=worker.seen.epoch,
                    digest="d",
                    intent={"batch": str(number)},
                )
            )
        except (EpochMoved, Fenced, permits.PermitOpen):
            self.target.open.discard(number)
            return
        held = {account for hold in worker.seen.holds for account in hold.scope.accounts}
        worker.number, worker.committed = number, False
        worker.taken = tuple(account for account in ACCOUNTS if account not in held)

    async def settle(self, lease: Lease) -> None:
        async with self.db.transaction() as tx:
            for left in await permits.open_permits(tx, unit=lease.unit):
                if await self.probe(left.number):
                    await permits.end_orphan(tx, left.number, self.target.fate.get(left.number, "aborted"), lease=lease)

    @rule(who=st.sampled_from(WORKERS))
    def commit_the_batch(self, who):
        """However late: this is the moment at which records go."""
        worker = self.workers[who]
        if worker.number is None or worker.number not in self.target.open:
            return
        for hold in self.run(self.all_holds()):
            if hold.effective_at is not None and hold.state is not HoldState.RELEASED:
                assert not set(hold.scope.accounts) & set(worker.taken), f"{hold} was erased under {worker}"
        self.target.open.discard(worker.number)
        self.target.fate[worker.number] = "committed"
        worker.committed = True

    @rule(who=st.sampled_from(WORKERS))
    def write_the_outcome(self, who):
        worker = self.workers[who]
        if worker.permit is None or not worker.committed:
            return

        async def end(permit):
            async with self.db.transaction() as tx:
                await permits.end(tx, permit, "committed")

        try:
            self.run(end(worker.permit))
        except (Fenced, permits.PermitEnded):
            worker.lease = None
        worker.number, worker.permit, worker.committed = None, None, False

    @rule(who=st.sampled_from(WORKERS))
    def crash(self, who):
        """The process dies; its transaction in the target is rolled back, its permit stays open."""
        worker = self.workers[who]
        if worker.number is not None:
            self.target.open.discard(worker.number)
            self.target.fate.setdefault(worker.number, "aborted")
        self.workers[who] = Worker(f"{worker.name}'")

    @rule(unit=st.sampled_from(UNITS))
    def a_lease_runs_out(self, unit):
        async def expire():
            async with self.db.transaction() as tx:
                await tx.execute(
                    "UPDATE retentiond.units SET lease_until = clock_timestamp() - interval '1 second'"
                    " WHERE owner IS NOT NULL AND target = $1 AND shard = $2",
                    unit.target,
                    unit.shard,
                )

        self.run(expire())

    @invariant()
    def an_active_hold_has_no_batch_before_it_that_can_still_take_effect(self):
        active = [h for h in self.run(self.all_holds()) if h.effective_at and h.state is not HoldState.RELEASED]
        for worker in self.workers:
            if worker.number in self.target.open:
                assert not any(set(hold.scope.accounts) & set(worker.taken) for hold in active)

    @invariant()
    def every_open_batch_has_an_open_permit(self):
        async def numbers():
            async with self.db.transaction() as tx:
                return {found.number for found in await permits.open_permits(tx)}

        assert self.target.open <= self.run(numbers())


@pytest.fixture
def dsn(postgres_server):
    name = f"model_{uuid.uuid4().hex[:12]}"

    async def administer(statement: str) -> None:
        connection = await asyncpg.connect(postgres_server.dsn())
        await connection.execute(statement)
        await connection.close()

    asyncio.run(administer(f'CREATE DATABASE "{name}"'))
    yield postgres_server.dsn(name)
    asyncio.run(administer(f'DROP DATABASE "{name}" WITH (FORCE)'))


def test_no_record_under_an_active_hold_is_erased_whatever_the_order_of_events(dsn):
    machine = type("BarrierHere", (Barrier,), {"dsn": dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
