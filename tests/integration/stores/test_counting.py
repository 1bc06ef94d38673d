"""What counting says of a window: records by tier, bytes as stored, anchors, and how far the oldest is past its term."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from retentiond.domain.duration import instant
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.stores.base import Window
from retentiond.stores.postgres.config import AccountsConfig, PostgresTarget
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.store import PostgresStore
from retentiond.stores.postgres.walks import BEYOND
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due

NOW = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
POLICY = {
    "tiers": ["free", "pro"],
    "downgrade_grace": "none",
    "deletion_grace": "P30D",
    "unknown_tier": "longest",
    "no_account": "free",
    "classes": {
        "logs": {"ttl": {"free": "P90D", "pro": "P365D"}},
        "account_data": {"after": "account_deleted", "ttl": "P30D"},
        "law": {"ttl": "P7Y", "minimum": True},
    },
}
ACCOUNTS = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz);
INSERT INTO accounts VALUES (1, 'free', NULL), (2, 'pro', NULL), (3, 'free', '2026-01-31 08:00+00');
"""


@pytest.fixture
async def connection(database):
    found = await asyncpg.connect(database)
    await found.execute(ACCOUNTS)
    yield found
    await found.close()


@asynccontextmanager
async def opened(dsn, class_name="logs", **more):
    policy, faults = parse_policy(POLICY, used_classes=frozenset([class_name]))
    assert policy is not None, faults
    config = {
        "store": "postgres",
        "class": class_name,
        "dsn": dsn,
        "table": "logs",
        "anchor": "at",
        "account": "account",
    }
    directory = Directory(AccountsConfig(dsn=dsn, table="accounts", deleted_at="deleted_at"))
    store = PostgresStore("logs", PostgresTarget.model_validate(config | more), action="delete", space="t", secret=b"k")
    try:
        await store.open(directory)
        groups = await store.groups(class_name)
        yield store, TargetPlan("logs", policy.classes[class_name], policy, NOW, groups=groups)
    finally:
        await store.close()
        await directory.close()


async def counted(store, plan):
    return await count_due(store, plan, Outcome())


async def test_an_empty_table_has_nothing_due_and_is_not_overdue(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    assert (found.scanned, found.would, found.would_bytes, found.overdue_seconds) == (0, 0, 0, 0.0)
    assert (found.oldest, found.newest, found.tiers) == (None, None, {})


async def test_each_tier_has_its_own_records_anchors_and_overdue_seconds(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    for number, (account, days) in enumerate([(1, 91), (1, 100), (1, 89), (2, 366), (2, 300), (None, 95), (99, 400)]):
        await connection.execute("INSERT INTO logs VALUES ($1, $2, $3)", number, account, NOW - timedelta(days=days))
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    shown = {tier: (each.due, each.overdue_seconds / 86_400) for tier, each in found.tiers.items() if each.due}
    assert shown == {"free": (2, 10), "pro": (1, 1), "none": (1, 5), "unknown": (1, 35)}
    assert instant(found.tiers["free"].oldest) == NOW - timedelta(days=100)
    assert instant(found.tiers["free"].newest) == NOW - timedelta(days=91)
    assert instant(found.oldest) == NOW - timedelta(days=400)
    assert found.overdue_seconds == 35 * 86_400
    assert found.by_tier == {"free": 2, "pro": 1, "none": 1, "unknown": 1}


async def test_held_records_are_counted_for_their_tier_and_never_as_overdue(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    for number, (account, days) in enumerate([(1, 500), (2, 600), (1, 89)]):
        await connection.execute("INSERT INTO logs VALUES ($1, $2, $3)", number, account, NOW - timedelta(days=days))
    async with opened(database) as (store, plan):
        hold = await store.hold(Hold("h", "m", "r", Scope(accounts=("1",)), HoldState.ACTIVE, "x", NOW))
        found = await counted(store, replace(plan, holds=(hold,)))
    assert (found.tiers["free"].held, found.tiers["free"].due, found.tiers["free"].overdue_seconds) == (1, 0, 0)
    assert (found.tiers["pro"].held, found.tiers["pro"].due) == (0, 1)
    assert found.overdue_seconds == (600 - 365) * 86_400


async def test_records_without_a_finite_anchor_are_unresolved_and_give_no_anchor(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute("INSERT INTO logs VALUES (1, 1, NULL), (2, 1, 'infinity'), (3, 2, '-infinity')")
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    assert (found.would, found.unresolved, found.overdue_seconds) == (0, 3, 0.0)
    assert (found.oldest, found.tiers["free"].first) == (None, None)


async def test_an_anchor_that_rfc_3339_cannot_say_is_shown_as_the_nearest_that_it_can(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute("INSERT INTO logs VALUES (1, 1, '0044-03-15 12:00+00 BC')")
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    assert (found.would, found.oldest) == (1, "0001-01-01T00:00:00.000000Z")
    assert found.overdue_seconds > 2000 * 365 * 86_400


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
async def test_epoch_anchors_of_a_composite_key_are_counted_as_instants(connection, database, unit, scale):
    await connection.execute("CREATE TABLE logs (a text, b uuid, account bigint, at bigint, PRIMARY KEY (a, b))")
    for days in (91, 92, 10):
        moment = int((NOW - timedelta(days=days)).timestamp() * scale)
        await connection.execute("INSERT INTO logs VALUES ('x', gen_random_uuid(), 1, $1)", moment)
    await connection.execute("INSERT INTO logs VALUES ('y', gen_random_uuid(), 1, NULL)")
    async with opened(database, unit=unit) as (store, plan):
        found = await counted(store, plan)
    assert (found.would, found.unresolved, found.overdue_seconds) == (2, 1, 2 * 86_400)
    assert instant(found.oldest) == NOW - timedelta(days=92)


async def test_a_class_counted_from_deletion_is_overdue_since_its_account_s_grace_is_over(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute("INSERT INTO logs VALUES (1, 3, '2020-01-01'), (2, 3, NULL), (3, 1, '2020-01-01')")
    async with opened(database, "account_data") as (store, plan):
        found = await counted(store, plan)
    deleted = datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert found.would == 2
    assert found.overdue_seconds == (NOW - timedelta(days=30) - deleted).total_seconds()
    assert instant(found.oldest) == datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_record_due_for_its_account_s_erasure_is_overdue_by_the_deletion(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute("INSERT INTO logs VALUES (1, 3, '2026-03-30 00:00+00')")
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
        law = replace(plan, data_class=plan.policy.classes["law"])
        kept = await counted(store, law)
    assert (found.would, found.overdue_seconds) == (1, 29 * 86_400)
    assert (kept.would, kept.minimum, kept.overdue_seconds) == (0, 1, 0.0)


async def test_bytes_are_those_stored_and_nulls_take_none(connection, database):
    await connection.execute(
        "CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz, note text, flag boolean, gone text)"
    )
    await connection.execute("ALTER TABLE logs DROP COLUMN gone")
    await connection.execute(
        "INSERT INTO logs VALUES (1, 1, '2020-01-01', 'four', NULL), (2, NULL, '2020-01-01', NULL, NULL)"
    )
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    text = await connection.fetchval("SELECT sum(pg_column_size(note)) FROM logs")
    assert found.would_bytes == (4 + 8 + 8 + text) + (4 + 8)


async def test_the_bytes_of_a_long_text_are_told_without_fetching_it(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz, body text)")
    await connection.execute("ALTER TABLE logs ALTER COLUMN body SET STORAGE EXTERNAL")
    await connection.execute(
        "INSERT INTO logs SELECT i, 1, '2020-01-01', repeat('x', 100000) FROM generate_series(1, 20) i"
    )
    async with opened(database) as (store, plan):
        before = await toast_reads(connection)
        found = await counted(store, plan)
    assert found.would_bytes >= 20 * 100_000
    # The store's sessions report what they read before they are gone; a fetch of ours shows that it would be seen.
    while await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'retentiond'"):
        await asyncio.sleep(0.05)
    assert await toast_reads(connection) == before
    await connection.fetchval("SELECT sum(length(upper(body))) FROM logs")
    assert await toast_reads(connection) > before


async def toast_reads(connection):
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return await connection.fetchval(
        "SELECT toast_blks_read + toast_blks_hit FROM pg_statio_user_tables WHERE relname = 'logs'"
    )


async def test_a_table_of_very_many_columns_has_bytes(connection, database):
    columns = ", ".join(f"c{i} int" for i in range(250))
    await connection.execute(f"CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz, {columns})")
    await connection.execute("INSERT INTO logs (id, account, at, c0, c249) VALUES (1, 1, '2020-01-01', 1, 1)")
    async with opened(database) as (store, plan):
        found = await counted(store, plan)
    assert found.would_bytes == 4 + 8 + 8 + 2 * 4


async def test_windows_add_up_to_the_same_as_one(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute(
        "INSERT INTO logs SELECT i, 1 + i % 2, timestamptz '2026-03-31 08:00+00' - i * interval '1 day'"
        " FROM generate_series(1, 500) i"
    )
    await connection.execute("CREATE INDEX ON logs (at)")
    async with opened(database) as (store, plan):
        whole = await counted(store, plan)
        summed, after = Outcome(), None
        while True:
            tally = await store.count(plan, Window("term", after, 37))
            summed.judged(tally)
            after = tally.after
            if after is None:
                break
    assert summed.tiers == {tier: each for tier, each in whole.tiers.items() if each.due or each.first}
    assert (summed.would, summed.overdue_seconds) == (whole.would, whole.overdue_seconds)


async def test_the_look_beyond_the_horizon_finds_the_oldest_of_what_is_not_due(connection, database):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute("CREATE INDEX ON logs (at)")
    for number, (account, days) in enumerate([(1, 500), (1, 20), (2, 30), (2, 10)]):
        await connection.execute("INSERT INTO logs VALUES ($1, $2, $3)", number, account, NOW - timedelta(days=days))
    async with opened(database) as (store, plan):
        found = await store.count(plan, Window(BEYOND, None, 100))
        narrow = await store.count(plan, Window(BEYOND, None, 1))
    assert instant(found.tiers["pro"].first) == NOW - timedelta(days=30)
    assert instant(found.tiers["free"].first) == NOW - timedelta(days=20)
    assert (found.after, set(narrow.tiers)) == (None, {"pro"})
    assert narrow.after is not None
