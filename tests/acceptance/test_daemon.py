"""The daemon as a real process on real Postgres servers: what it says of itself, and how it takes trouble."""

import asyncio
import signal

import asyncpg
import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.acceptance.test_core import DUE, company, env  # noqa: F401 - fixtures
from tests.services.daemon import running, until
from tests.services.dawdle import SLOW, in_a_batch
from tests.services.postgres import cluster, start, stop
from tests.services.process import run_retentiond

# By 3-interface, without those of erasure requests, which come later.
CONTRACT = {
    "records_erased_total": {"target", "class", "tier"},
    "records_anonymised_total": {"target", "class", "tier"},
    "records_archived_total": {"target", "class", "tier"},
    "bytes_erased_total": {"target", "class"},
    "records_held": {"target"},
    "records_unresolved": {"target"},
    "overdue_records": {"target"},
    "overdue_seconds": {"target"},
    "oldest_record_age_seconds": {"target"},
    "last_success_timestamp_seconds": {"target"},
    "next_expiry_timestamp_seconds": {"target"},
    "native_expiry_conflicts": {"target"},
    "sweep_duration_seconds_count": {"target"},
    "batch_duration_seconds_count": {"target"},
    "batch_records": {"target"},
    "batch_overhead_seconds": {"target"},
    "throttle_seconds_total": {"target", "reason"},
    "errors_total": {"kind"},
    "guard_tripped": {"guard"},
    "holds": {"state"},
    "holds_review_overdue": set(),
    "hold_activation_seconds_count": set(),
    "ledger_entries_total": set(),
    "ledger_verified_timestamp_seconds": set(),
    "clock_skew_seconds": set(),
    "paused": set(),
    "workers": {"role"},
    "mode": {"mode"},
    "build_info": {"version"},
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
OPEN_PERMITS = "SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL"
LEFT = "SELECT count(*) FROM request_logs"
VETO = """
CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'account 47110815 stays' USING DETAIL = 'Key (id)=(47110815)'; END $$;
CREATE TRIGGER veto BEFORE DELETE ON request_logs FOR EACH ROW EXECUTE FUNCTION veto();
"""


def series(families):
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def none_due(connection):
    return await connection.fetchval(DUE) == 0


async def erased_by_ledger(env):
    shown = await run_retentiond("ledger", "show", "--kind", "outcome", "--limit", "10000", "--json", env=env)
    return sum(entry["counts"]["erased"] for entry in shown.json["entries"] if entry["target"] == "request_logs")


async def test_every_series_of_the_contract_is_there_once_the_daemon_is_ready(env, company):
    async with running(env | {"RETENTIOND_MODE": "plan"}) as daemon:
        await daemon.until_ready()
        for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
            found = series(parse(await daemon.text(accept)))
            for name, labels in CONTRACT.items():
                mine = [dict(given) for each, given in found if each == f"retentiond_{name}"]
                assert mine, name
                assert all(set(given) == labels for given in mine), name
                if "target" in labels:
                    assert {given["target"] for given in mine} == {"request_logs", "invoices"}, name
            guards = {dict(given)["guard"] for each, given in found if each == "retentiond_guard_tripped"}
            assert guards == {
                "fraction", "records", "policy", "directory", "clock_skew", "clock_jump", "control_id",
                "holds",
            }  # fmt: skip
            kinds = {dict(given)["kind"] for each, given in found if each == "retentiond_errors_total"}
            assert {"unexpected", "unreachable", "blind", "guarded", "ledger_error", "fenced"} <= kinds
        openmetrics = {family.name: family.type for family in parse_openmetrics(await daemon.text(OPENMETRICS))}
        assert openmetrics["retentiond_ledger_entries"] == "counter"


async def test_metrics_tell_what_was_erased_and_outlive_a_restart(env, company):
    due = await company.fetchval(DUE)
    async with running(env) as daemon:
        await until(lambda: none_due(company))
        await until(lambda: daemon.metric("last_success_timestamp_seconds", target="request_logs"))
        found = series(parse_text(await daemon.text()))
        erased = [v for (name, given), v in found.items()
                  if name == "retentiond_records_erased_total" and ("target", "request_logs") in given]  # fmt: skip
        assert sum(erased) == due
        assert await daemon.metric("bytes_erased_total", target="request_logs") > 0
        assert await daemon.metric("overdue_records", target="request_logs") == 0
        assert await daemon.metric("overdue_seconds", target="request_logs") == 0
        assert await daemon.metric("next_expiry_timestamp_seconds", target="request_logs") > 0
        assert abs(await daemon.metric("clock_skew_seconds")) < 60
        success = await daemon.metric("last_success_timestamp_seconds", target="request_logs")
        oldest = "SELECT EXTRACT(epoch FROM now() - min(created_at)) FROM request_logs"
        age = await daemon.metric("oldest_record_age_seconds", target="request_logs")
        assert abs(age - float(await company.fetchval(oldest))) < 60
        await until(lambda: daemon.metric("ledger_verified_timestamp_seconds"))
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
    async with running(env) as daemon:
        await daemon.until_ready()
        assert await daemon.metric("last_success_timestamp_seconds", target="request_logs") == success
        await until(lambda: _known(daemon, "oldest_record_age_seconds"))


async def _known(daemon, name):
    value = await daemon.metric(name, target="request_logs")
    return value is not None and value == value


async def test_a_guard_of_one_target_stays_tripped_while_another_is_swept_until_it_is_approved(env, company):
    env = {key: value for key, value in env.items() if not key.endswith("MAX_FRACTION")}
    due = await company.fetchval(DUE)
    async with running(env) as daemon:
        said = await daemon.until_failing("target request_logs")
        assert "approve request_logs" in said["remedy"]
        await until(lambda: daemon.metric("last_success_timestamp_seconds", target="invoices"))
        assert await daemon.metric("guard_tripped", guard="fraction") == 1
        assert await daemon.metric("guard_tripped", guard="records") == 0
        await until(lambda: _is(daemon, due, "overdue_records", target="request_logs"))
        assert (await run_retentiond("approve", "request_logs", env=env)).code == 0
        await until(lambda: none_due(company))
        await daemon.until_ready()
        assert await daemon.metric("guard_tripped", guard="fraction") == 0


async def _is(daemon, value, name, **labels):
    return await daemon.metric(name, **labels) == value


async def test_a_policy_that_waits_for_approval_is_not_ready_and_does_not_fill_the_ledger(env, company):
    assert (await run_retentiond("sweep", env=env)).code == 0
    shorter = env | {"RETENTIOND_POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE": "P30D"}
    async with running(shorter) as daemon:
        said = await daemon.until_failing("mode")
        assert "policy approve" in said["remedy"]
        assert await daemon.metric("guard_tripped", guard="policy") == 1
        await daemon.process.wait_for("ledger verified")
        before = await company.fetchval("SELECT size FROM retentiond.ledger_head")
        await asyncio.sleep(3)
        assert await company.fetchval("SELECT size FROM retentiond.ledger_head") == before
        assert (await run_retentiond("policy", "approve", env=shorter)).code == 0
        await daemon.until_ready()
        assert await daemon.metric("guard_tripped", guard="policy") == 0


async def test_a_targets_trouble_is_shown_without_values_and_ends_by_itself(env, company):
    await company.execute(VETO)
    async with running(env | {"RETENTIOND_SWEEP__MIN_INTERVAL": "1"}) as daemon:
        await daemon.until_failing("target request_logs")
        await until(lambda: daemon.metric("last_success_timestamp_seconds", target="invoices"))
        failures = [v for (name, _), v in series(parse_text(await daemon.text())).items()
                    if name == "retentiond_errors_total"]  # fmt: skip
        assert sum(failures) > 0
        await company.execute("DROP TRIGGER veto ON request_logs")
        await until(lambda: none_due(company))
        await daemon.until_ready()
        assert "47110815" not in daemon.process.output


async def test_sigterm_in_a_batch_lets_it_finish_and_ends_with_0(env, company):
    before = await company.fetchval(LEFT)
    await company.execute(SLOW.format(seconds=2))
    async with running(env) as daemon:
        await in_a_batch(company)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert "abandoned" not in daemon.process.output
    gone = before - await company.fetchval(LEFT)
    assert gone > 0
    assert await company.fetchval(OPEN_PERMITS) == 0
    assert await erased_by_ledger(env) == gone


async def test_a_batch_that_outlasts_the_grace_is_abandoned_and_undone(env, company):
    before = await company.fetchval(LEFT)
    await company.execute(SLOW.format(seconds=13))
    async with running(env | {"RETENTIOND_SHUTDOWN_GRACE": "1"}) as daemon:
        await in_a_batch(company)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert "abandoned" in daemon.process.output
    assert await company.fetchval(LEFT) == before
    await company.execute("DROP TRIGGER dawdle ON request_logs")
    assert (await run_retentiond("sweep", "--target", "request_logs", env=env)).code == 0
    assert await erased_by_ledger(env) == before - await company.fetchval(LEFT)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once_and_nothing_of_the_batch_stays(env, company, second):
    before = await company.fetchval(LEFT)
    await company.execute(SLOW.format(seconds=13))
    async with running(env | {"RETENTIOND_SHUTDOWN_GRACE": "60"}) as daemon:
        await in_a_batch(company)
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.until_failing("stopping")
        daemon.process.send_signal(second)
        assert await daemon.process.wait() == 128 + second
    assert await company.fetchval(LEFT) == before


async def test_nothing_is_erased_while_the_control_database_is_away_and_work_goes_on_after(env, company):
    with cluster(16) as server:
        env = env | {"RETENTIOND_CONTROL__DSN": server.dsn()}
        async with running(env) as daemon:
            await until(lambda: none_due(company))
            await daemon.until_ready()
            stop(server)
            said = await daemon.until_failing("control")
            assert "control.dsn" in said["remedy"]
            await company.execute(
                "INSERT INTO request_logs (account_id, created_at) SELECT 1, now() - interval '2 years'"
            )
            await asyncio.sleep(3)
            assert await company.fetchval(DUE) == 1
            assert (await daemon.http.get("/healthz")).status == 200
            start(server)
            await daemon.until_ready()
            control = await asyncpg.connect(server.dsn())

            async def gone():
                # Again and again: a tick that was under way writes when it thinks that the target is due.
                await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE owner IS NULL")
                await asyncio.sleep(1)
                return await none_due(company)

            await until(gone, lambda: daemon.process.output[-4000:])
            await control.close()
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 0


async def test_a_sweep_that_loses_the_control_database_is_carried_to_its_end_later(env, company):
    before = await company.fetchval(LEFT)
    due = await company.fetchval(DUE)
    await company.execute(SLOW.format(seconds=1))
    with cluster(16) as server:
        env = env | {"RETENTIOND_CONTROL__DSN": server.dsn()}
        async with running(env) as daemon:
            await in_a_batch(company)
            stop(server)
            await daemon.until_failing("control")
            start(server)
            await company.execute("DROP TRIGGER dawdle ON request_logs")
            await until(lambda: none_due(company), lambda: daemon.process.output)
            await daemon.until_ready()
            assert before - await company.fetchval(LEFT) == due == await erased_by_ledger(env)


async def test_a_changed_schema_and_a_missing_directory_are_not_ready(env, company):
    async with running(env) as daemon:
        await until(lambda: none_due(company))
        await daemon.until_ready()
        await company.execute("ALTER TABLE request_logs RENAME created_at TO made_at")
        assert "created_at" in (await daemon.until_failing("target request_logs"))["message"]
        await company.execute("ALTER TABLE request_logs RENAME made_at TO created_at")
        await daemon.until_ready()
        await company.execute("ALTER TABLE accounts RENAME TO customers")
        assert "accounts" in (await daemon.until_failing("accounts"))["message"]
        await company.execute("ALTER TABLE customers RENAME TO accounts")
        await daemon.until_ready()


async def test_an_altered_ledger_is_found_by_the_daemon_itself(env, company):
    assert (await run_retentiond("sweep", env=env)).code == 0
    await company.execute(
        "ALTER TABLE retentiond.ledger_entries DISABLE TRIGGER ledger_append_only;"
        "UPDATE retentiond.ledger_entries SET leaf = leaf || ' ' WHERE seq = 1"
    )
    async with running(env) as daemon:
        said = await daemon.until_failing("ledger")
        assert "entry 1" in said["message"]
        assert await daemon.metric("errors_total", kind="ledger_error") >= 1
        assert await daemon.metric("ledger_verified_timestamp_seconds") == 0


async def test_a_day_has_one_heartbeat_in_the_ledger_and_grown_ledgers_are_signed_into_the_log(env, company):
    beats = "SELECT count(*) FROM retentiond.ledger_entries WHERE kind = 'heartbeat'"
    for _ in range(2):
        async with running(env) as daemon:
            await daemon.process.wait_for("ledger verified")
            await until(lambda: company.fetchval(beats))
            await until(lambda: none_due(company))
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 0
            notes = [line["note"] for line in lines(daemon) if line["event"] == "checkpoint"]
            assert int(notes[-1].split("\n")[1]) == await company.fetchval("SELECT size FROM retentiond.ledger_head")
    assert await company.fetchval(beats) == 1
    assert (await run_retentiond("ledger", "verify", env=env)).code == 0


def lines(daemon):
    return [orjson.loads(line) for line in daemon.process.output.splitlines()]


async def test_logs_are_json_lines_with_sweep_target_and_batch_or_text_for_people(env, company):
    async with running(env) as daemon:
        await daemon.process.wait_for("sweep done")
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.process.wait()
        batch = next(line for line in lines(daemon) if line["event"] == "batch done")
        assert {"sweep", "target", "batch", "records", "level", "timestamp"} <= set(batch)
    async with running(env | {"RETENTIOND_LOG_FORMAT": "console"}) as daemon:
        await daemon.process.wait_for("ready")
        with pytest.raises(orjson.JSONDecodeError):
            lines(daemon)


async def test_head_is_answered_and_errors_are_problem_documents(env, company):
    async with running(env) as daemon:
        await daemon.until_ready()
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await daemon.http.head(path)
            assert (answer.status, await answer.read()) == (200, b"")
        for method, path, status in (("GET", "/nothing", 404), ("POST", "/readyz", 405)):
            answer = await daemon.http.request(method, path)
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            problem = await answer.json()
            assert (problem["status"], problem["instance"]) == (status, path)
            assert problem["title"] and problem["detail"]


async def test_a_holds_end_resume_and_an_activation_are_seen_at_once(env, company):
    env = env | {"RETENTIOND_HOLDS__RELEASE_GRACE": "PT1S"}
    assert (await run_retentiond("sweep", env=env | {"RETENTIOND_MODE": "plan"})).code == 0
    place = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "7", "--json")
    held = (await run_retentiond(*place, env=env)).json["id"]
    mine = "SELECT count(*) FROM request_logs WHERE account_id = 7"
    async with running(env) as daemon:
        await until(lambda: daemon.metric("last_success_timestamp_seconds", target="request_logs"))
        before = await company.fetchval(mine)
        assert await daemon.metric("records_held", target="request_logs") > 0
        released = await run_retentiond("hold", "release", held, "--reason", "over", env=env)
        assert released.code == 0, released.stderr
        await until(lambda: none_due(company))
        assert await company.fetchval(mine) < before
        await until(lambda: _is(daemon, 1, "holds", state="released"))
        assert (await run_retentiond("pause", env=env)).code == 0
        await until(lambda: _is(daemon, 1, "paused"))
        await company.execute(
            "INSERT INTO request_logs (account_id, created_at) VALUES (1, now() - interval '2 years')"
        )
        assert (await run_retentiond("resume", env=env)).code == 0
        await until(lambda: none_due(company))
        assert (await run_retentiond(*place, env=env)).code == 0
        await until(lambda: _is(daemon, 1, "hold_activation_seconds_count"))
        assert await daemon.metric("hold_pending_seconds") == 0
        await daemon.until_ready()
