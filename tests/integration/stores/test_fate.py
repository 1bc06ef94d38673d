"""What became of a transaction, asked by its name: whoever named it, whatever they may read, whichever server answers."""

import asyncio

import asyncpg
import pytest

from retentiond.errors import Unreachable
from retentiond.stores.postgres.connection import SAME_SERVER, TargetDatabase
from retentiond.stores.postgres.fate import RUN_SQL, fate, name
from tests.services.postgres import cluster, limited_role, restart_cleanly
from tests.services.replicas import replica

BLIND_TO_TIMELINES = "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn) FROM PUBLIC"


async def committed(dsn, line):
    """The name of a transaction that is committed, its line of servers told by that expression."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        row = await connection.fetchrow(f"SELECT pg_current_xact_id()::text AS xid, {line} AS line, {RUN_SQL} AS run")
    await connection.close()
    return name(row["xid"], row["line"], row["run"])


async def test_all_who_ask_at_the_same_time_name_the_server_by_the_same_line(database):
    """Two shards that begin together: what the second one's batch is called must be found by whoever looks for it."""
    target = TargetDatabase(database, what="target logs")
    first, *others = await asyncio.gather(*(target.line_sql() for _ in range(8)))
    assert others == [first] * 7
    assert "system_identifier" in first
    for line in others:
        assert await fate(target, await committed(database, line)) == "committed"
    await target.close()


async def test_a_batch_that_was_named_by_the_servers_start_is_found_while_that_server_runs():
    with cluster() as server:
        target = TargetDatabase(server.dsn(), what="target logs")
        transaction = await committed(server.dsn(), SAME_SERVER)
        assert await fate(target, transaction) == "committed"
        await target.close()
        restart_cleanly(server)
        assert await fate(target, transaction) == "unknown"
        await target.close()


async def test_a_role_that_may_read_no_timeline_names_the_server_by_its_start():
    with cluster() as server:
        admin = await asyncpg.connect(server.dsn())
        await admin.execute(BLIND_TO_TIMELINES)
        await admin.close()
        async with limited_role(server.dsn()) as dsn:
            target = TargetDatabase(dsn, what="target logs")
            assert await target.line_sql() == SAME_SERVER
            assert await fate(target, await committed(dsn, await target.line_sql())) == "committed"
            await target.close()


async def test_a_server_that_is_a_replica_just_now_is_not_named_by_less_than_it_can_tell_once_it_is_promoted():
    with cluster(max_wal_senders="5", wal_level="replica") as primary, replica(primary) as standby:
        target = TargetDatabase(standby.dsn(), what="target logs")
        with pytest.raises(Unreachable, match="replica"):
            await target.line_sql()
        admin = await asyncpg.connect(standby.dsn())
        assert await admin.fetchval("SELECT pg_promote(true, 60)")
        assert "system_identifier" in await target.line_sql()
        await admin.close()
        await target.close()
