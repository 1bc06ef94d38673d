"""A unit has one owner at a time, and an owner that was replaced can change nothing any more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from retentiond.control import due, permits, units
from retentiond.domain.permit import Unit
from retentiond.errors import Fenced, NotFound
from tests.services.gates import waits_for_lock

UNIT = Unit("request_logs")
NEXT = datetime(2030, 1, 1, tzinfo=UTC)


async def taken_over(control):
    """A lease that another worker has taken over after it ran out, with the new one."""
    old = await control.lease(owner="old")
    await control.sql("UPDATE retentiond.units SET lease_until = clock_timestamp()")
    new = await units.acquire(control.db, UNIT, "new")
    assert new is not None
    return old, new


async def test_a_second_worker_gets_no_lease_while_the_first_one_runs(control):
    await control.lease(owner="first")
    assert await units.acquire(control.db, UNIT, "second") is None


async def test_of_many_workers_at_once_exactly_one_gets_the_lease(control):
    async with control.db.transaction() as tx:
        await units.ensure(tx, [UNIT])
    found = await asyncio.gather(*(units.acquire(control.db, UNIT, f"worker {n}") for n in range(20)))
    assert len([lease for lease in found if lease]) == 1


async def test_every_takeover_has_a_higher_fence_and_counts_as_a_crash(control):
    old, new = await taken_over(control)
    assert new.fence == old.fence + 1
    async with control.db.transaction() as tx:
        assert (await units.state(tx, UNIT)).crashes == 1


async def test_a_released_unit_is_free_at_once_and_no_crash_is_counted(control):
    lease = await control.lease(owner="first")
    async with control.db.transaction() as tx:
        assert await units.release(tx, lease)
    assert await units.acquire(control.db, UNIT, "second") is not None
    async with control.db.transaction() as tx:
        assert (await units.state(tx, UNIT)).crashes == 0
        assert not await units.release(tx, lease)


async def test_a_replaced_worker_can_neither_renew_nor_save_nor_finish(control):
    old, _ = await taken_over(control)
    for refused in (
        lambda tx: units.renew(tx, old),
        lambda tx: units.save_cursor(tx, old, {"after": "x"}),
        lambda tx: units.save_sweep(tx, old, {"id": "x"}),
        lambda tx: units.finish_sweep(tx, old, {}, NEXT, success=True),
        lambda tx: units.require(tx, old),
        lambda tx: units.require(tx, old, lock=True),
    ):
        with pytest.raises(Fenced):
            async with control.db.transaction() as tx:
                await refused(tx)


async def test_a_replaced_worker_can_neither_prepare_nor_end_its_permit(control):
    old = await control.lease(owner="old")
    permit = await control.permit(old)
    await control.sql("UPDATE retentiond.units SET lease_until = clock_timestamp()")
    assert await units.acquire(control.db, UNIT, "new") is not None
    with pytest.raises(Fenced):
        await permits.prepare(control.db, permit, {"transaction": "1"})
    with pytest.raises(Fenced):
        await control.end(permit)
    assert await control.open() == [permit.number]


async def test_what_was_prepared_is_found_by_whoever_takes_over_and_ended_once(control):
    permit = await control.permit(await control.lease(owner="old"))
    await permits.prepare(control.db, permit, {"transaction": "77", "outcome": {"erased": 3}})
    async with control.db.transaction() as tx:
        (found,) = await permits.open_permits(tx, unit=UNIT)
        assert found.prepared == {"transaction": "77", "outcome": {"erased": 3}}
        assert await permits.end_orphan(tx, permit.number, "committed")
        assert not await permits.end_orphan(tx, permit.number, "aborted")
        assert await permits.outcome_of(tx, permit.number) == "committed"


async def test_a_permit_that_was_never_issued_can_not_be_ended(control):
    with pytest.raises(NotFound):
        async with control.db.transaction() as tx:
            await permits.end_orphan(tx, 7, "aborted")


async def test_a_permit_that_was_ended_by_another_is_not_ended_again_by_its_worker(control):
    permit = await control.permit(await control.lease())
    async with control.db.transaction() as tx:
        await permits.end_orphan(tx, permit.number, "aborted")
    with pytest.raises(permits.PermitEnded):
        await control.end(permit)
    with pytest.raises(Fenced):
        await permits.prepare(control.db, permit, {})


async def test_the_cursor_and_the_outcome_of_a_unit_are_remembered(control):
    lease = await control.lease()
    async with control.db.transaction() as tx:
        await units.save_cursor(tx, lease, {"after": ["2026-01-01", "é"]})
        await units.save_sweep(tx, lease, {"id": "s1"})
    async with control.db.transaction() as tx:
        state = await units.state(tx, UNIT)
        assert (state.cursor, state.sweep) == ({"after": ["2026-01-01", "é"]}, {"id": "s1"})
        await units.finish_sweep(tx, lease, {"erased": 5}, NEXT, success=True)
    async with control.db.transaction() as tx:
        (state,) = await units.all_states(tx)
        assert (state.sweep, state.outcome, state.next_due_at) == (None, {"erased": 5}, NEXT)
        assert state.last_success_at is not None


async def test_the_next_sweep_can_be_brought_forward_for_chosen_targets(control):
    for lease in [await control.lease(Unit(name)) for name in ("builds", "request_logs")]:
        async with control.db.transaction() as tx:
            await units.finish_sweep(tx, lease, {}, NEXT, success=True)
    async with control.db.transaction() as tx:
        assert await due.make_due(tx, ["builds"]) == 1
        at = {state.unit.target: state.next_due_at for state in await units.all_states(tx)}
        assert at["builds"] < NEXT == at["request_logs"]


async def test_a_target_that_is_made_due_while_it_is_swept_is_due_when_its_sweep_is_over(control):
    """The hold that ended meanwhile kept records that the sweep had passed by then."""
    lease = await control.lease()
    began = (await control.sql("SELECT clock_timestamp() AS now"))[0]["now"]
    async with control.db.transaction() as tx:
        assert await due.make_due(tx) == 1
    async with control.db.transaction() as tx:
        await units.finish_sweep(tx, lease, {}, NEXT, success=True, began=began)
        assert (await units.state(tx, UNIT)).next_due_at < NEXT
    began = (await control.sql("SELECT clock_timestamp() AS now"))[0]["now"]
    async with control.db.transaction() as tx:
        await units.finish_sweep(tx, lease, {}, NEXT, success=True, began=began)
        assert (await units.state(tx, UNIT)).next_due_at == NEXT, "the next sweep has seen it"


async def test_those_who_make_several_targets_due_lock_them_in_one_order(control):
    """Two sweeps whose targets refer to each other end at the same time: neither waits for what the other has."""
    mine, other = [await control.lease(Unit(name)) for name in ("audit", "builds")]
    async with control.db.transaction() as first:
        await due.lock_targets(first, ["builds", "audit"])

        async def second():
            async with control.db.transaction() as tx:
                await due.lock_targets(tx, ["audit", "builds"])
                await units.finish_sweep(tx, mine, {}, NEXT, success=True)
                await due.make_due(tx, ["builds"])

        waiting = asyncio.create_task(second())
        watcher = await asyncpg.connect(control.dsn)
        await waits_for_lock(watcher, "FOR NO KEY UPDATE")
        await watcher.close()
        await units.finish_sweep(first, other, {}, NEXT, success=True)
        await due.make_due(first, ["audit"])
    await waiting


async def test_an_unknown_unit_is_an_error_that_names_it(control):
    with pytest.raises(NotFound, match="nothing/0007"):
        await units.acquire(control.db, Unit("nothing", "0007"), "worker")
