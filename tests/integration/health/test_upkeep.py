"""After a sweep that erased many: dead rows and emptier indexes are told with the command, or vacuumed where allowed."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import asyncpg
import pytest

from retentiond.stores.postgres.connection import TargetDatabase
from retentiond.stores.postgres.upkeep import read
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.upkeep import look_after
from tests.services import postgres
from tests.services.gates import open_transaction

DUE = 4000


@pytest.fixture
async def company(rig):
    await rig.company(due=0, young=0)
    await rig.db.execute(
        "INSERT INTO logs SELECT i, 1, now() - interval '400 days' * (i % 5)::bool::int - i * interval '1 s', '' FROM generate_series(1, 5000) i"
    )
    await rig.db.execute("ANALYZE logs")
    rig.targets["logs"]["pace"] = {"duty": 1.0}
    return rig


async def vacuums(rig, table="logs"):
    await rig.db.execute("SELECT pg_stat_clear_snapshot()")
    return await rig.db.fetchval("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = $1", table)


async def test_a_large_sweep_advises_the_vacuum_and_the_advice_is_sql_that_works(company):
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    upkeep = outcome.document(plan_mode=False)["upkeep"]
    assert (upkeep["vacuumed"], upkeep["error"]) == (False, None)
    assert {index["name"] for index in upkeep["indexes"]} == {"logs_pkey", "logs_created_at_idx"}
    # Four fifths of the entries are gone, and the pages are still there.
    assert all(0.5 < index["empty"] / index["bytes"] < 0.95 for index in upkeep["indexes"]), upkeep
    assert await vacuums(company) == 0
    await company.db.execute(upkeep["advice"])
    assert await company.db.fetchval("SELECT pg_stat_get_dead_tuples('logs'::regclass)") == 0


async def test_indexes_of_a_table_that_was_emptied_are_empty(company):
    await company.db.execute("UPDATE logs SET created_at = created_at - interval '400 days'")
    outcome = await company.only()
    assert outcome.changed == 5000
    assert outcome.upkeep["live_rows"] == 0
    assert all(index["empty"] > 0.8 * index["bytes"] for index in outcome.upkeep["indexes"]), outcome.upkeep


async def test_a_small_sweep_says_nothing(company):
    await company.db.execute("DELETE FROM logs WHERE id > 1200")
    assert (await company.only()).upkeep is None


async def test_a_target_that_allows_it_is_vacuumed_after_a_large_sweep(company):
    company.targets["logs"]["vacuum"] = True
    outcome = await company.only()
    assert (outcome.changed, outcome.upkeep["vacuumed"], outcome.upkeep["advice"]) == (DUE, True, None)
    assert await vacuums(company) == 1
    assert await company.db.fetchval("SELECT pg_stat_get_dead_tuples('logs'::regclass)") == 0


async def test_a_role_that_may_not_vacuum_gets_the_advice_and_the_sweep_is_no_failure(company, limited):
    await limited("GRANT SELECT, DELETE, UPDATE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")
    company.targets["logs"]["vacuum"] = True
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed, outcome.error) == ("drained", DUE, None)
    assert outcome.upkeep["vacuumed"] is False
    assert "permission denied" in outcome.upkeep["error"]
    assert "VACUUM" in outcome.upkeep["advice"]
    assert outcome.upkeep["remedy"]
    assert await vacuums(company) == 0


async def test_a_vacuum_that_can_not_begin_is_given_up_when_the_sweep_is_to_stop(company):
    company.targets["logs"]["vacuum"] = True
    await company.only()
    async with company.app() as app:
        target = app.spec.target("logs")
        store = await app.engine.open(target)
        stop = asyncio.Event()
        outcome = Outcome(changed=DUE)
        async with open_transaction(company.dsn, "LOCK TABLE logs IN SHARE UPDATE EXCLUSIVE MODE"):
            work = asyncio.create_task(look_after(store, target, outcome, stop))
            for _ in range(500):
                if await company.db.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND wait_event_type = 'Lock'"
                ):
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("the vacuum does not wait")
            stop.set()
            await work
            assert outcome.upkeep["vacuumed"] is False
            for _ in range(500):
                if not await company.db.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND state = 'active'"
                ):
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("the server still has the vacuum")


async def test_a_vacuum_that_takes_too_long_is_ended_and_said(company):
    async with company.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        async with open_transaction(company.dsn, "LOCK TABLE logs IN SHARE UPDATE EXCLUSIVE MODE"):
            with pytest.raises(Exception, match="took longer than") as caught:
                await store.vacuum(0.3)
    assert caught.value.remedy


async def test_the_parts_of_a_partitioned_table_are_told_together_and_vacuumed_together(rig):
    await rig.db.execute(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);"
        "INSERT INTO accounts VALUES (1, 'free');"
        "CREATE TABLE logs (id bigint, account_id bigint, created_at timestamptz NOT NULL, PRIMARY KEY (id, created_at))"
        " PARTITION BY RANGE (created_at);"
        "CREATE TABLE old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO (now() - interval '200 days');"
        "CREATE TABLE rest PARTITION OF logs DEFAULT; CREATE INDEX ON logs (created_at);"
        "INSERT INTO logs SELECT i, 1, now() - interval '1 day' * (i % 2 * 100 + 150) FROM generate_series(1, 4000) i;"
        "ANALYZE logs"
    )
    rig.target("logs", vacuum=True, pace={"duty": 1.0}, key=["id", "created_at"])
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 4000), outcome.error
    assert outcome.upkeep["vacuumed"] is True
    assert {index["name"] for index in outcome.upkeep["indexes"]} >= {"old_pkey", "rest_pkey"}
    assert [await vacuums(rig, part) for part in ("old", "rest")] == [1, 1]


@pytest.fixture
def with_contrib(monkeypatch):
    """A server of the system's packages: the embedded ones come without contrib modules."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail("install the package postgresql")
    monkeypatch.setattr(postgres, "_binaries", lambda *_: nullcontext(found[-1].parent))
    with postgres.cluster() as server:
        yield server.dsn()


async def emptied(dsn, *, measured):
    """Indexes three quarters of which are empty, by name, as they are told."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "CREATE TABLE logs (id bigint PRIMARY KEY, agent text, part int);"
        "INSERT INTO logs SELECT i, 'agent number ' || i, 1 FROM generate_series(1, 30000) i;"
        "CREATE INDEX by_agent ON logs (agent); CREATE INDEX by_length ON logs ((agent || agent));"
        "CREATE INDEX partial ON logs (part) WHERE id > 5; CREATE INDEX hashed ON logs USING hash (id);"
        "DELETE FROM logs WHERE id % 4 <> 0"
    )
    await connection.execute("VACUUM ANALYZE logs")
    if measured:
        await connection.execute('CREATE SCHEMA "odd Name"; CREATE EXTENSION pgstattuple SCHEMA "odd Name"')
    oid = await connection.fetchval("SELECT 'logs'::regclass::oid")
    target = TargetDatabase(dsn, what="target logs")
    upkeep = await read(target, oid, "public.logs")
    await target.close()
    await connection.close()
    return {index.name: index for index in upkeep.indexes}


async def test_what_is_empty_of_an_index_is_estimated_and_not_where_nothing_tells_its_size(database):
    found = await emptied(database, measured=False)
    for name in ("logs_pkey", "by_agent", "by_length"):
        assert 0.6 < found[name].empty / found[name].bytes < 0.9, found[name]
    assert [found[name].empty for name in ("partial", "hashed")] == [None, None]
    assert {index.measured for index in found.values()} == {False}


@pytest.mark.system
async def test_what_is_empty_is_measured_where_pgstattuple_is_and_the_estimate_is_near_it(with_contrib, database):
    estimated, found = await emptied(database, measured=False), await emptied(with_contrib, measured=True)
    for name in ("logs_pkey", "by_agent", "by_length"):
        assert found[name].measured
        assert abs(found[name].empty - estimated[name].empty) < 0.15 * found[name].bytes
    assert found["partial"].measured
    assert not found["hashed"].measured
