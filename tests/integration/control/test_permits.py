"""Permits, sentence by sentence of 4-safety.md: what each carries, who gets none, and that none is issued twice."""

from __future__ import annotations

import asyncio

import pytest

from retentiond.control import flags, permits, policies, units
from retentiond.domain.permit import Unit
from retentiond.errors import Fenced, LedgerError, Paused, PlanMode, PolicySuperseded


async def test_a_permit_carries_the_epoch_the_deadline_and_the_intent(control):
    lease = await control.lease()
    permit = await control.permit(lease, batch="b1", seconds=12)
    assert (permit.deadline - permit.issued_at).total_seconds() == 12
    async with control.db.transaction() as tx:
        (found,) = await permits.open_permits(tx)
    assert (found.number, found.unit, found.epoch, found.intent, found.prepared) == (
        permit.number,
        lease.unit,
        await control.epoch(),
        {"batch": "b1"},
        None,
    )


async def test_permit_numbers_fit_canonical_json_and_never_repeat(control):
    numbers = await asyncio.gather(*(permits.reserve(control.db) for _ in range(20)))
    assert len(set(numbers)) == 20
    assert all(2**32 <= number < 2**53 for number in numbers)


async def test_nothing_is_issued_in_plan_mode(control):
    lease = await control.lease()
    async with control.db.transaction() as tx:
        await flags.set_mode(tx, "plan", "operator")
    with pytest.raises(PlanMode):
        await control.permit(lease)
    assert await control.open() == []


async def test_a_pause_reaches_the_next_permit_and_a_resume_the_one_after(control):
    lease = await control.lease()
    async with control.db.transaction() as tx:
        assert await flags.pause(tx, "ann", "incident")
        assert not await flags.pause(tx, "bob", "me too")
    with pytest.raises(Paused, match="ann"):
        await control.permit(lease)
    async with control.db.transaction() as tx:
        assert await flags.resume(tx)
        assert not await flags.resume(tx)
    await control.permit(lease)


async def test_a_worker_with_another_policy_gets_no_permit(control):
    lease = await control.lease()
    async with control.db.transaction() as tx:
        await policies.adopt(tx, "sha256:newer", {}, "counsel")
    with pytest.raises(PolicySuperseded, match="sha256:newer"):
        await control.permit(lease)


async def test_without_a_writable_ledger_there_is_no_permit(control):
    lease = await control.lease()
    await control.sql("CREATE ROLE limited_writer")
    try:
        await control.sql("GRANT USAGE ON SCHEMA retentiond TO limited_writer")
        await control.sql("GRANT SELECT ON ALL TABLES IN SCHEMA retentiond TO limited_writer")
        async with control.db.transaction() as tx:
            await tx.execute("SET LOCAL ROLE limited_writer")
            with pytest.raises(LedgerError):
                await permits.ledger_writable(tx)
        await control.sql("ALTER TABLE retentiond.ledger_head RENAME TO elsewhere")
        with pytest.raises(LedgerError):
            await control.permit(lease)
        assert await control.open() == []
    finally:
        await control.sql("DROP OWNED BY limited_writer")
        await control.sql("DROP ROLE limited_writer")


async def test_a_worker_whose_lease_was_taken_over_gets_no_permit(control):
    lease = await control.lease(seconds=0.05)
    await asyncio.sleep(0.1)
    await control.lease(owner="other")
    with pytest.raises(Fenced):
        await control.permit(lease)


async def test_a_worker_whose_lease_is_over_gets_no_permit_even_if_nobody_took_over(control):
    lease = await control.lease(seconds=0.05)
    await asyncio.sleep(0.1)
    with pytest.raises(Fenced):
        await control.permit(lease)


async def test_a_permit_lets_the_lease_run_as_long_as_itself(control):
    lease = await control.lease(seconds=1)
    permit = await control.permit(lease)
    async with control.db.transaction() as tx:
        found = await units.state(tx, lease.unit)
    assert found.lease_until is not None
    assert found.lease_until >= permit.deadline or (permit.deadline - found.lease_until).total_seconds() < 0.1


async def test_the_same_number_for_the_same_batch_gives_the_same_permit(control):
    lease = await control.lease()
    number = await permits.reserve(control.db)
    epoch = await control.epoch()
    first = await control.permit(lease, number=number, epoch=epoch, batch="b")
    assert await control.permit(lease, number=number, epoch=epoch, batch="b") == first
    assert await control.open() == [number]


async def test_a_unit_with_a_batch_of_unknown_outcome_gets_no_further_permit(control):
    lease = await control.lease()
    await control.permit(lease)
    with pytest.raises(permits.PermitOpen):
        await control.permit(lease)
    await control.permit(await control.lease(Unit("request_logs", "other shard")))


async def test_the_intent_is_recorded_in_the_same_transaction_or_there_is_no_permit(control):
    lease = await control.lease()

    async def fails(tx, permit):
        raise LedgerError("disk full")

    with pytest.raises(LedgerError):
        await control.permit(lease, record=fails)
    assert await control.open() == []
