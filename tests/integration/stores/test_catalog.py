"""What is read from the catalogues: which index gives the order of a walk, and which columns tell records apart."""

import asyncpg
import pytest

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import read_table


@pytest.fixture
async def connection(database):
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


async def table(connection, *statements, key=None):
    await connection.execute(
        "DROP TABLE IF EXISTS logs; CREATE TABLE logs (id bigint NOT NULL, at timestamptz, note text)"
    )
    for statement in statements:
        await connection.execute(statement)
    return await read_table(connection, "logs", key)


async def test_only_a_whole_btree_that_begins_with_a_column_gives_its_order(connection):
    found = await table(
        connection,
        "ALTER TABLE logs ADD PRIMARY KEY (id)",
        "CREATE INDEX ON logs USING brin (at)",
        "CREATE INDEX ON logs USING hash (note)",
        "CREATE INDEX ON logs (at) WHERE id > 5",
        "CREATE INDEX ON logs (lower(note), at)",
    )
    assert found.leading == {"id"}
    found = await table(connection, "ALTER TABLE logs ADD PRIMARY KEY (id)", "CREATE INDEX ON logs (at DESC, note)")
    assert found.leading == {"id", "at"}


async def test_a_unique_index_over_an_expression_is_no_key(connection):
    with pytest.raises(Blind, match="no primary key"):
        await table(connection, "CREATE UNIQUE INDEX ON logs (lower(note), id)")


async def test_a_key_that_admits_nulls_is_refused(connection):
    with pytest.raises(Blind, match="may be null"):
        await table(connection, "CREATE UNIQUE INDEX ON logs (at)")
    with pytest.raises(Blind, match="may be null"):
        await table(connection, key=("note",))
