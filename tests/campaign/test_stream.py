"""The log of a real server, read as the oracle reads it."""

import pytest

from tests.campaign import stream
from tests.services.postgres import cluster, crash, restart


@pytest.fixture(scope="module")
def logical():
    with cluster(16, wal_level="logical", synchronous_commit="on") as server:
        yield server


async def test_every_committed_change_is_seen_once_in_order_with_what_it_was_before_also_after_a_crash(logical):
    import asyncpg

    db = await asyncpg.connect(logical.dsn())
    await db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, at timestamptz, note text)")
    await stream.begin(db, ["logs"])
    await db.execute("INSERT INTO logs VALUES (1, '2026-01-02 03:04:05.678901+00', NULL), (2, NULL, 'it''s ü')")
    async with db.transaction():
        await db.execute("SELECT pg_logical_emit_message(true, 'campaign', 'refresh')")
        await db.execute("UPDATE logs SET note = 'n' WHERE id = 1")
    try:
        async with db.transaction():
            await db.execute("DELETE FROM logs")
            raise LookupError
    except LookupError:
        pass
    seen = stream.Stream("postgres")
    await seen.read(db)
    await db.execute("ALTER TABLE logs ADD COLUMN extra int")
    xid = await db.fetchval("WITH d AS (DELETE FROM logs WHERE id = 2 RETURNING 1) SELECT pg_current_xact_id()::text")
    await db.close()
    crash(logical)
    restart(logical)
    db = await asyncpg.connect(logical.dsn())
    await seen.read(db)
    await seen.read(db)
    await db.close()

    first, second, third = seen.transactions
    one = {"id": "1", "at": "2026-01-02 03:04:05.678901+00", "note": None}
    two = {"id": "2", "at": None, "note": "it's ü"}
    assert first.changes == [stream.Change("logs", None, one), stream.Change("logs", None, two)]
    assert first.own is None
    assert (second.own, second.changes) == ("refresh", [stream.Change("logs", one, one | {"note": "n"})])
    assert third.changes == [stream.Change("logs", two | {"extra": None}, None)]
    assert third.xid == int(xid)
    assert first.at < second.at < third.at
