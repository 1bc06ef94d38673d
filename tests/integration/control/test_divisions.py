"""A target is divided by who has its lease, and a shard is never of two divisions at once."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from retentiond.control import units
from retentiond.domain.permit import Unit
from retentiond.errors import Busy, Fenced
from tests.services.gates import waits_for_lock

TARGET = Unit("request_logs")
NAMES = ("1/2", "2/2")


def of(sweep: str, names=NAMES):
    return {name: {"sweep": sweep, "part": name} for name in names}


async def divide(control, lease, sweep: str, names=NAMES) -> None:
    async with control.db.transaction() as tx:
        await units.divide(tx, lease, of(sweep, names))


async def sweeps(control) -> list[str | None]:
    async with control.db.transaction() as tx:
        return [state.sweep["sweep"] if state.sweep else None for state in await units.shards(tx, TARGET.target)]


@pytest.fixture
async def watcher(control):
    connection = await asyncpg.connect(control.dsn)
    yield connection
    await connection.close()


async def test_a_shard_that_is_just_being_taken_is_not_divided_anew_under_its_worker(control, watcher):
    """Else the worker would go on with the old stretch, and leave its cursor and its end in the new one."""
    lease = await control.lease()
    await divide(control, lease, "old")
    taking = await asyncpg.connect(control.dsn)
    await taking.execute("BEGIN")
    await taking.execute(
        "UPDATE retentiond.units SET fence = fence + 1, owner = 'other',"
        " lease_until = clock_timestamp() + interval '30 s' WHERE shard = '2/2'"
    )
    dividing = asyncio.create_task(divide(control, lease, "new"))
    await waits_for_lock(watcher, "retentiond.units")
    await taking.execute("COMMIT")
    await taking.close()
    with pytest.raises(Busy, match="2/2"):
        await dividing
    assert await sweeps(control) == ["old", "old"]


async def test_who_takes_a_shard_while_it_is_divided_waits_and_finds_what_it_is_to_do_now(control, watcher):
    lease = await control.lease()
    await divide(control, lease, "old")
    async with control.db.transaction() as tx:
        await units.divide(tx, lease, of("new"))
        taking = asyncio.create_task(units.acquire(control.db, Unit(TARGET.target, "1/2"), "other"))
        await waits_for_lock(watcher, "fence = fence + 1")
    taken = await taking
    assert taken is not None
    async with control.db.transaction() as tx:
        state = await units.state(tx, taken.unit)
    assert state.sweep == {"sweep": "new", "part": "1/2"}
    assert state.cursor is None


async def test_of_two_that_divide_one_target_at_the_same_moment_only_who_has_its_lease_does(control, watcher):
    """The first was stopped until its lease was over, and comes back just when the second begins."""
    old = await control.lease(owner="first")
    await control.sql("UPDATE retentiond.units SET lease_until = clock_timestamp()")
    new = await units.acquire(control.db, TARGET, "second")
    assert new is not None
    held = await asyncpg.connect(control.dsn)
    await held.execute("BEGIN")
    await held.execute("SELECT 1 FROM retentiond.units FOR UPDATE")
    both = [
        asyncio.create_task(divide(control, old, "first", ("1/3", "2/3", "3/3"))),
        asyncio.create_task(divide(control, new, "second")),
    ]
    async with asyncio.timeout(10):
        while await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") < 2:
            await asyncio.sleep(0.02)
    await held.execute("COMMIT")
    await held.close()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert (type(first), second) == (Fenced, None)
    assert await sweeps(control) == ["second", "second"]


async def test_a_lease_that_ends_while_its_owner_divides_is_taken_over_only_after_the_division(control, watcher):
    lease = await control.lease(owner="first", seconds=0.2)
    async with control.db.transaction() as tx:
        await units.divide(tx, lease, of("first"))
        await watcher.execute("SELECT pg_sleep(0.3)")  # until the lease is over
        taking = asyncio.create_task(units.acquire(control.db, TARGET, "second"))
        await waits_for_lock(watcher, "fence = fence + 1")
    new = await taking
    assert new is not None
    await divide(control, new, "second")
    with pytest.raises(Fenced):
        await divide(control, lease, "first")
    async with control.db.transaction() as tx:
        with pytest.raises(Fenced):
            await units.reopen(tx, lease, "first")
    assert await sweeps(control) == ["second", "second"]


async def test_shards_that_a_new_division_has_no_more_are_nobodys_to_take(control):
    lease = await control.lease()
    await divide(control, lease, "old", ("1/3", "2/3", "3/3"))
    await divide(control, lease, "new")
    async with control.db.transaction() as tx:
        left = {state.unit.shard: state.sweep for state in await units.shards(tx, TARGET.target)}
    assert left == {"1/3": None, "2/3": None, "3/3": None, **of("new")}
