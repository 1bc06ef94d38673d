"""What the account directory answers stores that can't join it: accounts by ids that come from elsewhere, as texts."""

from datetime import UTC, datetime

import asyncpg
import pytest

from retentiond.errors import Blind
from retentiond.stores.postgres import typed
from retentiond.stores.postgres.config import AccountsConfig
from retentiond.stores.postgres.directory import Directory

UPPER = "6F9619FF-8B86-D011-B42D-00C04FC964FF"


@pytest.fixture
async def made(database):
    """`made(type, rows, …)`: a directory whose ids are of that type."""
    opened = []

    async def make(id_type, *ids, **config):
        connection = await asyncpg.connect(database)
        await connection.execute(
            f"DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id {id_type} PRIMARY KEY, tier text,"
            " deleted_at timestamptz, changed_at timestamptz, retention jsonb)"
        )
        for each in ids:
            await connection.execute(f"INSERT INTO accounts VALUES ($1::text::{id_type}, 'free')", each)
        opened.append(connection)
        directory = Directory(AccountsConfig(dsn=database, table="accounts", **config))
        opened.append(directory)
        return directory, connection

    yield make
    for each in opened:
        await each.close()


@pytest.mark.parametrize(
    ("id_type", "there", "asked", "found"),
    [
        ("bigint", "7", "007", "7"),
        ("uuid", UPPER.lower(), UPPER, UPPER.lower()),
        ("text", "a b", "a b", "a b"),
        ("varchar(5)", "abcde", "abcde", "abcde"),
        ("char(5)", "abc", "abc", "abc"),
        ("numeric", "1.50", "1.5", "1.5"),
    ],
)
async def test_ids_are_compared_in_the_directorys_own_type(made, id_type, there, asked, found):
    directory, _ = await made(id_type, there)
    known = await directory.known("operational_logs", [asked, "9" * 40, "no such", ""])
    assert {given: each.id for given, each in known.items()} == {asked: found}
    assert known[asked].facts.tier == "free"
    assert (await directory.canonical([asked]))[asked] == found


@pytest.mark.parametrize("id_type", ["varchar(5)", "char(5)", "name"])
async def test_an_id_that_is_longer_than_the_column_is_nobodys(made, id_type):
    longest = "x" * (63 if id_type == "name" else 5)
    directory, _ = await made(id_type, longest)
    assert await directory.known("operational_logs", [longest + "y"]) == {}
    assert await directory.canonical([longest + "y"]) == {longest + "y": longest + "y"}


async def test_what_can_be_no_id_is_left_out_and_the_others_are_answered(made):
    directory, _ = await made("bigint", "7", "8")
    hostile = ["x'; DROP TABLE accounts", "a\x00b", "\ud800", "", " ", "9" * 30, "1.5", "7", "08"]
    assert set(await directory.known("operational_logs", hostile)) == {"7", "08"}
    assert await directory.canonical(hostile) == {"7": "7", "08": "8"}
    assert await directory.known("operational_logs", []) == {}


async def test_a_server_that_can_only_be_tried_comes_to_the_same(made):
    _, connection = await made("bigint", "7")
    column = await typed.type_of(connection, "accounts", "id")
    texts = ["7", "x", "8", "", "9" * 30, "010"]
    async with connection.transaction():
        tried = await typed._tried(connection, column.type, texts)
        assert list(tried) == list(await typed.valid(connection, column.type, texts)) == ["7", "8", "010"]


async def test_the_facts_are_those_of_the_class_and_a_change_of_tier_is_dated(made):
    directory, connection = await made(
        "bigint", "1", "2", "3", deleted_at="deleted_at", overrides="retention", tier_changed_at="changed_at"
    )
    await connection.execute(
        "UPDATE accounts SET deleted_at = '2026-01-01Z', retention = '{\"operational_logs\": \"P7Y\"}' WHERE id = 1;"
        " UPDATE accounts SET changed_at = 'infinity', deleted_at = 'infinity' WHERE id = 2"
    )
    known = await directory.known("operational_logs", ["1", "2", "3"])
    assert (known["1"].facts.override, known["1"].facts.deleted_at) == ("P7Y", datetime(2026, 1, 1, tzinfo=UTC))
    assert known["1"].changed_at is None
    assert known["2"].changed_at.year == 9999, "later than any edge of a grace"
    assert known["2"].facts.deleted_at is None
    assert known["3"].changed_at is None
    assert (await directory.known("prompts", ["1"]))["1"].facts.override is None


async def test_a_type_whose_equal_values_have_different_texts_is_refused(made):
    directory, _ = await made("float8", "0")
    with pytest.raises(Blind, match="float8"):
        await directory.known("operational_logs", ["-0"])
    _, connection = await made("bigint")
    await connection.execute('CREATE COLLATION loose FROM "C"')
    directory, _ = await made("text COLLATE loose")
    # As a collation of ICU can be made, which not every server has.
    await connection.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose'")
    with pytest.raises(Blind, match="loose collation"):
        await directory.canonical(["A"])


async def test_ids_of_an_empty_directory_are_of_its_type_too(made):
    directory, _ = await made("uuid")
    assert await directory.canonical([UPPER, "7"]) == {UPPER: UPPER.lower()}
