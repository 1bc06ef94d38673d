"""Whole sweeps beside a server that has too much to do: they yield, say why, go on by themselves, and can be stopped."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest

from retentiond.control import flags
from retentiond.daemon import open_app
from retentiond.settings import load
from retentiond.sweep.events import BatchDone, SweepDone, Throttled, Yielding
from tests.services.gates import open_transaction, waits_for_lock
from tests.services.postgres import cluster
from tests.services.prometheus import fake_prometheus
from tests.services.replicas import freeze, replica, resume
from tests.services.sweeping import Rig


class Told:
    """What a sweep tells, and a way to wait for it."""

    def __init__(self):
        self.events = []
        self.on_batch = lambda: None

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, BatchDone):
            self.on_batch()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def reasons(self):
        return [event.reason for event in self.of(Yielding)]

    async def until_yielding(self, reason, sweep):
        for _ in range(600):
            if reason in self.reasons:
                return
            assert not sweep.done(), f"it did not yield: {sweep.result()}"
            await asyncio.sleep(0.05)
        raise AssertionError(f"it does not yield for {reason}: {self.reasons}")

    async def until_batches(self, count):
        for _ in range(600):
            if len(self.of(BatchDone)) >= count:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("there are not so many batches")


def pace(**health):
    off = dict.fromkeys(("lock_waits", "oldest_snapshot", "vacuum", "response", "batch_latency"), "off")
    return {"duty": 1.0, "max_batch": 10, "health": off | health}


@pytest.fixture
async def company(rig):
    await rig.company(due=200)
    return rig


@asynccontextmanager
async def row_waited_for(rig):
    """A session waits for a row of the table that no sweep touches."""
    waiter = await asyncpg.connect(rig.dsn)
    try:
        async with open_transaction(rig.dsn, "UPDATE logs SET ip = '' WHERE id = 1001") as holder:
            waiting = asyncio.create_task(waiter.execute("UPDATE logs SET ip = 'waiter' WHERE id = 1001"))
            await waits_for_lock(rig.db, "ip = 'waiter'")
            yield holder
            await holder.execute("ROLLBACK")
            await waiting
    finally:
        await waiter.close()


async def test_a_sweep_yields_to_who_waits_for_a_lock_and_goes_on_by_itself(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05)
    told = Told()
    async with row_waited_for(company):
        sweep = asyncio.create_task(company.only(observer=told))
        await told.until_yielding("lock_waits", sweep)
        assert told.of(BatchDone) == []
    outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("drained", 200)
    assert told.reasons[-1] is None
    assert sum(event.seconds for event in told.of(Throttled) if event.reason == "lock_waits") > 0
    assert "pace.health.lock_waits" in told.of(Yielding)[0].told
    await company.require_told(logs=200)


async def test_strain_that_begins_in_a_sweep_stops_it_within_two_batches(company):
    told = Told()
    async with fake_prometheus() as fake:
        query = {"url": fake.url, "expression": "load", "threshold": 4}
        company.targets["logs"]["pace"] = pace(promql=query)

        def overload():
            if len(told.of(BatchDone)) == 3:
                fake.value = "5"

        told.on_batch = overload
        sweep = asyncio.create_task(company.only(observer=told))
        await told.until_yielding("promql", sweep)
        assert 3 <= len(told.of(BatchDone)) <= 5
        fake.value = "4"
        outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("drained", 200)


async def test_a_sweep_that_rests_can_be_stopped_at_once_and_goes_on_later(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05)
    told = Told()
    async with row_waited_for(company), company.app(observer=told) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await told.until_yielding("lock_waits", sweep)
        app.engine.drain()
        async with asyncio.timeout(60):
            outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.error) == ("capped", 0, None)
    assert (await company.only()).changed == 200


async def test_a_pause_ends_a_rest_as_it_ends_batches(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05)
    told = Told()
    async with row_waited_for(company), company.app(observer=told) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await told.until_yielding("lock_waits", sweep)
        async with app.database.transaction() as tx:
            await flags.pause(tx, "test")
        outcome = await sweep
    assert (outcome.outcome, outcome.error["kind"]) == ("paused", "paused")


async def test_a_lease_that_another_worker_has_taken_ends_a_rest(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05)
    told = Told()
    async with row_waited_for(company), company.app(observer=told) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await told.until_yielding("lock_waits", sweep)
        async with company.control_connection() as control:
            await control.execute("UPDATE retentiond.units SET fence = fence + 1, owner = 'another'")
        outcome = await sweep
    assert (outcome.outcome, outcome.error["kind"]) == ("failed", "fenced")
    assert len(await company.ids()) == 203


async def test_a_rest_that_outlasts_its_patience_ends_the_sweep_with_the_reason_and_the_next_goes_on(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05, patience=0.4)
    async with row_waited_for(company):
        outcome = await company.only()
    assert (outcome.outcome, outcome.changed, outcome.error["kind"]) == ("capped", 0, "strained")
    assert "waited" in outcome.error["message"]
    assert outcome.error["remedy"]
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 200)


async def test_a_hold_that_comes_while_a_sweep_rests_is_minded_when_it_goes_on(company):
    company.targets["logs"]["pace"] = pace(lock_waits=0.05)
    told = Told()
    async with company.app(observer=told) as app:
        async with row_waited_for(company):
            sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
            await told.until_yielding("lock_waits", sweep)
            # A rest has no permit and no transaction: the hold is active at once.
            await company.hold(app, records={"logs": ("7",)})
        outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 199, 1)
    assert 7 in await company.ids()


async def test_an_old_snapshot_a_vacuum_and_a_slow_answer_are_yielded_to(company):
    company.targets["logs"]["pace"] = pace(oldest_snapshot=0.05, vacuum=600)
    for reason, statement in (
        ("oldest_snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"),
        ("vacuum", "LOCK TABLE logs IN SHARE UPDATE EXCLUSIVE MODE"),
    ):
        told = Told()
        async with open_transaction(company.dsn, statement) as other:
            sweep = asyncio.create_task(company.only(observer=told))
            await told.until_yielding(reason, sweep)
            assert told.of(BatchDone) == []
            await other.execute("COMMIT")
            await sweep
        company.targets["logs"]["pace"]["health"]["oldest_snapshot"] = "off"
        await company.db.execute(
            "INSERT INTO logs SELECT i, 1, now() - interval '1 year', '' FROM generate_series(1, 5) i"
        )


async def test_a_vacuum_that_lasts_longer_than_allowed_is_not_waited_out(company):
    company.targets["logs"]["pace"] = pace(vacuum=0.6)
    told = Told()
    async with open_transaction(company.dsn, "LOCK TABLE logs IN SHARE UPDATE EXCLUSIVE MODE"):
        outcome = await company.only(observer=told)
    assert (outcome.outcome, outcome.changed) == ("drained", 200)
    assert told.reasons[0] == "vacuum"


async def test_batches_that_stay_slow_rest_between_and_each_rest_ends_with_a_try(company):
    # As on a server whose disk is too busy: even the smallest batch takes many times its budget.
    await company.db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;"
        " CREATE TRIGGER slow AFTER DELETE ON logs FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    )
    company.targets["logs"]["pace"] = pace(batch_latency=2) | {"batch_seconds": 0.01, "min_batch": 50, "max_batch": 50}
    told = Told()
    outcome = await company.only(observer=told)
    assert (outcome.outcome, outcome.changed) == ("drained", 200)
    order = [type(event) for event in told.events if isinstance(event, (BatchDone, Yielding))]
    first = order.index(Yielding)
    assert order[:first] == [BatchDone, BatchDone]
    assert set(told.reasons) == {"batch_latency", None}


async def test_what_was_configured_and_can_not_be_read_stops_the_sweep_and_a_default_is_left_out(company, limited):
    await limited("GRANT SELECT, DELETE, UPDATE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")
    company.targets["logs"]["pace"] = pace(oldest_snapshot=3600)
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "pace.health.oldest_snapshot" in outcome.error["message"]
    assert "pg_monitor" in outcome.error["remedy"]
    del company.targets["logs"]["pace"]["health"]["oldest_snapshot"]
    assert (await company.only()).changed == 200


async def test_a_prometheus_that_stays_away_stops_the_sweep_and_one_that_is_back_soon_does_not(company):
    async with fake_prometheus() as fake:
        company.targets["logs"]["pace"] = pace(promql={"url": fake.url, "expression": "load", "threshold": 4})
        fake.status = 503
        told = Told()
        sweep = asyncio.create_task(company.only(observer=told))
        await told.until_yielding("promql", sweep)
        fake.status = 200
        assert (await sweep).changed == 200
        fake.value = None
        await company.db.execute("INSERT INTO logs VALUES (1, 1, now() - interval '1 year', '')")
        outcome = await company.only()
    assert (outcome.outcome, outcome.error["kind"]) == ("failed", "unreachable")
    assert "no sample" in outcome.error["message"]
    assert 1 in await company.ids()


async def test_an_expression_that_is_refused_stops_the_sweep_as_blind_and_the_next_goes_on_from_there(company):
    async with fake_prometheus() as fake:
        company.targets["logs"]["pace"] = pace(promql={"url": fake.url, "expression": "up((", "threshold": 4})
        told = Told()

        def refuse():
            if len(told.of(BatchDone)) == 3:
                fake.status = 400

        told.on_batch = refuse
        for _ in range(2):  # the second one begins no batch
            outcome = await company.only(observer=told)
            assert (outcome.outcome, outcome.error["kind"]) == ("blind", "blind"), outcome.error
            assert "refuses the expression: parse error" in outcome.error["message"]
            assert "promql.expression" in outcome.error["remedy"]
            async with company.control_connection() as control:
                assert await control.fetchval("SELECT cursor IS NOT NULL FROM retentiond.units WHERE shard = ''")
        fake.status = 200
        await company.only(observer=told)
    await company.require_told(logs=200)


async def test_check_tells_what_a_role_can_not_read_and_its_remedy_gives_it(company, limited):
    await limited("GRANT SELECT, DELETE, UPDATE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")

    async def found():
        async with open_app(load(company.environment()), create=True) as app:
            store = await app.engine.open(app.spec.target("logs"))
            return [each for each in await store.check() if "pace.health" in each.message]

    (finding,) = await found()
    assert (finding.severity, "replica_lag" in finding.message) == ("info", True)
    company.targets["logs"]["pace"] = pace(replica_lag=5)
    assert "error" in {each.severity for each in await found()}
    await company.db.execute(finding.remedy)
    assert await found() == []


async def test_a_replica_that_never_catches_up_is_yielded_to_for_as_long_as_it_is_behind(tmp_path):
    with cluster(wal_level="replica") as server, replica(server) as behind:
        connection = await asyncpg.connect(server.dsn())
        rig = Rig(server.dsn(), connection, tmp_path, server.dsn())
        await rig.company(due=200)
        # So slowly that the replica falls behind in the middle of the sweep.
        rig.targets["logs"]["pace"] = pace(replica_lag=0.5) | {"records_per_second": 50}
        freeze(behind, "startup")
        await connection.execute("CREATE TABLE noise AS SELECT 1")
        told = Told()
        sweep = asyncio.create_task(rig.only(observer=told))
        await told.until_yielding("replica_lag", sweep)
        done = len(told.of(BatchDone))
        for _ in range(3):
            before = len(told.of(Yielding))
            while len(told.of(Yielding)) == before:
                await asyncio.sleep(0.05)
        assert len(told.of(BatchDone)) == done < 20
        assert told.of(SweepDone) == []
        resume(behind)
        outcome = await sweep
        assert (outcome.outcome, outcome.changed) == ("drained", 200)
        await connection.close()
