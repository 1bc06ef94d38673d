"""A target's server that crashes in a batch: the number of the batch's transaction may then be given again."""

import signal

import asyncpg
import pytest

from tests.services.gates import gate
from tests.services.postgres import cluster, crash, restart, restart_cleanly
from tests.services.process import start_retentiond
from tests.services.sweeping import Rig


@pytest.fixture
async def lazy(database, tmp_path):
    """A rig whose target is on a server of its own that writes its log to disk only when a COMMIT asks for it."""
    with cluster(16, wal_writer_delay="10s", wal_writer_flush_after="1GB", synchronous_commit="on") as server:
        rig = Rig(server.dsn(), await asyncpg.connect(server.dsn()), tmp_path, database)
        yield rig, server
        await rig.db.close()


async def test_a_batch_that_a_crash_undid_is_not_taken_for_a_later_transaction_of_the_same_number(lazy):
    rig, server = lazy
    await rig.company(due=5)
    in_the_commit = "AFTER DELETE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    async with (
        gate(rig.dsn, in_the_commit, kind="CONSTRAINT TRIGGER") as stop,
        start_retentiond("sweep", env=rig.environment()) as worker,
    ):
        await stop.reached()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        crash(server)
        restart(server)
        await rig.db.close()
        rig.db = await asyncpg.connect(rig.dsn)
        await rig.db.execute("DROP TRIGGER a_gate ON logs; CREATE TABLE other (id int)")
        async with rig.control_connection() as control:
            batch = await control.fetchval(
                "SELECT split_part(prepared ->> 'transaction', '@', 1) FROM retentiond.permits WHERE ended_at IS NULL"
            )
        number = "0"
        while int(number) < int(batch):
            number = await rig.db.fetchval("INSERT INTO other VALUES (1) RETURNING pg_current_xact_id()::text")
        if number != batch:
            pytest.fail(f"the number {batch} has come to the disk, and the next one was {number}: this tests nothing")
        stop._connection = rig.db  # the one that shut the gate went with the server
    assert len(await rig.ids()) == 8, "the crash undid the batch"
    await rig.let_leases_run_out()
    assert (await rig.only()).changed == 5
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=5)
    assert await doubts(rig) == ["unknown"]


async def doubts(rig):
    return [entry["found"] for entry in await rig.ledger() if entry["kind"] == "in_doubt"]


async def killed_after_the_commit(rig):
    await rig.company(due=5)
    await rig.sweep(mode="plan")
    async with (
        gate(
            rig.control, "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW WHEN (OLD.prepared IS NOT NULL)"
        ) as stop,
        start_retentiond("sweep", env=rig.environment()) as worker,
    ):
        await stop.reached()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.let_leases_run_out()


async def back(rig):
    rig.db = await asyncpg.connect(rig.dsn)
    await rig.only()


async def test_a_batch_that_was_committed_before_a_clean_restart_is_told(lazy):
    rig, server = lazy
    await killed_after_the_commit(rig)
    await rig.db.close()
    restart_cleanly(server)
    await back(rig)
    await rig.require_told(logs=5)
    assert await doubts(rig) == ["committed"]


async def test_a_batch_that_was_committed_before_a_crash_is_said_to_be_in_doubt(lazy):
    rig, server = lazy
    await killed_after_the_commit(rig)
    await rig.db.close()
    crash(server)
    restart(server)
    await back(rig)
    await rig.require_told(logs=0)
    assert await doubts(rig) == ["unknown"]
    await rig.require_settled()
