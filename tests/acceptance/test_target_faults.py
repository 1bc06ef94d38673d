"""A target's server or account directory that fails under a real daemon, and a worker that comes back much later."""

import signal

import asyncpg
import pytest

from tests.services.daemon import running, until
from tests.services.gates import gate
from tests.services.postgres import cluster, crash, restart
from tests.services.process import start_retentiond

YOUNG = [1001, 1002, 1003]
POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.id = 17 THEN RAISE EXCEPTION 'this one stays'; END IF; RETURN OLD; END $$;
CREATE TRIGGER poison BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION poison();
"""
# Every look at the accounts takes longer than any statement of ours may.
SLOW = "ALTER TABLE accounts RENAME TO a; CREATE VIEW accounts AS SELECT a.* FROM a, (SELECT pg_sleep(120) OFFSET 0) s"


async def left_are(rig, expected, daemon):
    async def so():
        assert daemon.process.code is None, daemon.process.output
        return await rig.ids() == expected

    await until(so, lambda: daemon.process.output[-4000:])


async def test_one_poison_record_is_set_aside_by_every_sweep_and_reported_until_it_is_gone(rig):
    await rig.company(due=60)
    await rig.db.execute(POISON)
    async with running(rig.environment(sweep={"min_interval": 1})) as daemon:
        await left_are(rig, [17, *YOUNG], daemon)
        said = await daemon.until_failing("target logs")
        assert "1 records" in said["message"]
        await daemon.process.wait_for(r"(?s)(\"outcome\": \"failed\".*){3}")
        assert "target logs" in await daemon.checks(), "it is tried again, and still said"
        await rig.db.execute("DROP TRIGGER poison ON logs")
        await left_are(rig, YOUNG, daemon)
        await daemon.until_ready()
    await rig.require_told(logs=60)


@pytest.fixture
def target_server():
    with cluster(16, synchronous_commit="on") as server:
        yield server


async def test_a_target_server_restarted_under_shards_at_work_is_gone_on_with_and_nothing_is_told_twice(
    rig, target_server
):
    await rig.db.close()
    rig.dsn = target_server.dsn()
    rig.db = await asyncpg.connect(rig.dsn)
    await rig.company(due=400)
    await rig.db.execute("ANALYZE logs")
    rig.target("logs", pace={"duty": 0.4, "max_batch": 5, "shards": 4})
    # No shard gets further than its middle before the server is gone.
    middle = "BEFORE DELETE ON logs FOR EACH ROW WHEN (OLD.id % 100 = 50)"
    async with gate(rig.dsn, middle) as barred, running(rig.environment(sweep={"min_interval": 1})) as daemon:
        await barred.reached()
        crash(target_server)
        await daemon.until_failing("target logs")
        restart(target_server)
        rig.db = barred._connection = await asyncpg.connect(rig.dsn)  # what shut the gate went with the server
        assert len(await rig.ids()) > 3, "it was in its middle"
        await left_are(rig, YOUNG, daemon)
        await daemon.until_ready()
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
    await rig.require_told(logs=400)
    await rig.require_settled()


@pytest.mark.late
async def test_a_directory_that_answers_slowly_keeps_no_other_target_and_is_not_ready(rig):
    await rig.company(due=20)
    await rig.db.execute(SLOW)
    for name in ("others", "more"):
        await rig.db.execute(f"CREATE TABLE {name} AS TABLE logs; ALTER TABLE {name} ADD PRIMARY KEY (id)")
        rig.target(name, tier="free", account=None)
    async with running(rig.environment()) as daemon:

        async def swept():
            counts = [await rig.db.fetchval(f"SELECT count(*) FROM {name}") for name in ("others", "more")]
            return counts == [3, 3]

        await until(swept, lambda: daemon.process.output[-4000:], deadline=60)

        async def said():
            return "target logs" in await daemon.checks()

        await until(said, lambda: daemon.process.output[-4000:], deadline=150)
        told = (await daemon.checks())["target logs"]
        assert "account directory did not answer in time" in told["message"], told
        assert len(await rig.ids()) == 23, "what depends on the directory waits for it"


@pytest.mark.parametrize("shards", [0, 4], ids=["whole", "a shard"])
async def test_the_owner_of_a_lease_that_comes_back_much_later_finds_itself_fenced(rig, shards):
    await rig.company(due=200)
    await rig.db.execute("ANALYZE logs")
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, **({"shards": shards} if shards else {})})
    env = rig.environment()
    async with (
        gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop,
        start_retentiond("run", env=env) as first,
    ):
        await stop.reached()
        first.send_signal(signal.SIGSTOP)
        await rig.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'retentiond' AND xact_start IS NOT NULL"  # what its own timeouts do in time
        )
        await stop.open()
        async with rig.control_connection() as control:
            await control.execute(
                "UPDATE retentiond.units SET lease_until = now() - interval '1 hour' WHERE owner IS NOT NULL"
            )
        async with running(env) as second:
            await left_are(rig, YOUNG, second)
            first.send_signal(signal.SIGCONT)
            await until(rig.nobody_works, lambda: second.process.output[-4000:])
            second.process.send_signal(signal.SIGTERM)
            assert await second.process.wait() == 0
        first.send_signal(signal.SIGTERM)
        assert await first.wait() == 0, first.output
    await rig.require_told(logs=200)
    await rig.require_settled()
