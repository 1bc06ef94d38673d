"""Connections that die, or wait too long, while a partition is detached, proved or dropped."""

import asyncio

import asyncpg

from retentiond.stores.postgres import detach
from retentiond.stores.postgres.partbatch import PartBatch
from retentiond.stores.postgres.partitions import PostgresPartitions
from tests.services.gates import looks
from tests.services.parted import (
    EACH,
    OLD,
    YOUNG,
    attached,
    grow_old,
    parted,
    require_done,
    tables,
    when,
    whole,
)


async def test_a_detach_that_is_cut_off_half_way_is_finished(apart, monkeypatch):
    """The reader comes after the look for long transactions, and the DETACH has to wait for it."""
    await parted(apart)
    readers = []

    async def read(*_):
        reader = await asyncpg.connect(apart.dsn)
        await reader.execute("BEGIN; SELECT count(*) FROM logs")
        readers.append(reader)

        async def end():
            await asyncio.sleep(1)
            await reader.close()

        readers.append(asyncio.create_task(end()))
        return True

    old = detach._old_users_gone

    async def once(connection, shape):
        return await (old(connection, shape) if readers else read())

    monkeypatch.setattr(detach, "_old_users_gone", once)
    outcome = await apart.only()
    await readers[1]
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await whole(apart) == 3
    await require_done(apart)


async def test_a_terminated_backend_in_the_detach_leaves_nothing_detached(apart, monkeypatch):
    await parted(apart)
    killing = []

    async def kill(_):
        async def once_it_waits():
            async for _ in looks("the detach does not wait", every=0.005):
                found = await apart.db.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE%DETACH%'"
                    " AND wait_event_type = 'Lock'"
                )
                if found:
                    await apart.db.execute("SELECT 1")
                    return

        holder = await asyncpg.connect(apart.dsn)
        await holder.execute("BEGIN; LOCK TABLE logs_p0 IN SHARE MODE")
        killing.append((holder, asyncio.create_task(once_it_waits())))

    when(monkeypatch, PostgresPartitions, "detach", kill, before=True)
    outcome = await apart.only()
    for holder, task in killing:
        await task
        await holder.close()
    assert outcome.outcome == "failed", "the target was not reached"
    monkeypatch.undo()
    await grow_old(apart)
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    await require_done(apart)


async def test_a_transaction_that_ended_under_the_proof_drops_nothing(apart, monkeypatch):
    await parted(apart)

    async def kill(batch):
        pid = batch.connection.get_server_pid()
        await apart.db.execute("SELECT pg_terminate_backend($1)", pid)

    when(monkeypatch, PartBatch, "erase", kill)
    assert (await apart.only()).outcome == "failed"
    assert await attached(apart) == [*OLD, YOUNG]
    assert (await apart.only()).outcome == "drained"
    await grow_old(apart)
    await apart.only()
    await require_done(apart)


async def test_an_answer_to_commit_that_never_came_is_asked_for_and_told_once(apart, monkeypatch):
    await parted(apart)

    async def lost(batch):
        await batch.connection.close()
        raise ConnectionResetError

    when(monkeypatch, PartBatch, "commit", lost)
    await apart.only()
    assert await tables(apart) == [YOUNG]
    assert (await apart.only()).outcome == "drained"
    await require_done(apart)
    assert await whole(apart) == 3
