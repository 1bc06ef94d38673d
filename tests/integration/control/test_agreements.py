"""What operators agreed to, which configuration is in force, and the clock that was last believed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import approvals, flags, policies
from retentiond.errors import Fenced, UsageError

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


async def test_an_approval_is_used_once(control):
    async with control.db.transaction() as tx:
        granted = await approvals.grant(tx, "sweep", "request_logs", "d1", 100, "operator")
        assert await approvals.find(tx, "sweep", "request_logs", "d1") == granted
    async with control.db.transaction() as tx:
        assert (await approvals.use(tx, granted.id, await control.lease())).used_at is not None
        assert await approvals.find(tx, "sweep", "request_logs", "d1") is None
    with pytest.raises(UsageError):
        async with control.db.transaction() as tx:
            await approvals.use(tx, granted.id)


async def test_of_two_workers_only_one_can_use_an_approval(control):
    async with control.db.transaction() as tx:
        granted = await approvals.grant(tx, "clock", "", "", None, "operator")

    async def use():
        async with control.db.transaction() as tx:
            await approvals.use(tx, granted.id)

    found = await asyncio.gather(use(), use(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in found) == ["NoneType", "UsageError"]


async def test_an_approval_is_good_for_its_own_target_digest_and_kind_only(control):
    async with control.db.transaction() as tx:
        await approvals.grant(tx, "sweep", "request_logs", "d1", 100, "operator")
        assert await approvals.find(tx, "sweep", "builds", "d1") is None
        assert await approvals.find(tx, "sweep", "request_logs", "d2") is None
        assert await approvals.find(tx, "policy", "request_logs", "d1") is None


async def test_a_replaced_worker_can_not_use_an_approval(control):
    lease = await control.lease()
    await control.sql("UPDATE retentiond.units SET fence = fence + 1, owner = 'another'")
    async with control.db.transaction() as tx:
        granted = await approvals.grant(tx, "sweep", "request_logs", "d1", None, "operator")
    with pytest.raises(Fenced):
        async with control.db.transaction() as tx:
            await approvals.use(tx, granted.id, lease)


async def test_what_waits_is_listed_until_it_is_approved_or_withdrawn(control):
    async with control.db.transaction() as tx:
        assert await approvals.request(tx, "sweep", "request_logs", "d1", 900, {"limit": 500})
        (first,) = await approvals.waiting(tx)
        assert not await approvals.request(tx, "sweep", "request_logs", "d1", 950, {"limit": 500})
        await approvals.request(tx, "directory", "", "d1", 40)
    async with control.db.transaction() as tx:
        sweep, directory = await approvals.waiting(tx)
        assert (sweep.since, sweep.count, directory.kind) == (first.since, 950, "directory")
        await approvals.grant(tx, "sweep", "request_logs", "d1", 1000, "operator")
        await approvals.withdraw(tx, "directory", "")
        assert await approvals.waiting(tx) == []


async def test_an_approval_lapses_with_the_question_that_nobody_asks_any_more(control):
    async with control.db.transaction() as tx:
        await approvals.request(tx, "directory", "accounts", "d1", 40)
        granted = await approvals.grant(tx, "directory", "accounts", "d1", 40, "operator")
        await approvals.request(tx, "directory", "accounts", "d1", 50)
        kept = await approvals.grant(tx, "clock", "clock", "", 9, "operator")
    async with control.db.transaction() as tx:
        assert [lapsed.id for lapsed in await approvals.lapse(tx, "directory", "accounts")] == [granted.id]
        assert await approvals.find(tx, "directory", "accounts", "d1") is None
        assert await approvals.waiting(tx) == []
        assert await approvals.find(tx, "clock", "clock", "") == kept
        assert await approvals.lapse(tx, "directory", "accounts") == []


async def test_the_newest_configuration_is_the_active_one(control):
    async with control.db.transaction() as tx:
        await policies.adopt(tx, "d2", {"classes": {"é": 1}}, "counsel")
        back = await policies.adopt(tx, "d1", {}, "counsel")
        assert await policies.active(tx) == back
        assert [version.digest for version in await policies.history(tx)][-2:] == ["d2", "d1"]


async def test_replicas_that_start_together_adopt_a_configuration_once(control):
    async def adopt():
        async with control.db.transaction() as tx:
            return (await policies.adopt(tx, "d2", {}, "GitOps")).seq

    assert len(set(await asyncio.gather(*(adopt() for _ in range(6))))) == 1


async def test_the_clock_that_was_seen_never_falls(control):
    async with control.db.transaction() as tx:
        assert (await flags.clock_state(tx)).high_water is None
        await flags.observe_clock(tx, NOON)
        await flags.observe_clock(tx, NOON - timedelta(days=1))
        assert (await flags.clock_state(tx)).high_water == NOON


async def test_a_pause_keeps_its_first_reason_until_it_is_resumed(control):
    async with control.db.transaction() as tx:
        assert await flags.pause(tx, "operator", "incident")
        assert not await flags.pause(tx, "another", "also")
        paused = await flags.read(tx)
        assert (paused.paused, paused.paused_by, paused.paused_reason) == (True, "operator", "incident")
        assert await flags.resume(tx)
        assert not await flags.resume(tx)


async def test_who_set_the_mode_and_when_is_remembered(control):
    async with control.db.transaction() as tx:
        assert not await flags.set_mode(tx, "enforce", "another")
        assert (await flags.read(tx)).mode_by == "test"
        assert await flags.set_mode(tx, "plan", "operator")
        found = await flags.read(tx)
        assert (found.mode, found.mode_by) == ("plan", "operator")
