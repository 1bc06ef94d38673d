"""Log groups, by the real process configured by environment variables alone: swept, explained, held, killed."""

import signal

import pytest

from tests.services.daemon import running, until
from tests.services.log_groups import log_ground, prepared
from tests.services.process import run_retentiond, start_retentiond
from tests.services.s3_faults import Fault
from tests.services.strict_logs import strict

PLACE = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "2", "--json")


def of_a_sweep(asked):
    return asked.action == "DeleteLogStream" and b"probe" not in asked.body


@pytest.fixture
async def subject(apart, moto_server):
    """Twelve that are due and three that are not, behind what AWS checks; account 2 has a stream that is not due."""
    async with log_ground(moto_server) as ground, strict(moto_server) as proxy:
        found = await prepared(apart, ground, endpoint_url=proxy.server.url, unfenced=False)
        found.proxy = proxy
        await found.records(due=12)
        await ground.stream("2", "002001", 5)
        yield found


def variables(subject):
    """The configuration, a variable for each value."""
    rig, logs = subject.rig, subject.rig.targets["logs"]
    flat = {
        "MODE": "enforce",
        "STATE_DIR": str(rig.state),
        "CONTROL__DSN": rig.control,
        "ACCOUNTS__DSN": rig.dsn,
        "ACCOUNTS__TABLE": "public.accounts",
        "ACCOUNTS__DELETED_AT": "deleted_at",
        "GUARDS__MAX_FRACTION": "1.0",
        **{f"TARGETS__LOGS__{name.upper()}": str(value) for name, value in logs.items() if name != "pace"},
        "TARGETS__LOGS__PACE__RECORDS_PER_SECOND": "200",
    }
    return {f"RETENTIOND_{name}": value for name, value in flat.items()}


async def test_commands_tell_of_log_groups(subject):
    env, head = variables(subject), subject.ground.head
    fresh = await run_retentiond("check", "--json", env={**env, "RETENTIOND_MODE": "plan"})
    assert not [each for each in fresh.json["findings"] if each["subject"] == "logs"], fresh.stdout
    counted = await run_retentiond("sweep", "--json", env={**env, "RETENTIOND_MODE": "plan"})
    assert counted.json["targets"]["logs"]["would_erase"] == 12, counted.stderr
    assert counted.json["targets"]["logs"]["retention"] == {"2557": 2}
    plan = await run_retentiond("plan", env=env)
    assert "what is due takes about 1 s at 200 records a second" in plan.stderr
    assert "2 groups of records would be told to erase by themselves after 2557 days" in plan.stderr
    for record, verdict in ((f"{head}1:000001", "erase"), (f"{head}1:001001", "keep"), (f"{head}2", "keep")):
        explained = await run_retentiond("explain", "logs", record, "--json", env=env)
        assert (explained.code, explained.json["verdict"]) == (0, verdict), explained.stderr
    check = await run_retentiond("check", "--json", env=env)
    assert check.code == 0, check.stdout
    promises = await run_retentiond("promises", "--json", env=env)
    rows = {row["tier"]: row for row in promises.json["promises"] if row["class"] == "operational_logs"}
    assert (rows["free"]["overdue"], rows["pro"]["overdue"]) == (12, 0)


async def test_a_daemon_erases_sets_retention_and_a_hold_that_is_placed_beside_it_removes_it(subject):
    env = variables(subject)
    async with running(env) as daemon:

        async def done():
            groups = await subject.ground.groups()
            return await subject.left() == {1001, 1002, 1003, 2001} and set(groups.values()) == {2557}

        await until(done, lambda: daemon.process.output)
        held = await run_retentiond(*PLACE, env=env)
        assert (held.code, held.json["state"], held.json["records_matched"]) == (0, "active", 1), held.stderr
        assert await subject.ground.groups() == {"1": 2557, "2": None}
        await daemon.until_ready()
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert f"{subject.ground.head}1" not in daemon.process.output, "a name may hold an account"
    await subject.rig.require_told(logs=12)
    check = await run_retentiond("check", "--json", env=env)
    assert [each for each in check.json["findings"] if each["severity"] == "error"] == []


@pytest.mark.parametrize("moment", ["stopped before", "stopped after"])
async def test_a_worker_killed_between_a_deletion_and_its_outcome(subject, moment):
    env = variables(subject)
    subject.proxy.arm(Fault(moment, about=of_a_sweep))
    async with start_retentiond("sweep", env=env) as worker:
        await subject.proxy.reached.wait()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    await subject.proxy.release()  # the service gets it, or has long had it
    await subject.let_time_pass()
    await subject.rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=env)
    assert result.code == 0, result.stderr + result.stdout
    assert await subject.left() == {1001, 1002, 1003, 2001}
    await subject.rig.require_told(logs=12)
    await subject.rig.require_settled()
