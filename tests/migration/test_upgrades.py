"""Upgrades of the control database under real processes: at once, cut off half way, and of another release."""

import asyncio
import signal

from retentiond.control.database import Database
from retentiond.control.migrations import Migration, migrate, shipped
from tests.services.process import run_retentiond, start_retentiond


async def test_processes_that_start_at_once_on_a_fresh_database_make_it_once(rig):
    await rig.company()
    env = rig.environment()
    results = await asyncio.gather(*(run_retentiond("sweep", "--json", env=env) for _ in range(4)))
    assert [result.code for result in results] == [0] * 4, [result.stderr for result in results]
    assert sum(result.json["targets"]["logs"]["erased"] for result in results) == 5
    assert await rig.db.fetchval("SELECT count(*) FROM retentiond.meta") == 1
    await rig.require_told(logs=5)


async def test_a_process_killed_in_a_migration_leaves_nothing_half_made(rig):
    """An event trigger holds the first table's making up, so that the kill strikes in the migration."""
    await rig.company()
    await rig.db.execute(
        "CREATE FUNCTION dawdle() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); END $$;"
        "CREATE EVENT TRIGGER dawdle ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION dawdle()"
    )
    async with start_retentiond("sweep", env=rig.environment()) as process:
        while not await rig.db.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            assert process.code is None, process.output
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await rig.db.execute("DROP EVENT TRIGGER dawdle")
    await rig.db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert (result.code, result.json["targets"]["logs"]["erased"]) == (0, 5), result.stderr
    await rig.require_told(logs=5)


async def test_what_a_control_database_remembers_survives_being_migrated_again(rig):
    await rig.company()
    async with rig.app() as app:
        hold = await rig.hold(app, accounts=("1",))
    before = await rig.ledger()
    database = await Database.connect(rig.control)
    try:
        await database.migrate()
    finally:
        await database.close()
    after = await rig.ledger()
    assert after[: len(before)] == before
    assert (await rig.only()).held == 5
    shown = await run_retentiond("hold", "show", hold.id, "--json", env=rig.environment())
    assert shown.json["state"] == "active"


async def test_a_control_database_of_a_later_release_is_refused_and_nothing_is_erased(rig):
    await rig.company()
    await rig.sweep(mode="plan")
    database = await Database.connect(rig.control)
    try:
        await migrate(database, [*shipped(), Migration(9000, "later", "SELECT 1")])
    finally:
        await database.close()
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert result.code == 2
    assert "9000_later" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(await rig.ids()) == 8


async def test_a_control_database_that_is_restored_from_an_empty_one_is_refused_where_its_id_is_pinned(rig):
    await rig.company()
    env = rig.environment(control={"dsn": rig.control, "id": "00000000-0000-0000-0000-000000000001"})
    result = await run_retentiond("sweep", "--json", env=env)
    assert result.code != 0
    assert "Traceback" not in result.stderr
    assert len(await rig.ids()) == 8
