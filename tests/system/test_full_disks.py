"""Disks that are really full: the control database's, and the target's. Nothing goes without evidence, and all goes on."""

import asyncio
import signal

import asyncpg
import pytest

from tests.services.daemon import running, until
from tests.services.disks import small_disk
from tests.services.logs import line, prepared
from tests.services.postgres import cluster

pytestmark = pytest.mark.system

DUE = 900
WAL = {"wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB", "autovacuum": "off"}


@pytest.fixture
def server():
    with cluster(16, **WAL) as found:
        yield found


@pytest.fixture
async def full(server, rig):
    """The rig with a disk on which a database of that name lies, in a tablespace of its own."""
    with small_disk(48, server.account) as disk:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        await connection.execute("CREATE DATABASE small TABLESPACE small")
        await connection.close()
        yield disk
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("DROP DATABASE small WITH (FORCE)")
        await connection.close()


async def drained(rig, daemon):
    async def empty():
        assert daemon.process.code is None, daemon.process.output[-4000:]
        return await rig.db.fetchval("SELECT count(*) FROM logs") == 3

    await until(empty, lambda: daemon.process.output[-6000:], deadline=150)


async def stop(daemon):
    daemon.process.send_signal(signal.SIGTERM)
    assert await daemon.process.wait() == 0, daemon.process.output[-3000:]


async def test_the_control_databases_disk_is_full_in_mid_sweep(rig, server, full):
    await rig.company(due=DUE)
    rig.target("logs", pace={"duty": 0.3, "max_batch": 20})
    rig.control = server.dsn("small")
    async with running(rig.environment()) as daemon:
        await until(lambda: under_way(rig), lambda: daemon.process.output[-3000:])
        full.fill()

        async def refused():
            return "No space left on device" in daemon.process.output

        await until(refused, lambda: daemon.process.output[-3000:])
        found = await failing(daemon)
        assert {"control", "ledger", "loop", "target logs"} & set(found)
        assert "No space left" in str(found)
        assert all(check["remedy"] for check in found.values())
        left = await still(rig)
        assert left > 3
        errors = await daemon.metric("errors_total", kind="unreachable")
        assert errors > 0
        assert await daemon.metric("errors_total", kind="unexpected") == 0
        full.make_room()
        await drained(rig, daemon)
        await daemon.until_ready()
        assert await daemon.metric("errors_total", kind="unexpected") == 0
        await stop(daemon)
    await rig.require_told(logs=DUE)
    await rig.require_settled()


async def test_the_targets_disk_is_full_in_mid_sweep(rig, server, full):
    """A row that goes needs room for the mark that it went: with full pages and a table's map of them, or in a trigger."""
    home, rig.dsn = rig.dsn, server.dsn("small")
    rig.db = await asyncpg.connect(rig.dsn)
    try:
        await rig.company(due=DUE)
        # What an application keeps of its own deletes: the disk's next page is needed by each batch.
        await rig.db.execute(
            "CREATE TABLE trail (note text);"
            "CREATE FUNCTION trail() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO trail VALUES (repeat(OLD.id::text, 2000)); RETURN OLD; END $$;"
            "CREATE TRIGGER trail BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION trail()"
        )
        rig.target("logs", pace={"duty": 0.3, "max_batch": 20})
        rig.control = home
        async with running(rig.environment()) as daemon:
            await until(lambda: under_way(rig), lambda: daemon.process.output[-3000:])
            full.fill()

            async def refused():
                return "No space left on device" in str(await daemon.checks())

            await until(refused, lambda: daemon.process.output[-3000:], deadline=120)
            found = await failing(daemon)
            assert "target logs" in found
            left = await rig.db.fetchval("SELECT count(*) FROM logs")
            assert left > 3
            assert await daemon.metric("errors_total", kind="unexpected") == 0
            full.make_room()
            async with rig.control_connection() as control:
                await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE shard = ''")
            await drained(rig, daemon)
            await daemon.until_ready()
            await stop(daemon)
        await rig.require_told(logs=DUE)
        await rig.require_settled()
    finally:
        await rig.db.close()


async def under_way(rig):
    return await rig.db.fetchval("SELECT count(*) FROM logs") < DUE - 100


async def still(rig):
    """How many records are left when no batch that had its permit is under way any more; and that it stays so."""
    before = -1
    for _ in range(30):
        now = await rig.db.fetchval("SELECT count(*) FROM logs")
        if now == before:
            break
        before = now
        await asyncio.sleep(2)
    assert now == before, "it goes on erasing"
    await asyncio.sleep(5)
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == now
    return now


async def failing(daemon):
    found = {}

    async def some():
        found.update(await daemon.checks())
        return "No space left" in str(found)

    await until(some, lambda: daemon.process.output[-3000:])
    return found


async def test_log_files_on_a_disk_that_is_full_go_whole_and_are_not_rewritten(apart):
    """What is kept of a file is written beside it first: there has to be room, and nothing is lost where there is none."""
    with small_disk(8, None) as disk:
        subject = await prepared(apart, disk.path)
        due, kept = b"".join(line(n) for n in range(10_000)), b"".join(line(n, days=1) for n in range(20_000, 22_000))
        subject.write("app.log.1", due + kept)
        subject.write("app.log.2", line(30_000))
        disk.fill()
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 1, 1), outcome.error
        assert "no room" in outcome.error["message"]
        assert (disk.path / "app.log.1").read_bytes() == due + kept
        assert subject.ours() == []
        disk.make_room()
        again = await subject.rig.only()
        assert (again.outcome, again.changed) == ("drained", 10_000)
        assert (disk.path / "app.log.1").read_bytes() == kept


async def test_a_disk_that_fills_up_in_the_middle_of_rewriting_costs_that_file_alone(apart, monkeypatch):
    with small_disk(8, None) as disk:
        subject = await prepared(apart, disk.path)
        due, kept = b"".join(line(n) for n in range(5_000)), b"".join(line(n, days=1) for n in range(20_000, 30_000))
        path = subject.write("app.log.1", kept[: len(kept) // 2].rpartition(b"\n")[0] + b"\n" + due + kept)
        before = path.read_bytes()
        monkeypatch.setattr("retentiond.stores.files.folder.Folder.free", lambda self: 1 << 40)
        disk.fill()
        outcome = await subject.rig.only()
        assert (outcome.changed, outcome.failed) == (0, 1)
        assert "No space left" in outcome.error["message"]
        assert (path.read_bytes(), subject.ours()) == (before, [])
        disk.make_room()
        assert (await subject.rig.only()).changed == 5_000
