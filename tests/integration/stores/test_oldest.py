"""The oldest anchor of a table, and whether its schema is as it was."""

from datetime import UTC, datetime

import asyncpg
import pytest
from pydantic import SecretStr

from retentiond.errors import Blind
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.store import PostgresStore

OLDEST = datetime(2019, 3, 1, tzinfo=UTC)
EPOCH = int(OLDEST.timestamp())


@pytest.fixture
async def connection(database):
    made = await asyncpg.connect(database)
    yield made
    await made.close()


async def opened(database, **more):
    given = {"store": "postgres", "class": "operational_logs", "dsn": SecretStr(database), "table": "public.t"}
    store = PostgresStore("t", PostgresTarget(**given, anchor="at", **more), action="delete", space="s", secret=b"k")
    await store.open(None)
    return store


@pytest.fixture
async def oldest(database):
    async def found(**more):
        store = await opened(database, **more)
        try:
            return await store.oldest(None)
        finally:
            await store.close()

    return found


@pytest.mark.parametrize("index", ["", "CREATE INDEX ON t (at)"])
@pytest.mark.parametrize(
    ("type", "values", "unit"),
    [
        ("timestamptz", "('-infinity'), (NULL), ('2019-03-01Z'), ('2024-01-01Z'), ('infinity')", None),
        ("timestamp", "('-infinity'), (NULL), ('2019-03-01'), ('2024-01-01'), ('infinity')", None),
        ("date", "('-infinity'), (NULL), ('2019-02-28'), ('2024-01-01')", None),
        ("bigint", f"(-9000000000000000000), (NULL), ({EPOCH * 1000}), ({EPOCH * 1000 + 5})", "ms"),
        ("float8", f"('-Infinity'), ('NaN'), (NULL), ({EPOCH}), ({EPOCH + 5})", "s"),
        ("numeric", f"('NaN'), (NULL), ({EPOCH}), ({EPOCH + 5})", "s"),
    ],
)
async def test_it_is_the_first_that_is_finite_whatever_the_type(connection, oldest, index, type, values, unit):
    await connection.execute(
        f"CREATE TABLE t (id bigserial PRIMARY KEY, at {type}); INSERT INTO t (at) VALUES {values}; {index}"
    )
    assert await oldest(**({"unit": unit} if unit else {})) == OLDEST


async def test_there_is_none_in_an_empty_table_or_among_endless_anchors(connection, oldest):
    await connection.execute("CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz); CREATE INDEX ON t (at)")
    assert await oldest() is None
    await connection.execute("INSERT INTO t (at) VALUES ('infinity'), (NULL)")
    assert await oldest() is None


async def test_an_anchor_before_the_first_year_is_told_as_from_then(connection, oldest):
    await connection.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz); INSERT INTO t (at) VALUES ('0044-03-15 BC')"
    )
    assert (await oldest()).year == 1


async def test_a_large_table_without_an_index_is_not_read_through_for_it(connection, oldest):
    await connection.execute(
        "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz);"
        "INSERT INTO t (at) SELECT now() FROM generate_series(1, 210000); ANALYZE t"
    )
    assert await oldest() is None
    await connection.execute("CREATE INDEX ON t (at)")
    assert await oldest() is not None


async def test_a_dropped_a_retyped_and_a_replaced_part_of_the_schema_are_told(connection, database):
    made = "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz, note text)"
    await connection.execute(made)
    store = await opened(database)
    try:
        await connection.execute("ALTER TABLE t DROP note, ADD other int")
        await store.require_unchanged()
        await connection.execute("ALTER TABLE t ALTER at TYPE date")
        with pytest.raises(Blind, match="'at' is of type date, and was timestamp with time zone"):
            await store.require_unchanged()
        await connection.execute("ALTER TABLE t DROP at")
        with pytest.raises(Blind, match="no column 'at'"):
            await store.require_unchanged()
        await connection.execute(f"DROP TABLE t; {made}")
        with pytest.raises(Blind, match="another table than before"):
            await store.require_unchanged()
        await connection.execute("DROP TABLE t")
        with pytest.raises(Blind, match="there is no table"):
            await store.require_unchanged()
    finally:
        await store.close()
