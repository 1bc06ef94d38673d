"""The state is made once, by any number of processes at once, and is never guessed at."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from retentiond.control import meta
from retentiond.control.database import Database
from retentiond.control.migrations import Migration, migrate, require_schema, shipped
from retentiond.errors import ConfigurationError, Guarded, StateMissing, Unreachable


@pytest.fixture
async def empty(database):
    db = await Database.connect(database)
    yield db
    await db.close()


async def test_many_processes_that_migrate_at_once_make_the_state_once(database):
    several = await asyncio.gather(*(Database.connect(database) for _ in range(6)))
    applied = await asyncio.gather(*(migrate(db) for db in several))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 0, len(shipped())]
    await asyncio.gather(*(db.close() for db in several))


async def test_migrating_again_changes_nothing_and_keeps_id_and_keys(empty):
    await empty.migrate()
    async with empty.transaction() as tx:
        before = (await meta.control_id(tx), await meta.secret(tx, "accounts"))
    await empty.migrate()
    async with empty.transaction() as tx:
        assert (await meta.control_id(tx), await meta.secret(tx, "accounts")) == before
    assert len(before[1]) == 32


async def test_a_migration_that_was_changed_afterwards_is_refused(empty):
    await empty.migrate()
    first, *rest = shipped()
    with pytest.raises(ConfigurationError, match="another 0001_core"):
        await migrate(empty, [replace(first, sql=first.sql + "\n-- changed"), *rest])


async def test_a_state_of_a_newer_version_is_refused(empty):
    await migrate(empty, [*shipped(), Migration(9000, "later", "SELECT 1")])
    with pytest.raises(ConfigurationError, match="9000_later"):
        await empty.migrate()
    with pytest.raises(ConfigurationError):
        await empty.require_schema()


async def test_a_migration_that_fails_leaves_nothing_behind(empty):
    with pytest.raises(Exception, match="nonsense"):
        await migrate(empty, [*shipped(), Migration(9000, "broken", "SELECT nonsense")])
    with pytest.raises(StateMissing):
        await empty.require_schema()


async def test_an_older_state_is_found_missing_a_migration_and_can_be_brought_up_to_date(empty):
    await empty.migrate()
    later = [*shipped(), Migration(9000, "later", "CREATE TABLE retentiond.later (x integer)")]
    with pytest.raises(StateMissing, match="9000_later"):
        await require_schema(empty, later)
    assert [found.version for found in await migrate(empty, later)] == [9000]
    await require_schema(empty, later)


async def test_a_database_without_state_is_named_so_with_exit_code_4(empty):
    with pytest.raises(StateMissing) as missing:
        await empty.require_schema()
    assert missing.value.exit_code == 4


async def test_a_pinned_control_id_refuses_another_database(empty):
    await empty.migrate()
    async with empty.transaction() as tx:
        own = await meta.control_id(tx)
        await meta.require_control_id(tx, own.upper())
        await meta.require_control_id(tx, None)
        with pytest.raises(Guarded, match=own):
            await meta.require_control_id(tx, "11111111-1111-1111-1111-111111111111")


async def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(Unreachable):
        await Database.connect("postgresql://postgres@127.0.0.1:1/postgres")


async def test_a_connection_that_was_cut_is_replaced_by_the_next_transaction(empty, database):
    async with empty.transaction() as tx:
        pid = await tx.fetchval("SELECT pg_backend_pid()")
    other = await Database.connect(database)
    async with other.transaction() as tx:
        await tx.execute(f"SELECT pg_terminate_backend({pid}, 60000)")
    await other.close()
    await asyncio.sleep(0.1)
    async with empty.transaction() as tx:
        assert await tx.fetchval("SELECT 1") == 1


async def test_a_transaction_that_lost_its_connection_is_unreachable_and_did_nothing(empty):
    await empty.migrate()
    with pytest.raises(Unreachable):
        async with empty.transaction() as tx:
            await tx.execute("UPDATE retentiond.flags SET mode = 'enforce'")
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with empty.transaction() as tx:
        assert await tx.fetchval("SELECT mode FROM retentiond.flags") == "plan"


async def test_the_clock_of_a_server_on_this_machine_is_no_second_witness(empty):
    reading = await empty.clock()
    assert reading.same_machine
    assert reading.now.utcoffset() is not None
