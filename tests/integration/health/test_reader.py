"""What the signals say of real servers: replicas, slots, archiving, vacuums, locks, snapshots, and roles that see less."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest

from retentiond.stores.health import SIGNALS
from retentiond.stores.postgres.connection import TargetDatabase
from retentiond.stores.postgres.health import HIDDEN, Reader
from tests.services.gates import looks, open_transaction, waits_for_lock
from tests.services.postgres import cluster, limited_role
from tests.services.replicas import freeze, replica, resume

LOGS = "CREATE TABLE logs (id int PRIMARY KEY, v text); INSERT INTO logs SELECT i, 'x' FROM generate_series(1, 1000) i"
WRITE = "CREATE TABLE IF NOT EXISTS noise (v text); INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 2000)"
ASKED = tuple(name for name in SIGNALS if name != "batch_latency")


@asynccontextmanager
async def reading(dsn, table="public.logs", ignored=()):
    database = TargetDatabase(dsn, what="target logs")
    try:
        yield Reader(database, table, ignored)
    finally:
        await database.close()


async def until(reader, signal, condition):
    for _ in range(600):
        found = await reader.read(ASKED)
        if signal in found.values and condition(found.values[signal]):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{signal} did not come about: {found}")


@pytest.fixture
async def admin(database):
    found = await asyncpg.connect(database)
    await found.execute(LOGS)
    yield found
    await found.close()


@pytest.fixture
async def reader(database, admin):
    async with reading(database) as found:
        yield found


@pytest.fixture(scope="module")
def primary():
    with cluster(max_wal_senders="5", wal_level="replica") as server:
        yield server


@pytest.fixture
async def on_primary(primary):
    found = await asyncpg.connect(primary.dsn())
    await found.execute("DROP TABLE IF EXISTS logs;" + LOGS)
    yield found
    await found.close()


@pytest.fixture(params=["database", "database18"])
def dsn(request):
    return request.getfixturevalue(request.param)


async def test_a_quiet_server_can_tell_every_signal_and_none_is_high(dsn):
    connection = await asyncpg.connect(dsn)
    await connection.execute(LOGS)
    async with reading(dsn) as reader:
        found = await reader.read(ASKED)
    await connection.close()
    assert found.unread == {}
    assert set(found.values) == set(ASKED)
    quiet = {name: value for name, value in found.values.items() if name not in ("response", "oldest_snapshot")}
    assert set(quiet.values()) == {0.0}


async def test_nothing_is_asked_but_what_is_wanted(reader):
    found = await reader.read(("lock_waits",))
    assert (set(found.values), found.unread) == ({"lock_waits"}, {})


@pytest.mark.parametrize("process", ["startup", "walreceiver"])
async def test_a_replica_that_stops_is_further_behind_each_time_and_has_caught_up_when_it_goes_on(
    primary, on_primary, process
):
    with replica(primary) as stopped:
        async with reading(primary.dsn()) as reader:
            await until(reader, "replica_backlog", lambda value: value == 0)
            freeze(stopped, process)
            await on_primary.execute(WRITE)
            behind = await until(reader, "replica_lag", lambda value: value > 0)
            assert behind.values["replica_backlog"] > 1_000_000
            later = await until(reader, "replica_lag", lambda value: value > 2 * behind.values["replica_lag"])
            assert later.values["replica_backlog"] >= behind.values["replica_backlog"]
            resume(stopped)
            await until(reader, "replica_backlog", lambda value: value == 0)
            assert (await reader.read(ASKED)).values["replica_lag"] == 0


async def test_a_replica_that_is_late_on_purpose_can_be_left_out(primary, on_primary):
    with replica(primary, "late", recovery_min_apply_delay="1h"):
        await on_primary.execute(WRITE)
        async with reading(primary.dsn()) as reader, reading(primary.dsn(), ignored=("late",)) as told:
            await until(reader, "replica_backlog", lambda value: value > 0)
            assert (await told.read(ASKED)).values["replica_backlog"] == 0


async def test_a_role_that_is_not_shown_the_replicas_says_so_and_pg_monitor_mends_it(primary, on_primary):
    with replica(primary):
        async with limited_role(primary.dsn(), "GRANT SELECT ON logs TO {role}") as dsn:
            role = dsn.split("//")[1].split("@")[0]
            async with reading(dsn) as reader:
                found = await reader.read(ASKED)
                assert found.unread == {"replica_lag": HIDDEN, "replica_backlog": HIDDEN, "oldest_snapshot": HIDDEN}
                assert {"archive_backlog", "retained_wal", "vacuum", "lock_waits"} <= set(found.values)
                await on_primary.execute(f"GRANT pg_monitor TO {role}")
                assert (await reader.read(ASKED)).unread == {}


async def test_a_slot_that_nobody_reads_retains_what_is_written(primary, on_primary):
    await on_primary.execute("SELECT pg_create_physical_replication_slot('idle', true)")
    try:
        async with reading(primary.dsn()) as reader:
            before = (await reader.read(ASKED)).values["retained_wal"]
            await on_primary.execute(WRITE)
            assert (await reader.read(ASKED)).values["retained_wal"] > before + 1_000_000
    finally:
        await on_primary.execute("SELECT pg_drop_replication_slot('idle')")


async def test_wal_that_can_not_be_archived_piles_up_and_is_gone_when_archiving_works():
    with cluster(archive_mode="on", archive_command="false") as server:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute(LOGS)

        async def switch():
            await connection.execute(WRITE)
            await connection.execute("SELECT pg_switch_wal()")

        async with reading(server.dsn()) as reader:
            for _ in range(3):
                await switch()
            failing = await until(reader, "archive_backlog", lambda value: value > 32 * 2**20)
            await switch()
            assert (await reader.read(ASKED)).values["archive_backlog"] > failing.values["archive_backlog"]
            await connection.execute("ALTER SYSTEM SET archive_command = 'true'")
            await connection.execute("SELECT pg_reload_conf()")
            await switch()
            await until(reader, "archive_backlog", lambda value: value < 16 * 2**20)
        await connection.close()


async def test_a_vacuum_of_the_table_is_seen_and_one_of_another_is_not(admin, reader, database):
    await admin.execute("CREATE TABLE other (LIKE logs INCLUDING ALL); INSERT INTO other SELECT * FROM logs")
    for table, seen in (("other", False), ("logs", True)):
        await admin.execute(f"DELETE FROM {table} WHERE id % 2 = 0")
        other = await asyncpg.connect(database)
        # A page costs so much that it takes a minute.
        await other.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")
        vacuum = asyncio.create_task(other.execute(f"VACUUM {table}"))
        async for _ in looks("the vacuum does not begin"):
            if await admin.fetchval("SELECT count(*) FROM pg_stat_progress_vacuum"):
                break
        found = await reader.read(ASKED)
        assert (found.values["vacuum"] > 0) is seen
        # What a vacuum sees keeps nothing from being vacuumed.
        assert found.values["oldest_snapshot"] < 1
        await admin.execute("SELECT pg_cancel_backend($1)", other.get_server_pid())
        await asyncio.gather(vacuum, return_exceptions=True)
        await other.close()
    assert (await reader.read(ASKED)).values["vacuum"] == 0


async def test_a_vacuum_of_a_partition_is_one_of_the_table(admin, database):
    await admin.execute(
        "CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (9)"
    )
    async with (
        open_transaction(database, "LOCK TABLE part1 IN SHARE UPDATE EXCLUSIVE MODE"),
        reading(database, "public.parted") as reader,
    ):
        assert (await reader.read(ASKED)).values["vacuum"] > 0


async def test_who_waits_for_a_row_of_the_table_is_seen_and_who_waits_elsewhere_is_not(admin, reader, database):
    await admin.execute("CREATE TABLE other (LIKE logs INCLUDING ALL); INSERT INTO other SELECT * FROM logs")
    for table, seen in (("other", False), ("logs", True)):
        waiter = await asyncpg.connect(database)
        async with open_transaction(database, f"UPDATE {table} SET v = 'y' WHERE id = 1") as holder:
            waiting = asyncio.create_task(waiter.execute(f"UPDATE {table} SET v = 'z' WHERE id = 1"))
            await waits_for_lock(admin, f"UPDATE {table} SET v = 'z'")
            if seen:
                await until(reader, "lock_waits", lambda value: value > 0)
                await until(reader, "lock_waits", lambda value: value > 0.3)
            else:
                assert (await reader.read(ASKED)).values["lock_waits"] == 0
            await holder.execute("COMMIT")
            await waiting
        await waiter.close()
    assert (await reader.read(ASKED)).values["lock_waits"] == 0


async def test_a_sweep_yields_to_no_session_of_a_sweep(admin, reader, database):
    ours = await asyncpg.connect(database, server_settings={"application_name": "retentiond"})
    async with open_transaction(database, "UPDATE logs SET v = 'y' WHERE id = 1") as holder:
        await ours.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        waiting = asyncio.create_task(ours.execute("SELECT 1 FROM logs WHERE id = 1 FOR UPDATE"))
        await waits_for_lock(admin, "FOR UPDATE")
        assert (await reader.read(ASKED)).values["lock_waits"] == 0
        await holder.execute("ROLLBACK")
        await waiting
    assert (await reader.read(ASKED)).values["oldest_snapshot"] == 0
    await ours.close()


async def test_an_old_transaction_grows_older_whether_open_or_prepared_and_one_elsewhere_does_not_count(
    admin, reader, database
):
    elsewhere = await asyncpg.connect(database.rpartition("/")[0] + "/postgres")
    await elsewhere.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    await asyncio.sleep(0.3)
    assert (await reader.read(ASKED)).values["oldest_snapshot"] < 0.3
    await elsewhere.close()
    async with open_transaction(database, "INSERT INTO logs VALUES (5000)") as writer:
        await writer.execute("PREPARE TRANSACTION 'old'")
        prepared = await until(reader, "oldest_snapshot", lambda value: value > 0.2)
        await until(reader, "oldest_snapshot", lambda value: value > prepared.values["oldest_snapshot"])
        await writer.execute("ROLLBACK PREPARED 'old'")
    async with open_transaction(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1") as dump:
        await until(reader, "oldest_snapshot", lambda value: value > 0.2)
        await dump.execute("COMMIT")
    assert (await reader.read(ASKED)).values["oldest_snapshot"] < 0.2


async def test_a_view_that_a_provider_takes_away_costs_its_signal_alone_and_says_why(admin, database):
    await admin.execute("REVOKE SELECT ON pg_replication_slots FROM PUBLIC")
    try:
        async with limited_role(database, "GRANT pg_monitor TO {role}", "GRANT SELECT ON logs TO {role}") as dsn:
            await admin.execute("REVOKE SELECT ON pg_replication_slots FROM pg_monitor")
            async with reading(dsn) as reader:
                for _ in range(2):
                    found = await reader.read(ASKED)
                    assert set(found.unread) == {"retained_wal"}
                    assert "pg_replication_slots" in found.unread["retained_wal"]
                    assert set(found.values) == set(ASKED) - {"retained_wal"}
    finally:
        await admin.execute("GRANT SELECT ON pg_replication_slots TO PUBLIC")


async def test_a_server_that_does_not_answer_in_time_has_a_bad_response(admin, reader, database):
    async with open_transaction(database, "LOCK TABLE pg_catalog.pg_inherits IN ACCESS EXCLUSIVE MODE"):
        found = await reader.read(ASKED)
    assert found.values["response"] > 0.5
    assert "in time" in found.unread["lock_waits"]
