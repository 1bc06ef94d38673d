"""Taking over: what was left behind is ended by the new owner only, and holds go on being activated by anybody."""

from __future__ import annotations

import asyncio

import pytest

from retentiond.control import holds, permits, units
from retentiond.control.database import Database
from retentiond.domain.holds import Scope
from retentiond.domain.permit import Unit
from retentiond.errors import Fenced

UNIT = Unit("request_logs")


def draft(account: str = "a1", **more) -> holds.HoldDraft:
    return holds.HoldDraft("case 1", "subpoena", Scope(accounts=(account,)), **more)


async def taken_over(control):
    """An old lease with a permit, and the lease of the worker that took the unit over since."""
    old = await control.lease()
    permit = await control.permit(old, seconds=0.3)
    await control.sql("UPDATE retentiond.units SET lease_until = now()")
    await asyncio.sleep(0.4)  # the permit is over as well
    new = await control.lease(owner="other")
    return old, permit, new


async def test_nobody_takes_a_unit_over_while_an_outcome_is_being_committed(control):
    lease = await control.lease(seconds=2)
    async with control.db.transaction() as tx:
        await units.require(tx, lease, lock=True)
        await asyncio.sleep(2.1)
        taking = asyncio.create_task(units.acquire(control.db, UNIT, "other"))
        await asyncio.sleep(0.3)
        assert not taking.done()
        await tx.execute("SELECT 1")
    other = await taking
    assert other is not None
    assert other.fence == lease.fence + 1


async def test_a_lease_that_is_over_is_no_lease_even_if_nobody_took_the_unit(control):
    lease = await control.lease(seconds=0.05)
    await asyncio.sleep(0.1)
    async with control.db.transaction() as tx:
        with pytest.raises(Fenced):
            await units.renew(tx, lease)


async def test_the_same_owner_may_take_its_unit_again_and_fences_its_own_past(control):
    first = await control.lease()
    second = await control.lease()
    assert second.fence == first.fence + 1
    async with control.db.transaction() as tx:
        with pytest.raises(Fenced):
            await units.require(tx, first)
        await units.require(tx, second, lock=True)


async def test_whoever_takes_over_ends_the_permit_that_was_left_and_goes_on(control):
    _, permit, new = await taken_over(control)
    async with control.db.transaction() as tx:
        (left,) = await permits.open_permits(tx, unit=UNIT)
        assert left.number == permit.number
        await permits.end_orphan(tx, left.number, "aborted", lease=new)
        assert await permits.outcome_of(tx, left.number) == "aborted"
    await control.permit(new)


async def test_an_old_lease_can_not_end_a_permit_as_left_behind(control):
    old, permit, _ = await taken_over(control)
    async with control.db.transaction() as tx:
        with pytest.raises(Fenced):
            await permits.end_orphan(tx, permit.number, "aborted", lease=old)
    assert await control.open() == [permit.number]


async def test_permits_that_ended_long_ago_are_forgotten_and_open_ones_never(control):
    lease = await control.lease()
    await control.end(await control.permit(lease))
    still = await control.permit(lease)
    async with control.db.transaction() as tx:
        assert await permits.prune(tx, keep_seconds=3600) == 0
        assert await permits.prune(tx, keep_seconds=-1) == 1
    assert await control.open() == [still.number]


async def test_another_process_activates_what_the_placing_one_left_pending(control):
    placer = await Database.connect(control.dsn)
    hold = await holds.place(placer, draft(), "counsel")
    await placer.close()
    assert [active.id for active in await control.activate()] == [hold.id]


async def test_the_barrier_is_not_held_while_a_target_is_asked(control):
    lease = await control.lease()
    permit = await control.permit(lease)
    await control.place()

    async def asks(number: int) -> bool:
        await control.end(permit)
        await asyncio.wait_for(control.permit(lease), 60)
        return True

    assert len(await control.activate(asks)) == 1
