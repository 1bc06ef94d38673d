"""Backends and servers that die in a batch: afterwards the ledger's counts are the rows that have gone."""

import asyncio

import asyncpg
import pytest

from tests.services.gates import gate
from tests.services.postgres import cluster, crash, restart
from tests.services.sweeping import ACCOUNTS

MOMENTS = {
    "in the statement": ("BEFORE DELETE ON logs FOR EACH ROW", "TRIGGER"),
    "after the delete": ("AFTER DELETE ON logs FOR EACH ROW", "TRIGGER"),
    "in the commit": ("AFTER DELETE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW", "CONSTRAINT TRIGGER"),
}
CONTROL = {
    "before the permit": "BEFORE INSERT ON retentiond.permits FOR EACH ROW",
    "before the commit": "BEFORE UPDATE OF prepared ON retentiond.permits FOR EACH ROW",
    "before the outcome": "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW",
}


async def goes_on(rig, due):
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=due)
    await rig.require_settled()


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("moment", sorted(MOMENTS))
async def test_a_backend_terminated_in_its_batch_takes_the_batch_with_it(either, moment):
    rig = either
    await rig.company(due=30)
    trigger, kind = MOMENTS[moment]
    async with gate(rig.dsn, trigger, kind=kind) as stop:
        sweep = asyncio.create_task(rig.only())
        await rig.db.execute("SELECT pg_terminate_backend($1)", await stop.reached())
        outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert outcome.error["remedy"]
    assert len(await rig.ids()) == 33
    await rig.require_told(logs=0)
    await goes_on(rig, 30)


@pytest.mark.parametrize("moment", sorted(CONTROL))
async def test_a_backend_of_the_control_database_terminated_in_a_batch_leaves_the_truth(apart, moment):
    rig = apart
    await rig.company(due=30)
    await rig.sweep(mode="plan")
    async with rig.control_connection() as control, gate(rig.control, CONTROL[moment]) as stop:
        sweep = asyncio.create_task(rig.only())
        await control.execute("SELECT pg_terminate_backend($1)", await stop.reached())
        await stop.open()
        outcome = await sweep
    assert outcome.outcome in ("failed", "drained")
    await rig.let_leases_run_out()
    await goes_on(rig, 30)


@pytest.fixture
def another_server():
    """A server of its own, to be crashed."""
    with cluster(16, synchronous_commit="on") as server:
        yield server


@pytest.fixture
async def doomed(rig, another_server):
    """The rig with its target, but not its control state, on a server of its own."""
    await rig.db.close()
    rig.dsn = another_server.dsn()
    rig.db = await asyncpg.connect(rig.dsn)
    rig.server = another_server
    return rig


async def after_crash(rig):
    crash(rig.server)
    restart(rig.server)
    rig.db = await asyncpg.connect(rig.dsn)


@pytest.mark.parametrize("moment", sorted(MOMENTS))
async def test_a_target_server_that_crashes_in_a_batch_loses_nothing_and_the_ledger_knows(doomed, moment):
    rig = doomed
    await rig.company(due=30)
    trigger, kind = MOMENTS[moment]
    try:
        async with gate(rig.dsn, trigger, kind=kind) as stop:
            sweep = asyncio.create_task(rig.only())
            await stop.reached()
            await after_crash(rig)
            outcome = await sweep
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        assert sweep.done(), "the gate's own connection went with the server"
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert len(await rig.ids()) == 33
    await rig.require_told(logs=0)
    await goes_on(rig, 30)


async def test_a_target_that_commits_asynchronously_has_lost_nothing_that_the_ledger_calls_erased(doomed):
    """A record is written as erased when its COMMIT is answered: that answer must mean that it is on disk."""
    rig = doomed
    await rig.company(due=30)
    await rig.db.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await rig.db.execute("ALTER SYSTEM SET synchronous_commit = 'off'")
    await rig.db.execute("CHECKPOINT")
    await rig.db.execute("SELECT pg_reload_conf()")
    await rig.only()
    await after_crash(rig)
    await rig.require_told(logs=33 - len(await rig.ids()))


async def test_a_target_server_that_is_down_fails_its_targets_and_no_other(doomed, database):
    rig = doomed
    await rig.company()
    rig.target("elsewhere", dsn=database, table="public.logs", tier="free", account=None)
    rig.accounts = {"dsn": database}
    other = await asyncpg.connect(database)
    await other.execute(ACCOUNTS)
    await other.execute(
        "CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz); INSERT INTO logs VALUES (1, '2020-01-01')"
    )
    await other.close()
    crash(rig.server)
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].error["kind"]) == ("failed", "unreachable")
    assert (found["elsewhere"].outcome, found["elsewhere"].changed) == ("drained", 1), found["elsewhere"].error
    restart(rig.server)
    rig.db = await asyncpg.connect(rig.dsn)
    assert (await rig.only()).changed == 5
    await rig.require_told(logs=5, elsewhere=1)
