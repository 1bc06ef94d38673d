"""Log files, by the real process configured by environment variables alone: killed, stopped, held."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.services.daemon import running, until
from tests.services.logs import line, prepared
from tests.services.process import run_retentiond, start_retentiond

PLACE = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--json")
STOPPING = (sys.executable, str(Path(__file__).parents[1] / "services" / "stopping.py"))
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
async def subject(apart, tmp_path):
    """Two files of which one goes whole, and one keeps the lines of an account that pays."""
    found = await prepared(apart, tmp_path)
    found.write("app.log.1", b"".join(line(n) for n in range(10)))
    found.write("app.log-2.gz", b"".join(line(n, account="1" if n % 2 else "2", days=200) for n in range(10, 30)))
    return found


def variables(subject, **more):
    rig, logs = subject.rig, subject.rig.targets["logs"]
    flat = {
        "MODE": "enforce",
        "STATE_DIR": str(rig.state),
        "CONTROL__DSN": rig.control,
        "ACCOUNTS__DSN": rig.dsn,
        "ACCOUNTS__TABLE": "public.accounts",
        "ACCOUNTS__DELETED_AT": "deleted_at",
        "GUARDS__MAX_FRACTION": "1.0",
        **{
            f"TARGETS__LOGS__{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in logs.items()
            if name != "pace"
        },
    }
    return {f"RETENTIOND_{name}": value for name, value in flat.items()} | more


def stopped_at(subject, where):
    return variables(subject, STOP_AT=where, PYTHONPATH=ROOT)


async def stopped(worker):
    def is_stopped():
        return psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED

    async def look():
        return is_stopped()

    await until(look, lambda: worker.output)


KEPT = {n for n in range(10, 30) if not n % 2}


async def test_a_daemon_erases_what_is_due_says_so_and_ends_on_sigterm(subject):
    async with running(variables(subject)) as daemon:

        async def done():
            return await subject.left() == KEPT

        await until(done, lambda: daemon.process.output)
        await daemon.until_ready()

        async def told():
            return await daemon.metric("records_erased_total", target="logs", tier="free") == 20

        await until(told)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
    await subject.rig.require_told(logs=20)


async def test_commands_tell_of_lines_as_of_rows(subject):
    env = variables(subject)
    counted = await run_retentiond("sweep", "--json", env={**env, "RETENTIOND_MODE": "plan"})
    assert (counted.code, counted.json["targets"]["logs"]["would_erase"]) == (0, 20), counted.stderr
    plan = await run_retentiond("plan", "--json", env=env)
    assert plan.code == 0, plan.stderr
    promises = await run_retentiond("promises", "--json", env=env)
    rows = {row["tier"]: row for row in promises.json["promises"] if row["class"] == "operational_logs"}
    assert (rows["free"]["overdue"], rows["pro"]["overdue"], rows["pro"]["oldest_known"]) == (20, 0, True)
    one = await run_retentiond("explain", "logs", "app.log-2.gz:2", "--json", env=env)
    assert (one.code, one.json["verdict"], one.json["tier"]) == (0, "erase", "free"), one.stderr
    file = await run_retentiond("explain", "logs", "app.log-2.gz", "--json", env=env)
    assert (file.code, file.json["verdict"], file.json["tier"]) == (0, "keep", "pro"), file.stderr
    for unknown in ("app.log-2.gz:99", "other.log", "../app.log.1"):
        told = await run_retentiond("explain", "logs", unknown, env=env)
        assert told.code == 2, told.stderr
    check = await run_retentiond("check", "--json", env=env)
    assert [each for each in check.json["findings"] if each["severity"] == "error"] == [], check.stdout
    held = await run_retentiond(*PLACE, env=env)
    assert (held.code, held.json["state"], held.json["records_matched"]) == (0, "active", 20), held.stderr
    named = await run_retentiond(
        "hold", "place", "--matter", "n", "--reason", "r", "--record", "logs=app.log.1:1", "--json", env=env
    )
    assert (named.code, named.json["records_matched"]) == (0, 30), "files and lines change their names"


@pytest.mark.parametrize("moment", ["before", "between", "after"])
@pytest.mark.parametrize("file", ["app.log.1", "app.log-2.gz"])
async def test_a_worker_killed_around_the_rename_leaves_each_line_counted_once(subject, moment, file):
    (subject.folder / ("app.log.1" if file != "app.log.1" else "app.log-2.gz")).unlink()
    due, kept = (10, set()) if file == "app.log.1" else (10, KEPT)
    async with start_retentiond("sweep", "--json", env=stopped_at(subject, moment), prefix=STOPPING) as worker:
        await stopped(worker)
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    await subject.rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=variables(subject))
    assert result.code == 0, result.stderr + result.stdout
    assert await subject.left() == kept
    assert subject.ours() == []
    await subject.rig.require_told(logs=due)
    await subject.rig.require_settled()


@pytest.mark.parametrize("moment", ["before", "between"])
async def test_a_hold_waits_for_a_worker_that_is_stopped_and_for_none_that_is_gone(subject, moment):
    env, whole = variables(subject), await subject.left()
    async with start_retentiond("sweep", "--json", env=stopped_at(subject, moment), prefix=STOPPING) as worker:
        await stopped(worker)
        waiting = await run_retentiond(*PLACE, "--timeout", "1", env=env)
        assert waiting.code == 4, waiting.stdout
        assert "is there, and has not said yet what came of it" in waiting.stderr
        listed = await run_retentiond("permit", "list", "--json", env=env)
        assert [each["fence"] for each in listed.json["permits"]] == ["presence"]
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    again = await run_retentiond(*PLACE, env=env)
    assert (again.code, again.json["state"]) == (0, "active"), again.stderr
    holds = await run_retentiond("hold", "list", "--json", env=env)
    assert {each["state"] for each in holds.json["holds"]} == {"active"}
    await subject.rig.let_leases_run_out()
    after = await run_retentiond("sweep", "--json", env=env)
    assert after.code == 0, after.stderr
    assert await subject.left() == whole, "what the worker had begun with is held as all else is"
    assert subject.ours() == []
    await subject.rig.require_settled()


async def test_one_that_is_stopped_and_goes_on_erases_what_it_had_written_down_and_the_hold_is_active_then(subject):
    env = variables(subject)
    async with start_retentiond("sweep", "--json", env=stopped_at(subject, "before"), prefix=STOPPING) as worker:
        await stopped(worker)
        placing = asyncio.create_task(run_retentiond(*PLACE, env=env))
        async with subject.rig.control_connection() as control:

            async def pending():
                return await control.fetchval("SELECT count(*) FROM retentiond.holds WHERE state = 'pending'")

            await until(pending)
        worker.send_signal(signal.SIGCONT)
        assert await worker.wait() == 0, worker.output
    placed = await placing
    assert (placed.code, placed.json["state"]) == (0, "active"), placed.stderr
    assert await subject.left() == KEPT
    await subject.rig.require_told(logs=20)


async def test_lines_are_anonymised_once(subject):
    subject.rig.targets["logs"] |= {
        "action": "anonymise",
        "anonymise": {"fields": {"ip": {"truncate_ip": True}, "account_id": None}},
    }
    env = variables(subject)
    result = await run_retentiond("sweep", "--json", env=env)
    assert (result.code, result.json["targets"]["logs"]["anonymised"]) == (0, 20), result.stderr
    found = [json.loads(each) for path in subject.files() for each in subject.lines(path)]
    assert len(found) == 30
    assert {each["ip"] for each in found if each["account_id"] is None} == {"192.0.2.0"}
    assert {each["key"] for each in found if each["account_id"] is not None} == KEPT
    again = await run_retentiond("sweep", "--json", env=env)
    assert again.json["targets"]["logs"]["anonymised"] == 0
    await subject.rig.require_told(logs=20)
