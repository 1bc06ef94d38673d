"""The real process on a real Postgres, configured by environment variables alone."""

import signal
from datetime import UTC, datetime

import aiohttp
import asyncpg
import pytest

from tests.services.daemon import until
from tests.services.gates import gate
from tests.services.process import run_retentiond, start_retentiond

COMPANY = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);
INSERT INTO accounts SELECT i, (ARRAY['free', 'pro', 'enterprise'])[1 + i % 3],
    CASE WHEN i % 10 = 0 THEN now() - interval '60 days' END FROM generate_series(1, 60) i;
CREATE TABLE request_logs (id bigserial PRIMARY KEY, account_id bigint, created_at timestamptz, ip inet);
INSERT INTO request_logs (account_id, created_at)
    SELECT 1 + i % 60, now() - i * interval '12 hours' FROM generate_series(1, 3000) i;
CREATE INDEX ON request_logs (created_at);
CREATE INDEX ON request_logs (account_id);
CREATE TABLE invoices (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), account_id bigint, issued timestamptz);
INSERT INTO invoices (account_id, issued) SELECT 1 + i % 60, now() - i * interval '40 days' FROM generate_series(1, 90) i;
CREATE INDEX ON invoices (issued);
CREATE INDEX ON invoices (account_id);
"""
# By the shipped default policy: deleted accounts' logs, then free after 90 days, pro and enterprise after 365.
DUE = """
SELECT count(*) FROM request_logs r JOIN accounts a ON a.id = r.account_id
WHERE a.deleted_at IS NOT NULL OR created_at < now() - CASE tier WHEN 'free' THEN interval '90 days'
    ELSE interval '365 days' END
"""
IN_A_BATCH = "BEFORE DELETE ON request_logs FOR EACH STATEMENT"


@pytest.fixture
async def company(database):
    connection = await asyncpg.connect(database)
    await connection.execute(COMPANY)
    yield connection
    await connection.close()


@pytest.fixture
def env(database, company, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    found = {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_STATE_DIR": str(state),
        "RETENTIOND_CONTROL__DSN": database,
        "RETENTIOND_ACCOUNTS__DSN": database,
        "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
        "RETENTIOND_ACCOUNTS__DELETED_AT": "deleted_at",
        "RETENTIOND_ACCOUNTS__OVERRIDES": "retention",
        "RETENTIOND_GUARDS__MAX_FRACTION": "1.0",
    }
    for name, table, class_name, anchor in (
        ("REQUEST_LOGS", "public.request_logs", "operational_logs", "created_at"),
        ("INVOICES", "public.invoices", "invoices", "issued"),
    ):
        prefix = f"RETENTIOND_TARGETS__{name}__"
        values = {
            "STORE": "postgres",
            "CLASS": class_name,
            "DSN": database,
            "TABLE": table,
            "ANCHOR": anchor,
            "ACCOUNT": "account_id",
        }
        found |= {prefix + key: value for key, value in values.items()}
    return found


async def sweep(env, *args):
    result = await run_retentiond("sweep", "--json", *args, env=env)
    return result, result.json["targets"] if result.stdout else None


async def erased_in_ledger(env):
    shown = await run_retentiond("ledger", "show", "--kind", "outcome", "--limit", "10000", "--json", env=env)
    return sum(entry["counts"]["erased"] for entry in shown.json["entries"] if entry["target"] == "request_logs")


async def test_the_default_policy_is_made_true_by_environment_variables_alone(env, company):
    due, minimum = await company.fetchval(DUE), await company.fetchval("SELECT count(*) FROM invoices")
    result, targets = await sweep(env)
    assert result.code == 0, result.stderr
    assert targets["request_logs"]["outcome"] == "drained"
    assert targets["request_logs"]["erased"] == due
    assert await company.fetchval(DUE) == 0
    seven_years = await company.fetchval("SELECT count(*) FROM invoices WHERE issued < now() - interval '7 years'")
    assert seven_years == 0
    assert targets["invoices"]["erased"] + await company.fetchval("SELECT count(*) FROM invoices") == minimum
    assert targets["invoices"]["minimum"] > 0
    assert await erased_in_ledger(env) == due
    assert (await run_retentiond("ledger", "verify", env=env)).code == 0


async def test_plan_mode_erases_nothing(env, company):
    before = await company.fetchval("SELECT count(*) FROM request_logs")
    result, targets = await sweep(env | {"RETENTIOND_MODE": "plan"})
    assert result.code == 0, result.stderr
    assert targets["request_logs"]["erased"] == 0
    assert targets["request_logs"]["would_erase"] == await company.fetchval(DUE)
    assert await company.fetchval("SELECT count(*) FROM request_logs") == before


async def test_a_large_first_sweep_waits_for_an_approval(env, company):
    env = {key: value for key, value in env.items() if not key.endswith("MAX_FRACTION")}
    before = await company.fetchval("SELECT count(*) FROM request_logs")
    result, targets = await sweep(env, "--target", "request_logs")
    assert (result.code, targets["request_logs"]["outcome"]) == (3, "guarded")
    assert await company.fetchval("SELECT count(*) FROM request_logs") == before
    assert (await run_retentiond("approve", "request_logs", env=env)).code == 0
    result, targets = await sweep(env, "--target", "request_logs")
    assert (result.code, targets["request_logs"]["outcome"]) == (0, "drained")


async def test_a_hold_keeps_an_accounts_records_and_explain_says_why(env, company):
    assert (await run_retentiond("hold", "list", env=env)).code == 4
    await sweep(env | {"RETENTIOND_MODE": "plan"})
    placed = await run_retentiond(
        "hold", "place", "--matter", "2026-17", "--reason", "subpoena", "--account", "007", "--json", env=env
    )
    assert placed.code == 0, placed.stderr
    assert placed.json["state"] == "active"
    assert datetime.fromisoformat(placed.json["effective_at"]) <= datetime.now(UTC)
    mine = "SELECT count(*) FROM request_logs WHERE account_id = 7"
    before = await company.fetchval(mine)
    _, targets = await sweep(env)
    assert await company.fetchval(mine) == before
    assert targets["request_logs"]["held"] > 0
    oldest = await company.fetchval("SELECT id FROM request_logs WHERE account_id = 7 ORDER BY created_at LIMIT 1")
    explained = await run_retentiond("explain", "request_logs", str(oldest), "--json", env=env)
    assert explained.json["verdict"] == "held"
    assert explained.json["holds"] == [placed.json["id"]]


async def test_a_worker_killed_in_a_batch_leaves_a_ledger_that_tells_the_truth(env, company, database):
    due = await company.fetchval(DUE)
    async with (
        gate(database, IN_A_BATCH) as stop,
        start_retentiond("sweep", "--target", "request_logs", env=env) as worker,
    ):
        await stop.reached()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()
    result, _ = await sweep(env, "--target", "request_logs")
    assert result.code == 0, result.stderr
    assert await company.fetchval(DUE) == 0
    assert await erased_in_ledger(env) == due
    assert (await run_retentiond("ledger", "verify", env=env)).code == 0


async def test_a_worker_stopped_in_a_batch_erases_nothing_that_is_held_when_it_goes_on(env, company, database):
    held = "SELECT count(*) FROM request_logs WHERE account_id = 8"
    before = await company.fetchval(held)
    async with (
        gate(database, IN_A_BATCH) as stop,
        start_retentiond("sweep", "--target", "request_logs", env=env) as worker,
    ):
        await stop.reached()
        worker.send_signal(signal.SIGSTOP)
        await stop.open()
        placed = await run_retentiond(
            "hold", "place", "--matter", "m", "--reason", "r", "--account", "8", "--json", env=env
        )
        assert placed.code == 0, placed.stderr
        at_activation = await company.fetchval(held)
        worker.send_signal(signal.SIGCONT)
        await worker.wait()
    assert await company.fetchval(held) == at_activation == before
    result, _ = await sweep(env, "--target", "request_logs")
    assert result.code == 0, result.stderr
    assert await company.fetchval(held) == before
    assert (await run_retentiond("ledger", "verify", env=env)).code == 0


async def test_a_directory_that_turns_empty_stops_the_sweep(env, company):
    await sweep(env)
    await company.execute("INSERT INTO request_logs (account_id, created_at) SELECT 1, now() - interval '2 years'")
    await company.execute("DELETE FROM accounts")
    result, targets = await sweep(env, "--target", "request_logs")
    assert (result.code, targets["request_logs"]["outcome"]) == (1, "blind")
    assert await company.fetchval(DUE.replace("JOIN", "LEFT JOIN")) == 1


async def test_a_shorter_term_waits_for_policy_approve(env, company):
    await sweep(env)
    shorter = env | {"RETENTIOND_POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE": "P30D"}
    assert (await run_retentiond("sweep", env=shorter)).code == 3
    shown = await run_retentiond("policy", "diff", "--json", env=shorter)
    assert shown.json["newly_erases"] == ["policy.classes.operational_logs.ttl.free becomes shorter: P90D, now P30D"]
    assert (await run_retentiond("policy", "approve", env=shorter)).code == 0
    assert (await run_retentiond("sweep", env=shorter)).code == 0
    assert (await run_retentiond("sweep", env=env)).code == 0


async def test_pause_reaches_a_sweep_before_its_next_batch(env, company):
    await sweep(env | {"RETENTIOND_MODE": "plan"})
    assert (await run_retentiond("pause", "--reason", "look", env=env)).code == 0
    _, targets = await sweep(env)
    assert {each["outcome"] for each in targets.values()} == {"paused"}
    assert (await run_retentiond("resume", env=env)).code == 0
    _, targets = await sweep(env)
    assert {each["outcome"] for each in targets.values()} == {"drained"}


async def test_the_daemon_sweeps_serves_and_drains_on_sigterm(env, company):
    async with start_retentiond("run", env=env | {"RETENTIOND_HTTP__PORT": "0"}) as daemon:
        address = (await daemon.wait_for(r"http://127\.0\.0\.1:\d+")).group()

        async def nothing_due():
            return await company.fetchval(DUE) == 0

        await until(nothing_due, lambda: daemon.output)
        async with aiohttp.ClientSession(address) as session:

            async def ready():
                return (await session.get("/readyz")).status == 200

            async def ledger_fails():
                return not (await (await session.get("/readyz")).json())["checks"]["ledger"]["ok"]

            await until(ready, lambda: daemon.output)
            assert (await session.get("/healthz")).status == 200
            metrics = await (await session.get("/metrics")).text()
            assert (
                'retentiond_records_erased_total{class="operational_logs",target="request_logs",tier="free"}' in metrics
            )
            assert (await session.get("/nothing")).content_type == "application/problem+json"
            await company.execute("DROP TABLE retentiond.ledger_head CASCADE")
            await until(ledger_fails, lambda: daemon.output)
            assert (await session.get("/readyz")).status == 503
        daemon.send_signal(signal.SIGTERM)
        assert await daemon.wait() == 0


async def test_one_targets_failure_leaves_the_others_working(env, company):
    due = await company.fetchval(DUE)
    await company.execute("DROP TABLE invoices")
    result, targets = await sweep(env)
    assert result.code == 1
    assert targets["invoices"]["outcome"] == "blind"
    assert "invoices" in targets["invoices"]["error"]["message"]
    assert targets["request_logs"]["erased"] == due
