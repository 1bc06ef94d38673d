"""A table that is dropped, renamed, altered or locked by DDL; a role that may write nothing; a disk that is full."""

import asyncio

import asyncpg
import pytest

from tests.services.gates import gate, open_transaction, waits_for_lock

MISSING = {
    "a table": ("DROP TABLE logs", "public.logs"),
    "the anchor": ("ALTER TABLE logs RENAME created_at TO made_at", "created_at"),
    "the account": ("ALTER TABLE logs DROP account_id", "account_id"),
    "the key": ("ALTER TABLE logs DROP CONSTRAINT logs_pkey", "primary key"),
    "a plain table": ("ALTER TABLE logs RENAME TO l; CREATE VIEW logs AS TABLE l", "not a table"),
    "a comparable account": ("ALTER TABLE logs ALTER account_id TYPE uuid USING NULL", ""),
}


async def with_another(rig, **settings):
    await rig.company(**settings)
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.target("others")


@pytest.mark.parametrize("what", sorted(MISSING))
async def test_a_target_that_lacks_something_is_blind_and_the_others_are_swept(rig, what):
    await with_another(rig)
    statement, named = MISSING[what]
    await rig.db.execute(statement)
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) == ("blind", 0)
    assert named in found["logs"].error["message"] + found["logs"].error["remedy"]
    assert found["logs"].error["remedy"]
    assert (found["others"].outcome, found["others"].changed) == ("drained", 5)
    await rig.require_told(logs=0, others=5)


CHANGES = {
    "dropped": "DROP TABLE logs",
    "renamed": "ALTER TABLE logs RENAME TO old_logs",
    "its anchor renamed": "ALTER TABLE logs RENAME created_at TO made_at",
    "its account dropped": "ALTER TABLE logs DROP account_id",
    "its key renamed": "ALTER TABLE logs RENAME id TO log_id",
    "its anchor of another type": "ALTER TABLE logs ALTER created_at TYPE text",
}


@pytest.mark.parametrize("change", sorted(CHANGES))
async def test_a_table_changed_in_the_middle_of_a_sweep_makes_it_blind_and_the_ledger_tells_what_went(rig, change):
    await with_another(rig, due=60)
    other = await asyncpg.connect(rig.dsn)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.sweep())
        await stop.reached()
        changing = asyncio.create_task(other.execute(CHANGES[change]))
        await waits_for_lock(rig.db, CHANGES[change])
        await stop.open()
        await changing
        found = await sweep
    await other.close()
    logs = found["logs"]
    assert logs.outcome == "blind", logs.error
    assert logs.error["remedy"]
    assert 0 < logs.changed <= 10
    assert (found["others"].outcome, found["others"].changed) == ("drained", 60)
    if change == "renamed":
        assert await rig.db.fetchval("SELECT count(*) FROM old_logs") == 63 - logs.changed
    elif change != "dropped":
        assert await rig.db.fetchval("SELECT count(*) FROM logs") == 63 - logs.changed
    await rig.require_told(logs=logs.changed, others=60)


async def test_a_column_added_in_the_middle_of_a_sweep_is_no_stumbling_block(rig):
    await rig.company(due=60)
    other = await asyncpg.connect(rig.dsn)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        changing = asyncio.create_task(other.execute("ALTER TABLE logs ADD note text DEFAULT 'x'"))
        await waits_for_lock(rig.db, "ADD note")
        await stop.open()
        await changing
        outcome = await sweep
    await other.close()
    assert (outcome.outcome, outcome.changed) == ("drained", 60), outcome.error
    await rig.require_told(logs=60)


@pytest.mark.parametrize("ddl", ["LOCK TABLE logs", "ALTER TABLE logs ADD note text", "TRUNCATE logs"])
async def test_a_table_locked_by_ddl_fails_and_says_so_and_is_swept_when_it_is_free(rig, ddl):
    await with_another(rig)
    async with open_transaction(rig.dsn, ddl):
        found = await rig.sweep()
        assert found["logs"].outcome in ("failed", "capped")
        assert found["logs"].changed == 0
        assert found["logs"].error["remedy"]
        assert (found["others"].outcome, found["others"].changed) == ("drained", 5)
    assert (await rig.only()).changed == 5
    await rig.require_told(logs=5, others=5)


async def test_ddl_that_waits_behind_a_reader_is_not_kept_waiting_by_the_sweep(rig):
    """The sweep queues behind the waiting ALTER, gives up, and the ALTER comes through when the reader ends."""
    await rig.company()
    other = await asyncpg.connect(rig.dsn)
    async with open_transaction(rig.dsn, "SELECT count(*) FROM logs") as reader:
        altering = asyncio.create_task(other.execute("ALTER TABLE logs ADD note text"))
        await waits_for_lock(rig.db, "ADD note")
        outcome = await rig.only()
        assert outcome.outcome in ("failed", "capped")
        assert outcome.error["remedy"]
        await reader.execute("COMMIT")
        await altering
    await other.close()
    assert (await rig.only()).changed == 5
    await rig.require_told(logs=5)


ROLES = {
    "read only": "ALTER ROLE {role} SET default_transaction_read_only = on",
    "no temporary files": "ALTER ROLE {role} SET temp_file_limit = 0; ALTER ROLE {role} SET work_mem = '64kB'",
    "a short statement timeout": "ALTER ROLE {role} SET statement_timeout = '1s'",
    "row security off by hand": "ALTER ROLE {role} SET row_security = off",
    "another date style and zone": "ALTER ROLE {role} SET datestyle = 'SQL, DMY'; ALTER ROLE {role} SET timezone = 'Asia/Kathmandu'",
    "serializable": "ALTER ROLE {role} SET default_transaction_isolation = 'serializable'",
    "a hostile search path": "CREATE SCHEMA evil; CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0';"
    "GRANT USAGE ON SCHEMA evil TO {role}; ALTER ROLE {role} SET search_path = evil, public, pg_catalog",
}


@pytest.mark.parametrize("setting", sorted(ROLES))
async def test_settings_of_the_role_do_not_change_what_a_sweep_means(rig, limited, setting):
    await rig.company(due=300)
    dsn = await limited("GRANT SELECT, DELETE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")
    rig.targets["logs"]["pace"] = {"duty": 1.0, "max_batch": 1000}
    await rig.db.execute(ROLES[setting].format(role=dsn.split("//")[1].split("@")[0]))
    outcome = await rig.only()
    left = await rig.ids()
    assert outcome.changed == 303 - len(left)
    assert {1001, 1002, 1003} <= set(left)
    if outcome.outcome != "drained":
        assert (outcome.outcome in ("failed", "blind"), len(left)) == (True, 303)
        assert outcome.error["remedy"]
    assert (outcome.outcome == "drained") == (len(left) == 3)
    await rig.require_told(logs=outcome.changed)


@pytest.mark.parametrize("change", ["dropped", "its anchor renamed", "its anchor of another type"])
async def test_a_table_changed_under_shards_at_work_ends_all_of_them_and_the_ledger_tells_what_went(rig, change):
    await with_another(rig, due=200)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await rig.db.execute("ANALYZE logs")
    other = await asyncpg.connect(rig.dsn)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.sweep())
        await stop.reached()
        changing = asyncio.create_task(other.execute(CHANGES[change]))
        await waits_for_lock(rig.db, CHANGES[change])
        await stop.open()
        await changing
        found = await sweep
    await other.close()
    logs = found["logs"]
    assert logs.outcome in ("blind", "failed"), logs.error
    assert logs.error["remedy"]
    assert 0 < logs.changed <= 40
    assert found["others"].changed == 200
    if change != "dropped":
        assert await rig.db.fetchval("SELECT count(*) FROM logs") == 203 - logs.changed
    await rig.require_told(logs=logs.changed, others=200)
