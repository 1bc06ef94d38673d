"""Accounts that the directory lost are found by the table's own records, whatever type and index their column has."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from retentiond.domain.accounts import Surveyed, account_hash
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.errors import Blind
from retentiond.stores.base import Way, Window
from retentiond.stores.postgres.config import AccountsConfig, PostgresTarget
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.store import PostgresStore

NOW = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
KEY = b"k" * 32
POLICY, _ = parse_policy({"tiers": ["free"], "classes": {"logs": {"ttl": "P10Y"}}}, used_classes=frozenset(["logs"]))
# The n-th account's id in each type.
IDS = {"bigint": "i", "text": "'acc-' || i", "uuid": "('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid"}


async def filled(dsn, kind, *, accounts, index=True, directory=None):
    """A record for each of so many accounts; every second one is in the directory."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        f"CREATE TABLE logs (id bigserial PRIMARY KEY, account {kind}, at timestamptz);"
        f" INSERT INTO logs (account, at) SELECT {IDS[kind]}, '2026-03-01' FROM generate_series(1, {accounts}) i;"
        " INSERT INTO logs (account, at) VALUES (NULL, '2026-03-01'); CREATE INDEX ON logs (at);"
        + ("CREATE INDEX ON logs (account);" if index else "")
    )
    at = connection if directory is None else await asyncpg.connect(directory)
    await at.execute(
        f"CREATE TABLE accounts (id {kind} PRIMARY KEY, tier text);"
        f" INSERT INTO accounts SELECT {IDS[kind]}, 'free' FROM generate_series(2, {accounts}, 2) i"
    )
    ids = [
        row["id"] for row in await connection.fetch("SELECT account::text AS id FROM logs WHERE account IS NOT NULL")
    ]
    if directory is not None:
        await at.close()
    return connection, ids


async def opened(dsn, ids, *, directory=None, days=31, knows=1.0):
    """A store, and a plan that remembers (a share of) the ids as missing for so many days."""
    source = Directory(AccountsConfig(dsn=directory or dsn, table="accounts"))
    target = {"store": "postgres", "class": "logs", "dsn": dsn, "table": "logs", "anchor": "at", "account": "account"}
    store = PostgresStore("logs", PostgresTarget.model_validate(target), action="delete", space="t", secret=b"k")
    await store.open(source)
    known = ids[: int(len(ids) * knows)]
    surveyed = Surveyed(missing={account_hash(KEY, each): NOW - timedelta(days=days) for each in known}, key=KEY)
    groups = await store.groups("logs")
    plan = TargetPlan("logs", POLICY.classes["logs"], POLICY, NOW, groups=groups, surveyed=surveyed, schema=store.mark)
    return store, source, replace(plan, missing=await store.missing(plan))


async def closed(store, source, connection):
    await store.close()
    await source.close()
    await connection.close()


async def swept(store, plan, size):
    for walk in store.walks(plan):
        number, after, more = 0, None, True
        while more:
            number += 1
            async with store.batch(plan, number, Way.CAREFUL) as batch:
                permit = Permit(number, Lease(Unit("logs"), "o", 1), 0, "", "b", NOW, NOW)
                after = (await batch.erase(permit, Window(walk, after, size), salt="s")).after
                await batch.commit()
            more = after is not None


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kind", list(IDS))
async def test_more_accounts_than_one_step_of_the_walk_takes_are_all_found(database, kind, index):
    connection, ids = await filled(database, kind, accounts=11_000, index=index)
    store, source, plan = await opened(database, ids)
    here = {row["id"] for row in await connection.fetch("SELECT id::text AS id FROM accounts")}
    assert [each.id for each in plan.missing] == [each for each in ids if each not in here] or kind == "text"
    assert {each.id for each in plan.missing} == set(ids) - here
    await closed(store, source, connection)


async def test_accounts_that_the_memory_never_saw_or_that_are_missing_too_shortly_are_not_due(database):
    connection, ids = await filled(database, "bigint", accounts=20)
    store, source, plan = await opened(database, ids, knows=0.5)
    assert {each.id for each in plan.missing} == {"1", "3", "5", "7", "9"}
    await store.close()
    await source.close()
    store, source, plan = await opened(database, ids, days=29)
    assert plan.missing == ()
    await closed(store, source, connection)


@pytest.mark.parametrize("size", [7, 1000])
@pytest.mark.parametrize("kind", list(IDS))
async def test_every_record_of_a_due_missing_account_is_erased_and_no_other(database, kind, size):
    connection, ids = await filled(database, kind, accounts=240)
    store, source, plan = await opened(database, ids)
    await swept(store, plan, size)
    left = await connection.fetchval("SELECT count(*) FROM logs l JOIN accounts a ON a.id = l.account")
    assert (left, await connection.fetchval("SELECT count(*) FROM logs")) == (120, 121)
    await closed(store, source, connection)


@pytest.mark.parametrize("kind", list(IDS))
async def test_a_directory_elsewhere_is_asked_which_accounts_it_lost(database, database18, kind):
    connection, ids = await filled(database, kind, accounts=240, directory=database18)
    store, source, plan = await opened(database, ids, directory=database18)
    assert len(plan.missing) == 120
    await swept(store, plan, 7)
    assert await connection.fetchval("SELECT count(*) FROM logs") == 121
    await closed(store, source, connection)


async def test_an_account_that_comes_back_during_the_sweep_is_kept(database):
    connection, ids = await filled(database, "bigint", accounts=20)
    store, source, plan = await opened(database, ids)
    await connection.execute("INSERT INTO accounts VALUES (3, 'free')")
    await swept(store, plan, 100)
    left = {row["account"] for row in await connection.fetch("SELECT account FROM logs")}
    assert left == {None, 3, *range(2, 21, 2)}
    await closed(store, source, connection)


@pytest.mark.parametrize("kind", ["numeric(20, 0)", "char(8)", "date"])
async def test_accounts_whose_texts_tell_them_apart_are_found_missing_elsewhere(database, database18, kind):
    value = {"date": "2026-01-01"}.get(kind, "1")
    connection = await asyncpg.connect(database)
    await connection.execute(
        f"CREATE TABLE logs (id bigserial PRIMARY KEY, account {kind}, at timestamptz);"
        f" INSERT INTO logs (account, at) VALUES ('{value}', '2026-03-01'); CREATE INDEX ON logs (at)"
    )
    other = await asyncpg.connect(database18)
    await other.execute(f"CREATE TABLE accounts (id {kind}, tier text)")
    await other.close()
    ids = [await connection.fetchval("SELECT account::text FROM logs")]
    store, source, plan = await opened(database, ids, directory=database18)
    assert [each.id for each in plan.missing] == ids
    await closed(store, source, connection)


async def test_an_account_under_another_spelling_elsewhere_is_not_taken_for_missing(database, database18):
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE logs (id bigserial PRIMARY KEY, account numeric, at timestamptz)")
    other = await asyncpg.connect(database18)
    await other.execute("CREATE TABLE accounts (id numeric, tier text)")
    await other.close()
    with pytest.raises(Blind, match="numeric"):
        await opened(database, [], directory=database18)
    await connection.close()
