"""Whether a pooler is in front of a database, told from outside."""

import shutil

import asyncpg
import pytest

from retentiond.errors import Unreachable
from retentiond.stores.postgres.connection import TargetDatabase
from retentiond.stores.postgres.pooler import Seen, finding, look
from tests.services.pgbouncer import pgbouncer


async def test_a_direct_connection_is_greeted_by_the_server_that_serves_it(database):
    seen = await look(database, "target t")
    assert not seen.pooled
    assert finding("t", seen) is None


async def test_a_database_that_is_not_there_is_unreachable(database):
    with pytest.raises(Unreachable):
        await look(database + "x", "target t")


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen(greeting=7, before=1, meanwhile=1, after=2), "transaction mode"),
        (Seen(greeting=7, before=1, meanwhile=3, after=2), "transaction mode"),
        (Seen(greeting=1, before=1, meanwhile=1, after=2), "transaction mode"),
        (Seen(greeting=7, before=1, meanwhile=2, after=1), "can't be known"),
    ],
)
def test_what_was_seen_is_said_and_no_more(seen, said):
    assert said in finding("t", seen).message


@pytest.mark.system
@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not on this machine")
@pytest.mark.parametrize(("mode", "said"), [("transaction", "transaction mode"), ("session", "can't be known")])
async def test_pgbouncer_is_noticed_and_its_mode_where_it_shows(postgres_server, mode, said):
    with pgbouncer(postgres_server, mode) as dsn:
        assert said in finding("t", await look(dsn, "target t")).message


async def test_nothing_is_sent_outside_a_transaction_when_a_connection_goes_back_to_its_pool(database):
    """There it could be answered by another server connection, whose client it would reset."""
    pool = TargetDatabase(database, what="target t")
    watcher = await asyncpg.connect(database)
    try:
        async with pool.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        async with pool.raw():
            pass
        last = await watcher.fetchrow("SELECT query, state FROM pg_stat_activity WHERE pid = $1", pid)
        assert tuple(last) == ("COMMIT;", "idle")
    finally:
        await watcher.close()
        await pool.close()
