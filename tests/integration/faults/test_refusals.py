"""What a refusal means: of a COMMIT, of a cursor, of many records in a row, of the ledger's head, of one value."""

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest

from retentiond.stores.postgres.batch import PostgresBatch
from retentiond.sweep.events import BatchDone
from tests.services.gates import gate, waits_for_lock
from tests.services.postgres import cluster, crash, restart
from tests.services.sweeping import ACCOUNTS, document

FUNCTION = """
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE {kind} meddle {when} FOR EACH ROW EXECUTE FUNCTION meddle();
"""


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def answer(monkeypatch):
    """A function that has the first COMMIT of a batch that erased answered with an error, done or undone."""

    def install(rig, error, *, done=True):
        erase, told = PostgresBatch.erase, []

        class Answered:
            def __init__(self, inner):
                self.inner = inner
                self.rollback = inner.rollback

            async def commit(self):
                gone = not await self.connection.fetchval("SELECT count(*) FROM logs WHERE id < 1000")
                if told or not gone:
                    return await self.inner.commit()
                told.append(True)
                await (self.inner.commit() if done else self.inner.rollback())
                raise error

        async def answered(batch, *args, **kwargs):
            found = await erase(batch, *args, **kwargs)
            batch._transaction = Answered(batch._transaction)
            batch._transaction.connection = batch.connection
            return found

        monkeypatch.setattr(PostgresBatch, "erase", answered)
        return told

    return install


def of_state(state):
    return asyncpg.PostgresError.new({"C": state, "M": "error receiving data from server", "S": "FATAL"})


async def found_in_doubt(rig):
    return [entry["found"] for entry in await rig.ledger() if entry["kind"] == "in_doubt"]


@pytest.mark.parametrize("state", ["58000", "XX000", "40003", "P0001"])
async def test_a_commit_that_took_effect_is_told_whatever_a_pooler_answered(either, answer, state):
    """One that has lost its server answers with an error of its own, as if the server had refused."""
    rig = either
    await rig.company(due=8)
    told = answer(rig, of_state(state))
    await rig.only()
    assert told
    assert await rig.ids() == [1001, 1002, 1003]
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    await rig.require_told(logs=8)
    await rig.require_settled()
    if rig.control != rig.dsn:
        assert await found_in_doubt(rig) == ["committed"]


async def test_a_role_that_cant_read_the_servers_timeline_still_learns_what_became_of_a_batch(rig, limited, answer):
    await rig.company(due=8)
    await rig.db.execute("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn), pg_control_system() FROM PUBLIC")
    await limited("GRANT SELECT, DELETE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")
    answer(rig, of_state("58000"))
    await rig.only()
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    assert await found_in_doubt(rig) == ["committed"]
    await rig.require_told(logs=8)


@pytest.mark.parametrize("error", ["PERFORM 1 / 0;", "RAISE EXCEPTION 'no' USING ERRCODE = 'insufficient_privilege';"])
async def test_a_record_refused_at_the_commit_is_set_aside_and_does_not_block_the_rest(either, error):
    rig = either
    await rig.company(due=30)
    when = "AFTER DELETE ON logs DEFERRABLE INITIALLY DEFERRED"
    body = f"IF OLD.id = 17 THEN {error} END IF; RETURN NULL;"
    await rig.db.execute(FUNCTION.format(kind="CONSTRAINT TRIGGER", when=when, body=body))
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 29, 1), document(outcome)
    assert await rig.ids() == [17, 1001, 1002, 1003]
    await rig.require_told(logs=29)
    await rig.require_settled()


@pytest.fixture
async def with_standby(rig):
    """The rig with its target, but not its control state, on a server of its own."""
    with cluster(16) as server:
        await rig.db.close()
        rig.server, rig.dsn = server, server.dsn()
        rig.db = await asyncpg.connect(rig.dsn)
        yield rig


async def fail_over(rig):
    """What a promoted standby is to its clients: the same data, on another timeline."""
    data = Path(await rig.db.fetchval("SELECT current_setting('data_directory')"))
    await rig.db.execute("CHECKPOINT")
    crash(rig.server)
    signal = data / "standby.signal"
    signal.touch()
    os.chown(signal, data.stat().st_uid, data.stat().st_gid)
    restart(rig.server)
    rig.db = await asyncpg.connect(rig.dsn)
    await rig.db.execute("SELECT pg_promote()")


async def test_after_a_failover_a_transactions_number_vouches_for_nothing(with_standby, answer):
    """The new primary never saw the batch, and has given its number to somebody else, who committed."""
    rig = with_standby
    await rig.company(due=8)
    told = answer(rig, ConnectionResetError("gone"), done=False)
    assert (await rig.only()).outcome == "failed"
    assert told
    await fail_over(rig)
    other = await rig.db.fetchval("SELECT pg_current_xact_id()::text")
    async with rig.control_connection() as control:
        changed = await control.execute(
            "UPDATE retentiond.permits SET prepared = jsonb_set(prepared, '{transaction}', to_jsonb("
            "regexp_replace(prepared->>'transaction', '^[0-9]+', $1))) WHERE ended_at IS NULL",
            other,
        )
    assert changed == "UPDATE 1"
    await rig.db.execute("UPDATE logs SET created_at = now()")
    await rig.let_leases_run_out()
    outcome = await rig.only()
    assert (outcome.changed, outcome.in_doubt) == (0, 1), outcome.error
    assert len(await rig.ids()) == 11
    assert await found_in_doubt(rig) == ["unknown"]
    await rig.require_told(logs=0)
    await rig.require_settled()


async def cut_short(rig):
    """A sweep that is stopped after its first batch that erased."""
    await rig.company(due=50)
    await rig.db.execute("DROP INDEX logs_created_at_idx")
    apps = []
    async with rig.app(observer=lambda fact: apps[0].engine.drain() if is_erasing(fact) else None) as app:
        apps.append(app)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("capped", 10)


def is_erasing(fact):
    return isinstance(fact, BatchDone) and fact.changed > 0


async def cursor(rig):
    async with rig.control_connection() as control:
        return await control.fetchval("SELECT cursor->'after' FROM retentiond.units WHERE target = 'logs'")


async def test_a_position_in_a_key_of_another_type_is_not_gone_on_from(rig):
    await cut_short(rig)
    await rig.db.execute("ALTER TABLE logs ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 40), outcome.error
    await rig.require_told(logs=50)


async def test_a_position_that_cant_be_read_fails_one_sweep_and_no_more(rig):
    await cut_short(rig)
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.units SET cursor = jsonb_set(cursor, '{after}', '[\"x\"]')")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert await cursor(rig) is None
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 40), outcome.error
    await rig.require_told(logs=50)
    await rig.require_settled()


async def test_many_records_refused_in_a_row_dont_keep_those_behind_them_for_good(either):
    rig = either
    await rig.company(due=150)
    body = "IF OLD.id BETWEEN 6 AND 120 THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD;"
    await rig.db.execute(FUNCTION.format(kind="TRIGGER", when="BEFORE DELETE ON logs", body=body))
    first = await rig.only()
    assert (first.outcome, first.changed, first.failed) == ("failed", 5, 101)
    assert await cursor(rig) is not None
    second = await rig.only()
    assert (second.outcome, second.changed) == ("failed", 30)
    assert await rig.ids() == [*range(6, 121), 1001, 1002, 1003]
    await rig.require_told(logs=35)
    await rig.require_settled()


async def lock_the_head(rig, stop):
    """The ledger's head, locked by somebody else while a batch is in its DELETE; the sweep then waits for it."""
    other = await asyncpg.connect(rig.dsn)
    await stop.reached()
    await other.execute("BEGIN; SELECT 1 FROM retentiond.ledger_head FOR UPDATE")
    await stop.open()
    return other


async def test_a_ledger_that_is_busy_for_a_while_is_no_records_fault(rig):
    await rig.company(due=20)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only())
        other = await lock_the_head(rig, stop)
        await waits_for_lock(rig.db, "ledger_head")
        await asyncio.sleep(1)
        await other.close()
        outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 20, 0), outcome.error
    erased = [entry["counts"]["erased"] for entry in await rig.ledger() if entry["kind"] == "outcome"]
    assert erased[0] == 10, "the batch was not halved"
    await rig.require_told(logs=20)


async def test_a_ledger_that_stays_busy_ends_the_sweep_and_no_record_has_failed(rig):
    await rig.company(due=20)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only())
        other = await lock_the_head(rig, stop)
        await waits_for_lock(rig.db, "ledger_head")
        await asyncio.sleep(5.5)
        await other.close()
        outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 0, 0)
    assert outcome.error["kind"] == "unreachable"
    assert len(await rig.ids()) == 23
    await rig.let_leases_run_out()
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 20), outcome.error
    await rig.require_told(logs=20)
    await rig.require_settled()


NUMBERS = (
    "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at numeric);"
    " INSERT INTO logs SELECT i, 1, 1500000000 FROM generate_series(1, 20) i; INSERT INTO logs VALUES (100, 1, '{}')"
)


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_number_below_all_floats_is_no_time_and_its_record_stays(rig, indexed):
    await rig.db.execute(ACCOUNTS + NUMBERS.format("-1e400"))
    if indexed:
        await rig.db.execute("CREATE INDEX ON logs (created_at)")
    rig.target("logs", unit="s")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.unresolved) == ("drained", 20, 1), outcome.error
    assert await rig.ids() == [100]
    await rig.require_told(logs=20)


async def test_a_number_nearer_to_nought_than_any_float_is_judged_as_nought_and_stops_nothing(rig):
    await rig.db.execute(ACCOUNTS + NUMBERS.format("1e-400"))
    rig.target("logs", unit="s")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 21, 0), outcome.error
    assert await rig.ids() == []
    await rig.require_told(logs=21)
    await rig.require_settled()
