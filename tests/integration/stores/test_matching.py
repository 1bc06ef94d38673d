"""How many records a hold covers: all of them, due or not, by the condition that sweeps hold by."""

import asyncpg
import pytest

from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.store import PostgresStore
from tests.integration.stores.test_counting import NOW

SECONDS = 30.0


@pytest.fixture
async def connection(database):
    found = await asyncpg.connect(database)
    yield found
    await found.close()


@pytest.fixture
def counted(database, connection):
    async def count(scope, seconds=SECONDS, **more):
        config = {"store": "postgres", "class": "c", "dsn": database, "table": "logs", "anchor": "at", **more}
        store = PostgresStore("logs", PostgresTarget.model_validate(config), action="delete", space="t", secret=b"k")
        try:
            await store.open(None)
            hold = await store.hold(Hold("h", "m", "r", Scope.from_document(scope), HoldState.ACTIVE, "x", NOW))
            return await store.matches(hold, seconds=seconds)
        finally:
            await store.close()

    return count


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"accounts": ["007", "2"]}, 3),
        ({"accounts": ["not a number"]}, 5),
        ({"records": {"logs": ["01", "5", "77"]}}, 2),
        ({"prefixes": {"logs": ["1"]}}, 1),
        ({"since": "2026-01-01"}, 3),
        ({"until": "2026-01-01"}, 4),
        ({"accounts": ["7"], "since": "2026-01-01"}, 1),
        ({"everything": True}, 5),
    ],
)
async def test_a_scope_matches_by_the_columns_own_types_and_what_cannot_be_told_matches(
    counted, connection, scope, expected
):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await connection.execute(
        "INSERT INTO logs VALUES (1, 7, '2026-02-01'), (2, 7, '2025-02-01'), (3, 2, NULL), (4, NULL, 'infinity'),"
        " (5, 8, '2024-02-01')"
    )
    found = await counted(scope, account="account")
    assert found.exact
    # The infinite anchor is inside every range, as the missing one is.
    assert found.records == expected


async def test_a_target_that_knows_no_account_is_held_whole_by_a_hold_on_any(counted, connection):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, at timestamptz); INSERT INTO logs VALUES (1), (2)")
    assert (await counted({"accounts": ["7"]})).records == 2


@pytest.mark.parametrize(
    ("kind", "given"), [("uuid", "AAAAAAAA-0000-0000-0000-000000000001"), ("text", "Ann"), ("numeric", "7.00")]
)
async def test_ids_of_any_type_are_found_by_their_index_and_their_text_alike(counted, connection, kind, given):
    await connection.execute(f"CREATE TABLE logs (id int PRIMARY KEY, account {kind}, at timestamptz)")
    await connection.execute(f"INSERT INTO logs VALUES (1, '{given}'), (2, NULL)")
    assert (await counted({"accounts": [given]}, account="account")).records == 1


async def test_a_count_that_takes_too_long_becomes_an_estimate_that_says_so(counted, connection):
    await connection.execute("CREATE TABLE logs (id int PRIMARY KEY, at timestamptz)")
    await connection.execute("INSERT INTO logs SELECT i FROM generate_series(1, 400000) i")
    await connection.execute("ANALYZE logs")
    found = await counted({"everything": True}, seconds=0.001)
    assert not found.exact
    assert found.records == pytest.approx(400_000, rel=0.1)
    assert (await counted({"everything": True})).records == 400_000
