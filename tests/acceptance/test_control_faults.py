"""The control database full, refused, or away, and processes beside each other that may not do the same: real daemons."""

import signal
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tests.services.daemon import running, until
from tests.services.gates import gate
from tests.services.postgres import cluster, limited_role, start, stop

# Stands for a disk that is full: what Postgres says then of any row that needs a new page.
FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
"""
WRITTEN = ("permits", "ledger_entries", "units", "workers")
YOUNG = [1001, 1002, 1003]
LATER = "INSERT INTO logs SELECT 5000 + i, 1, now() - interval '300 days' FROM generate_series(1, 20) i"


async def due_again(rig):
    """Records that are due now, and a unit that says so: once no sweep is left whose end would say otherwise."""
    await rig.db.execute(LATER)
    await until(rig.nobody_works, lambda: "a sweep does not end")
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE shard = ''")


async def drained(rig, *daemons):
    async def empty():
        for each in daemons:
            assert each.process.code is None, each.process.output
        return await rig.ids() == YOUNG

    await until(empty, lambda: "\n".join(each.process.output[-4000:] for each in daemons))


async def stopped(*daemons):
    for each in daemons:
        each.process.send_signal(signal.SIGTERM)
    for each in daemons:
        assert await each.process.wait() == 0, each.process.output


async def test_nothing_is_erased_while_the_control_databases_disk_is_full_and_work_goes_on_when_it_is_not(apart):
    rig = apart
    await rig.company(due=20)
    async with running(rig.environment()) as daemon, rig.control_connection() as control:
        await drained(rig, daemon)
        await daemon.until_ready()
        await control.execute("UPDATE retentiond.units SET next_due_at = now()")
        await control.execute(FULL)
        for table in WRITTEN:
            await control.execute(
                f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON retentiond.{table}"
                " FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
        await rig.db.execute(LATER)
        said = await daemon.until_failing("control")
        assert "No space left" in said["message"]
        assert len(await rig.ids()) == 23, "nothing is erased that can't be told"
        await control.execute("DROP FUNCTION full_disk CASCADE; UPDATE retentiond.units SET next_due_at = now()")
        await drained(rig, daemon)
        await daemon.until_ready()
        await stopped(daemon)
    await rig.require_told(logs=40)
    await rig.require_settled()


@pytest.mark.parametrize("refused", ["revoked", "dropped"])
async def test_a_ledger_that_refuses_stops_erasing_and_is_named(apart, refused):
    rig = apart
    await rig.company(due=20)
    superuser = rig.control
    async with AsyncExitStack() as stack:
        name = superuser.rpartition("/")[2]
        rig.control = await stack.enter_async_context(
            limited_role(superuser, f'GRANT CREATE ON DATABASE "{name}" TO {{role}}')
        )
        async with running(rig.environment()) as daemon:
            await drained(rig, daemon)
            await daemon.until_ready()
            control = await asyncpg.connect(superuser)
            stack.push_async_callback(control.close)
            role = rig.control.split("//")[1].split("@")[0]
            away, back = {
                "revoked": ("REVOKE INSERT ON {t} FROM {r}", "GRANT INSERT ON {t} TO {r}"),
                "dropped": (
                    "ALTER TABLE {t} RENAME TO ledger_gone",
                    "ALTER TABLE retentiond.ledger_gone RENAME TO {n}",
                ),
            }[refused]
            names = {"t": "retentiond.ledger_entries", "r": role, "n": "ledger_entries"}
            await control.execute(away.format(**names))
            await due_again(rig)
            said = await daemon.until_failing("ledger")
            assert "ledger" in said["message"]
            assert len(await rig.ids()) == 23
            await control.execute(back.format(**names))
            await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE shard = ''")
            await drained(rig, daemon)
            await daemon.until_ready()
            await stopped(daemon)
        await rig.require_told(logs=40)


async def nobody_erases(rig):
    return not await rig.db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
        " AND application_name LIKE 'retentiond%'"
    )


@pytest.fixture
def control_server():
    with cluster(16, fsync="on", synchronous_commit="on") as server:
        yield server


@pytest.mark.parametrize("shards", [0, 4], ids=["whole", "in shards"])
@pytest.mark.parametrize("processes", [1, 2])
async def test_a_control_database_that_is_gone_for_a_while_in_mid_sweep_loses_no_batch(
    rig, control_server, processes, shards
):
    due = 400
    await rig.company(due=due)
    await rig.db.execute("ANALYZE logs")
    rig.target("logs", pace={"duty": 0.4, "max_batch": 5, **({"shards": shards} if shards else {})})
    rig.control = control_server.dsn()
    # Nobody gets further than the middle, whether of the whole or of a shard, before the control database is gone.
    middle = "BEFORE DELETE ON logs FOR EACH ROW WHEN (OLD.id % 100 = 50)"
    async with gate(rig.dsn, middle) as barred, AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(running(rig.environment())) for _ in range(processes)]
        await barred.reached()
        stop(control_server)
        await barred.open()
        await until(lambda: nobody_erases(rig))  # a batch whose permit was given before may still end
        left = await rig.ids()
        assert len(left) > 3, "the sweep was cut in its middle"
        for each in daemons:
            await each.until_failing("control")
        assert await rig.ids() == left, "no batch begins without its permit"
        start(control_server)
        await rig.let_leases_run_out()  # what 30 s do
        await drained(rig, *daemons)
        for each in daemons:
            await each.until_ready()
        await stopped(*daemons)
    await rig.require_told(logs=due)
    await rig.require_settled()


async def test_a_daemon_whose_policy_is_not_in_force_leaves_announcements_to_those_who_may_erase(rig):
    await rig.company(due=20)
    async with running(rig.environment()) as good:
        await drained(rig, good)
        shorter = {"classes": {"operational_logs": {"ttl": {"free": "P30D", "pro": "P60D", "enterprise": "P90D"}}}}
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(running(rig.environment(policy=shorter))) for _ in range(3)]
            for each in others:
                assert "policy approve" in (await each.until_failing("mode"))["remedy"]
            for _ in range(4):  # one of four would take it, if it asked for work
                await due_again(rig)
                await until_drained_soon(rig, good)
            assert await good.checks() == {}
            await stopped(*others)
        await stopped(good)
    assert await rig.ids() == YOUNG
    await rig.require_told(logs=20 + 4 * 20)


async def until_drained_soon(rig, daemon):
    """Well before the planner would announce the target again."""

    async def empty():
        return await rig.ids() == YOUNG

    await until(empty, lambda: daemon.process.output[-4000:], deadline=25)


async def test_a_daemon_in_plan_mode_beside_an_enforcing_one_is_said_by_that_one_and_erases_nothing(rig):
    await rig.company(due=20)
    async with running(rig.environment()) as enforcing:
        await drained(rig, enforcing)
        async with running(rig.environment(mode="plan")) as planning:
            await planning.until_ready()
            said = await enforcing.until_failing("mode")
            assert "mode: plan" in said["remedy"]
            await due_again(rig)
            await planning.process.wait_for("sweep done")
            assert len(await rig.ids()) == 23
            await stopped(planning)
        await stopped(enforcing)
    async with running(rig.environment()) as again:
        await drained(rig, again)
        await stopped(again)
    await rig.require_told(logs=40)


async def test_a_control_database_migrated_by_a_later_release_stops_the_older_daemon_at_its_next_start_alone(rig):
    """Beside it goes on: a later release's migrations keep what the older one's statements rest on, or it fails closed."""
    from retentiond.control.database import Database
    from retentiond.control.migrations import Migration, migrate, shipped

    await rig.company(due=20)
    async with running(rig.environment()) as daemon:
        await drained(rig, daemon)
        database = await Database.connect(rig.control)
        try:
            later = Migration(9000, "later", "ALTER TABLE retentiond.permits ADD later text NOT NULL DEFAULT ''")
            await migrate(database, [*shipped(), later])
        finally:
            await database.close()
        await due_again(rig)
        await drained(rig, daemon)
        await daemon.until_ready()
        async with rig.control_connection() as control:
            await control.execute("ALTER TABLE retentiond.permits RENAME COLUMN intent TO purpose")
        await due_again(rig)
        await until(lambda: not_ready(daemon), lambda: daemon.process.output[-4000:])
        assert len(await rig.ids()) == 23, "with a state that it does not understand it erases nothing"
        async with rig.control_connection() as control:
            await control.execute("ALTER TABLE retentiond.permits RENAME COLUMN purpose TO intent")
            await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE shard = ''")
        await drained(rig, daemon)
        await stopped(daemon)


async def not_ready(daemon):
    return bool(await daemon.checks())
