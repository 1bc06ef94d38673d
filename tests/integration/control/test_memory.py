"""The memory of the account directory finds what changed since the last sweep, and quickly."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import accounts
from retentiond.errors import Blind

FIRST = datetime(2026, 6, 1, tzinfo=UTC)
LATER = FIRST + timedelta(days=1)


def digest(name) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()[:16]


def row(name, tier="pro", overrides=None, deleted=False):
    return (digest(name), tier, overrides, deleted)


async def survey(control, rows, at=None):
    async with control.db.transaction() as tx:
        found = await accounts.compare(tx, rows)
        if at is not None:
            await accounts.accept(tx, at)
        return found


async def test_the_first_survey_is_all_new(control):
    found = await survey(control, [row("a"), row("b")], FIRST)
    assert (found.known, found.seen, found.new, found.missing, found.deleted, found.changed) == (0, 2, 2, 0, 0, [])


async def test_missing_deleted_changed_and_new_accounts_are_told_apart(control):
    await survey(control, [row("gone"), row("closed"), row("down"), row("rule"), row("same")], FIRST)
    found = await survey(
        control,
        [row("closed", deleted=True), row("down", "free"), row("rule", "pro", '{"logs":"P1D"}'), row("same"), row("x")],
    )
    assert (found.known, found.seen, found.new, found.missing, found.deleted) == (5, 5, 1, 1, 1)
    assert sorted(found.changed) == sorted(
        [(digest("down"), "pro", None, "free", None), (digest("rule"), "pro", None, "pro", '{"logs":"P1D"}')]
    )


async def test_comparing_alone_changes_nothing(control):
    await survey(control, [row("a")], FIRST)
    await survey(control, [])
    assert (await survey(control, [row("a")])).missing == 0
    async with control.db.transaction() as tx:
        assert await accounts.missing_since(tx) == {}


async def test_an_account_newly_deleted_and_changed_is_counted_once(control):
    await survey(control, [row("a")], FIRST)
    found = await survey(control, [row("a", "free", deleted=True)])
    assert (found.deleted, found.changed) == (1, [])


async def test_a_change_is_dated_and_found_for_the_downgrade_grace(control):
    await survey(control, [row("a"), row("b")], FIRST)
    await survey(control, [row("a", "free"), row("b")], LATER)
    async with control.db.transaction() as tx:
        assert await accounts.changed_since(tx, LATER) == {digest("a")}
        assert await accounts.changed_since(tx, LATER + timedelta(seconds=1)) == set()
        found = await accounts.remembered(tx, [digest("a"), digest("unknown")])
    assert found == {digest("a"): accounts.Remembered("free", None, False, LATER, None, FIRST)}


async def test_an_override_that_an_account_changes_is_no_tier_change(control):
    await survey(control, [row("a")], FIRST)
    await survey(control, [row("a", "pro", '{"logs":"P30D"}')], LATER)
    async with control.db.transaction() as tx:
        assert await accounts.changed_since(tx, FIRST) == set()
        assert (await accounts.remembered(tx, [digest("a")]))[digest("a")].overrides == '{"logs":"P30D"}'


async def test_surveys_at_the_same_time_are_compared_one_after_another(control):
    await survey(control, [row(n) for n in range(30)], FIRST)
    found = await asyncio.gather(*(survey(control, [row(0)], LATER) for _ in range(3)))
    assert sorted(each.missing for each in found) == [0, 0, 29]


async def test_an_account_is_missing_since_it_was_first_missed_and_back_when_seen_again(control):
    await survey(control, [row("a"), row("b")], FIRST)
    await survey(control, [row("b")], LATER)
    again = await survey(control, [row("b")], LATER + timedelta(days=1))
    assert (again.known, again.missing) == (1, 0)
    async with control.db.transaction() as tx:
        assert await accounts.missing_since(tx, [digest("a"), digest("b")]) == {digest("a"): LATER}
    await survey(control, [row("a"), row("b")], LATER + timedelta(days=2))
    async with control.db.transaction() as tx:
        assert await accounts.missing_since(tx) == {}


async def test_a_directory_that_gives_an_account_twice_is_blind(control):
    with pytest.raises(Blind):
        await survey(control, [row("a"), row("a", "free")])


async def test_twenty_thousand_accounts_are_compared_and_accepted_quickly(control):
    rows = [row(n) for n in range(20_000)]
    await survey(control, rows, FIRST)
    changed = [row(n, "free") for n in range(1_000)] + rows[1_500:]
    began = time.perf_counter()
    found = await survey(control, changed, LATER)
    took = time.perf_counter() - began
    assert (len(found.changed), found.missing) == (1_000, 500)
    assert took < 20.0, f"{took:.2f} s; on an idle machine it takes about a hundredth of that"
