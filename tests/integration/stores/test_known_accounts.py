"""The account directory asked about many accounts, by ids as records of any store write them."""

from datetime import UTC, datetime

import asyncpg
import pytest

from retentiond.domain.accounts import AccountFacts
from retentiond.errors import Blind
from retentiond.stores.postgres.config import AccountsConfig
from retentiond.stores.postgres.directory import Directory
from services.citext import citext

DELETED = datetime(2026, 1, 2, tzinfo=UTC)


async def directory(dsn, kind, ids, *, query=None, before=""):
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        f"{before}; CREATE TABLE accounts (id {kind}, tier text, deleted_at timestamptz, retention jsonb,"
        " changed timestamptz)"
    )
    for each in ids:
        await connection.execute(f"INSERT INTO accounts (id, tier) VALUES ($1::text::{kind}, 'pro')", each)
    found = Directory(
        AccountsConfig(
            dsn=dsn,
            table=None if query else "accounts",
            query=query,
            deleted_at="deleted_at",
            overrides="retention",
            tier_changed_at="changed",
        )
    )
    return connection, found


async def close(connection, found):
    await found.close()
    await connection.close()


async def test_of_a_case_insensitive_id_the_text_that_is_remembered_is_the_directory_s(database):
    connection, found = await directory(database, "citext", ["Bob"], before=citext())
    try:
        (known,) = (await found.known("logs", ["BOB"])).values()
        assert (known.id, known.written) == ("bob", "Bob")
        assert await found.canonical(["BoB"]) == {"BoB": "bob"}
    finally:
        await close(connection, found)


async def test_an_account_is_as_it_is_when_it_is_asked_about_alone(database):
    connection, found = await directory(database, "bigint", map(str, range(1, 7)))
    try:
        await connection.execute(
            "UPDATE accounts SET deleted_at = $1 WHERE id = 1; ".replace("$1", f"'{DELETED.isoformat()}'")
            + "UPDATE accounts SET deleted_at = 'infinity', changed = 'infinity' WHERE id = 2;"
            """ UPDATE accounts SET retention = '{"logs": "P7Y"}', changed = '2026-03-01' WHERE id = 3;"""
            """ UPDATE accounts SET retention = '["logs"]', tier = NULL WHERE id = 4;"""
            """ UPDATE accounts SET retention = 'null', changed = '-infinity' WHERE id = 5;"""
        )
        known = await found.known("logs", [str(n) for n in range(1, 9)])
        assert known.keys() == {str(n) for n in range(1, 7)}
        for account, of in known.items():
            edge = datetime(2026, 2, 1, tzinfo=UTC)
            alone = await found.facts(account, "logs", edge)
            in_grace = of.changed_at is not None and of.changed_at > edge
            assert AccountFacts(True, of.facts.tier, of.facts.override, of.facts.deleted_at, in_grace) == alone
        assert known["1"].facts.deleted_at == DELETED
        assert known["4"].facts.override == "(no JSON object)"
    finally:
        await close(connection, found)


async def test_a_query_is_asked_as_a_table_is_and_an_id_that_stands_twice_is_refused(database):
    query = "SELECT id, tier, deleted_at, retention, changed FROM accounts UNION ALL SELECT 9, 'free', NULL, NULL, NULL"
    connection, found = await directory(database, "bigint", ["7"], query=query)
    try:
        assert (await found.known("logs", ["7", "9", "10"])).keys() == {"7", "9"}
        await connection.execute("INSERT INTO accounts (id, tier) VALUES (9, 'pro')")
        with pytest.raises(Blind, match="stands twice"):
            await found.known("logs", ["7", "9"])
    finally:
        await close(connection, found)
