"""A migrated control database in enforce mode, and the few steps that most tests of the barrier need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from retentiond.control import flags, holds, permits, policies, units
from retentiond.control.database import Database
from retentiond.domain.holds import Scope
from retentiond.domain.permit import Lease, Permit, Unit

DIGEST = "sha256:policy"
UNIT = Unit("request_logs")


@dataclass(frozen=True)
class Control:
    """Short forms for the calls of a worker and of counsel."""

    db: Database
    dsn: str

    async def lease(self, unit: Unit = UNIT, owner: str = "worker", seconds: float = 30) -> Lease:
        async with self.db.transaction() as tx:
            await units.ensure(tx, [unit])
        lease = await units.acquire(self.db, unit, owner, seconds)
        assert lease is not None
        return lease

    async def epoch(self) -> int:
        async with self.db.transaction() as tx:
            return (await holds.current(tx)).epoch

    async def permit(self, lease: Lease, *, epoch: int | None = None, **more) -> Permit:
        return await permits.issue(
            self.db,
            number=more.pop("number", None) or await permits.reserve(self.db),
            lease=lease,
            expected_epoch=await self.epoch() if epoch is None else epoch,
            digest=more.pop("digest", DIGEST),
            intent={"batch": more.pop("batch", None) or str(uuid4())},
            **more,
        )

    async def end(self, permit: Permit, outcome: str = "committed") -> None:
        async with self.db.transaction() as tx:
            await permits.end(tx, permit, outcome)

    async def open(self, **filters) -> list[int]:
        async with self.db.transaction() as tx:
            return [found.number for found in await permits.open_permits(tx, **filters)]

    async def place(self, account: str = "a1", **more) -> holds.Hold:
        return await holds.place(self.db, draft(account), "counsel", **more)

    async def activate(self, *probes, **more) -> list[holds.Hold]:
        fences = dict.fromkeys(("request_logs", "audit", "builds"), probes[0] if probes else never)
        return await holds.activate_pending(self.db, fences, **more)

    async def hold(self, hold_id: str) -> holds.Hold:
        async with self.db.transaction() as tx:
            return await holds.get(tx, hold_id)

    async def sql(self, statement: str, *values):
        async with self.db.transaction() as tx:
            return await tx.fetch(statement, *values)


def draft(account: str = "a1", **more) -> holds.HoldDraft:
    return holds.HoldDraft("case 1", "subpoena", Scope(accounts=(account,)), **more)


async def never(number: int) -> bool:
    return False


async def always(number: int) -> bool:
    return True


async def prepared(dsn: str) -> Control:
    db = await Database.connect(dsn)
    await db.migrate()
    async with db.transaction() as tx:
        await flags.set_mode(tx, "enforce", "test")
        await policies.adopt(tx, DIGEST, {"classes": {}}, "baseline")
    return Control(db, dsn)


@pytest.fixture
async def control(database: str) -> AsyncIterator[Control]:
    made = await prepared(database)
    yield made
    await made.db.close()


@pytest.fixture
async def control18(database18: str) -> AsyncIterator[Control]:
    made = await prepared(database18)
    yield made
    await made.db.close()
