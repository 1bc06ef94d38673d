"""The later life of a hold: release, grace, reinstatement and end, by its state and never by a reader's clock."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from retentiond.control import holds
from retentiond.domain.holds import HoldState, Scope
from retentiond.errors import EpochMoved, NotFound, UsageError


def draft(**more):
    return holds.HoldDraft("case 1", "subpoena", Scope(accounts=("a1",)), **more)


async def active(control):
    await control.place()
    (hold,) = await control.activate()
    return hold


async def release(control, hold, grace=0.0, **more):
    return await holds.release(control.db, hold.id, "counsel", "settled", grace_seconds=grace, **more)


async def held(control):
    async with control.db.transaction() as tx:
        return [hold.id for hold in (await holds.current(tx)).holds]


async def test_a_hold_in_its_release_grace_still_holds(control):
    hold = await active(control)
    released = await release(control, hold, grace=3600)
    assert (released.state, released.released_by, released.release_reason) == ("releasing", "counsel", "settled")
    assert (released.erasable_at - released.released_at).total_seconds() == pytest.approx(3600, abs=1)
    assert await holds.finish_releases(control.db) == []
    assert await held(control) == [hold.id]


async def test_a_hold_whose_grace_is_over_holds_until_the_transition_is_made(control):
    hold = await active(control)
    await release(control, hold)
    assert await held(control) == [hold.id]
    (ended,) = await holds.finish_releases(control.db)
    assert (ended.id, ended.state) == (hold.id, HoldState.RELEASED)
    assert await held(control) == []


async def test_a_grace_does_not_end_before_the_instant_that_the_caller_believes_in(control):
    hold = await active(control)
    released = await release(control, hold)
    assert await holds.finish_releases(control.db, until=hold.placed_at) == []
    assert len(await holds.finish_releases(control.db, until=released.erasable_at)) == 1


async def test_a_reinstated_hold_is_active_again_since_its_first_effective_instant(control):
    hold = await active(control)
    await release(control, hold)
    back = await holds.reinstate(control.db, hold.id, "counsel", "appeal")
    assert (back.state, back.effective_at, back.erasable_at) == (HoldState.ACTIVE, hold.effective_at, None)
    assert await holds.finish_releases(control.db) == []
    assert await held(control) == [hold.id]


async def test_a_released_hold_is_not_reinstated(control):
    hold = await active(control)
    await release(control, hold)
    await holds.finish_releases(control.db)
    with pytest.raises(UsageError) as refused:
        await holds.reinstate(control.db, hold.id, "counsel", "appeal")
    assert "anew" in (refused.value.remedy or "")


async def test_a_hold_that_was_not_released_is_not_reinstated(control):
    hold = await active(control)
    with pytest.raises(UsageError):
        await holds.reinstate(control.db, hold.id, "counsel", "appeal")


async def test_a_hold_is_not_released_twice(control):
    hold = await active(control)
    first = await release(control, hold, grace=3600)
    with pytest.raises(UsageError):
        await release(control, hold)
    assert (await control.hold(hold.id)).erasable_at == first.erasable_at


async def test_a_pending_hold_that_was_released_and_reinstated_is_pending_and_waits_for_its_permits(control):
    permit = await control.permit(await control.lease())
    hold = await control.place()
    await release(control, hold, grace=3600)
    back = await holds.reinstate(control.db, hold.id, "counsel", "mistake")
    assert (back.state, back.effective_at) == (HoldState.PENDING, None)
    assert await control.activate() == []
    await control.end(permit)
    assert [found.id for found in await control.activate()] == [hold.id]


async def test_a_negative_grace_and_an_unknown_hold_are_refused(control):
    hold = await active(control)
    with pytest.raises(UsageError):
        await release(control, hold, grace=-1)
    with pytest.raises(NotFound):
        await holds.release(control.db, "nothing", "counsel", "settled")
    with pytest.raises(NotFound):
        await holds.reinstate(control.db, "nothing", "counsel", "appeal")


async def test_every_step_is_recorded_in_its_own_transaction(control):
    seen = []

    async def record(tx, hold, event):
        seen.append((event, str(hold.state), await tx.fetchval("SELECT state FROM retentiond.holds")))

    hold = await holds.place(control.db, draft(), "counsel", record=record)
    await control.activate(record=record)
    await release(control, hold, record=record)
    await holds.reinstate(control.db, hold.id, "counsel", "appeal", record=record)
    await release(control, hold, record=record)
    await holds.finish_releases(control.db, record=record)
    assert [event for event, *_ in seen] == ["placed", "activated", "released", "reinstated", "released", "ended"]
    assert all(state == stored for _, state, stored in seen)


async def test_a_step_that_can_not_be_recorded_does_not_happen(control):
    async def broken(tx, hold, event):
        raise RuntimeError("the ledger is full")

    with pytest.raises(RuntimeError):
        await holds.place(control.db, draft(), "counsel", record=broken)
    assert await held(control) == []


async def test_placing_the_same_draft_again_gives_the_same_hold(control):
    first = await holds.place(control.db, mine := draft(id=str(uuid4())), "counsel")
    assert (await holds.place(control.db, mine, "counsel")).id == first.id
    other = holds.HoldDraft("case 2", "subpoena", Scope(everything=True), id=first.id)
    with pytest.raises(UsageError):
        await holds.place(control.db, other, "counsel")


async def test_several_processes_activate_a_hold_once(control):
    await control.place()
    rounds = await asyncio.gather(*(control.activate() for _ in range(5)))
    assert sum(len(found) for found in rounds) == 1


async def test_a_hold_that_can_not_be_read_stops_everything(control):
    await control.place()
    await control.sql('UPDATE retentiond.holds SET scope = \'{"colour": "red"}\'')
    with pytest.raises(holds.UnreadableHold):
        await held(control)


async def test_after_a_failover_no_hold_becomes_active_for_a_permits_life_and_the_grace(control):
    hold = await control.place()
    await control.sql("UPDATE retentiond.barrier SET server_line = 'another/00000001'")
    waits = []
    assert await control.activate(on_wait=lambda found, why: waits.append((found.id, why[0].why))) == []
    assert waits == [(hold.id, "failover")]
    assert await control.activate(permit_seconds=0.0, grace_seconds=0.0) != []


async def test_after_a_failover_a_worker_must_read_the_holds_again(control):
    lease = await control.lease()
    epoch = await control.epoch()
    await control.sql("UPDATE retentiond.barrier SET server_line = 'another/00000001'")
    with pytest.raises(EpochMoved):
        await control.permit(lease, epoch=epoch)
    assert await control.epoch() > epoch + 1000
    assert (await control.permit(lease)).epoch > epoch
