"""One daemon with hundreds of targets, some of which are broken in every way: the others are swept, and all is said."""

import asyncio

import asyncpg
import psutil
import pytest

from tests.services.daemon import running, until
from tests.services.postgres import cluster
from tests.services.sweeping import ACCOUNTS, Rig

BREAK = {
    "missing": "DROP TABLE {t}",
    "ungranted": "ALTER TABLE {t} OWNER TO postgres; REVOKE ALL ON {t} FROM app",
    "misnamed": "ALTER TABLE {t} RENAME created_at TO made_at",
    "keyless": "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey",
    "elsewhere": "DROP TABLE {t}",
}
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'retentiond%'"


@pytest.fixture
def small_server():
    """A server that has as many connections as Postgres comes with."""
    with cluster(16, max_connections="100") as server:
        yield server


@pytest.fixture
async def small(small_server, tmp_path):
    connection = await asyncpg.connect(small_server.dsn())
    await connection.execute("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO app")
    yield Rig(small_server.dsn(), connection, tmp_path, small_server.dsn())
    await connection.close()


async def tables(rig, count, due=3):
    await rig.db.execute(ACCOUNTS + "GRANT SELECT ON accounts TO app")
    dsn = rig.dsn.replace("postgres@", "app@", 1)
    rig.control = dsn
    rig.accounts = {"dsn": dsn}
    names = [f"t{i:04}" for i in range(count)]
    for at in range(0, count, 50):
        await rig.db.execute(
            "".join(
                f"CREATE TABLE {t} (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
                f"CREATE INDEX ON {t} (created_at); ALTER TABLE {t} OWNER TO app;"
                f"INSERT INTO {t} SELECT i, 1, now() - interval '400 days' FROM generate_series(1, {due}) i;"
                f"INSERT INTO {t} VALUES (1001, 1, now());"
                for t in names[at : at + 50]
            )
        )
    for t in names:
        rig.target(t, dsn=dsn)
    return names


async def most_connections(rig, ended):
    """The largest number of our connections seen until then."""
    most = 0
    while not ended.is_set():
        most = max(most, await rig.db.fetchval(OURS))
        await asyncio.sleep(0.05)
    return most


async def successes(rig):
    async with rig.control_connection() as control:
        return await control.fetchval("SELECT count(*) FROM retentiond.units WHERE last_success_at IS NOT NULL")


async def test_fifty_broken_targets_of_two_hundred_keep_nobody_and_are_each_said(small):
    names = await tables(small, 200)
    broken = {name: list(BREAK)[i % len(BREAK)] for i, name in enumerate(names[::4])}
    for name, how in broken.items():
        await small.db.execute(BREAK[how].format(t=name))
        if how == "elsewhere":
            small.targets[name]["dsn"] = "postgresql://app@127.0.0.1:1/nowhere"
    good = [name for name in names if name not in broken]
    ended = asyncio.Event()
    watching = asyncio.create_task(most_connections(small, ended))
    async with running(small.environment()) as daemon:

        async def drained():
            assert daemon.process.code is None, daemon.process.output
            return await successes(small) == len(good)

        await until(drained, lambda: daemon.process.output[-5000:])

        async def said():
            return {f"target {name}" for name in broken} == set(await daemon.checks())

        await until(said, lambda: daemon.process.output[-5000:])
        failing = await daemon.checks()
        ended.set()
        for name, how in broken.items():
            told = failing[f"target {name}"]
            assert told["remedy"], told
            named = {"misnamed": "created_at", "keyless": "primary key", "ungranted": "permission denied"}.get(how, "")
            assert named in told["message"], (how, told)
        assert await daemon.metric("last_success_timestamp_seconds", target=good[0]) > 0
        assert not await daemon.metric("last_success_timestamp_seconds", target=names[0])
        memory = psutil.Process(daemon.process.pid).memory_info().rss
    async with asyncio.timeout(60):
        most = await watching
    assert most <= 60, "connections are bounded whatever the number of targets"
    assert memory < 400 << 20
    for name in good:
        assert await small.db.fetchval(f"SELECT count(*) FROM {name}") == 1
    await small.require_told(**dict.fromkeys(good, 3))


@pytest.mark.late
async def test_a_thousand_targets_in_one_database_need_no_more_connections_than_postgres_comes_with(small, tmp_path):
    names = await tables(small, 1000, due=1)
    file = tmp_path / "retentiond.json"  # JSON is YAML; a thousand targets are too long for a variable
    file.write_text(small.environment()["RETENTIOND_CONFIG"])
    async with running({"RETENTIOND_CONFIG_FILE": str(file)}) as daemon:

        async def drained():
            assert daemon.process.code is None, daemon.process.output
            return await successes(small) == len(names)

        await until(drained, lambda: daemon.process.output[-5000:], deadline=900)
        assert "too many clients" not in daemon.process.output
        assert "are in use" not in daemon.process.output
        await daemon.until_ready()
