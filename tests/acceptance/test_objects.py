"""Objects, by the real process configured by environment variables alone: killed, stopped, two at a time, held."""

import asyncio
import signal

import pytest

from tests.services.buckets import prepared
from tests.services.daemon import running, until
from tests.services.process import run_retentiond, start_retentiond
from tests.services.s3_faults import Fault, faulty

PLACE = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--json")


def of_a_sweep(asked):
    return asked.erases and b"probe" not in asked.body


@pytest.fixture(params=[False, True], ids=["objects", "versions"])
async def subject(request, apart, moto_server):
    """Thirty that are due and three that are not, and the way to them."""
    async with moto_server.bucket(versioned=request.param) as ground, faulty(moto_server) as proxy:
        found = await prepared(apart, ground)
        found.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        found.proxy = proxy
        await found.records(due=30)
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
        "TARGETS__LOGS__PACE__MAX_BATCH": "10",
    }
    return {f"RETENTIOND_{name}": value for name, value in flat.items()}


async def swept(subject, due=30):
    """A fresh process finishes what was begun, and the ledger holds each object once."""
    await subject.let_time_pass()
    await subject.rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=variables(subject))
    assert result.code == 0, result.stderr + result.stdout
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=due)
    await subject.rig.require_settled()
    verified = await run_retentiond("ledger", "verify", "--json", env=variables(subject))
    assert (verified.code, verified.json["ok"]) == (0, True), verified.stderr


async def test_a_daemon_erases_what_is_due_says_so_and_ends_on_sigterm(subject):
    async with running(variables(subject)) as daemon:

        async def done():
            return await subject.left() == {1001, 1002, 1003}

        await until(done, lambda: daemon.process.output)
        await daemon.until_ready()

        async def told():
            return await daemon.metric("records_erased_total", target="logs", tier="free") == 30

        await until(told)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert "/1/0000" not in daemon.process.output
    await subject.rig.require_told(logs=30)


async def test_commands_tell_of_objects_as_of_rows(subject):
    env = variables(subject)
    counted = await run_retentiond("sweep", "--json", env={**env, "RETENTIOND_MODE": "plan"})
    assert (counted.code, counted.json["targets"]["logs"]["would_erase"]) == (0, 30), counted.stderr
    plan = await run_retentiond("plan", "--json", env=env)
    assert plan.code == 0, plan.stderr
    promises = await run_retentiond("promises", "--json", env=env)
    rows = {row["tier"]: row for row in promises.json["promises"] if row["class"] == "operational_logs"}
    assert (rows["free"]["overdue"], rows["free"]["oldest_known"], rows["pro"]["oldest_known"]) == (30, True, True)
    explained = await run_retentiond("explain", "logs", subject.key(1), "--json", env=env)
    assert (explained.code, explained.json["verdict"], explained.json["tier"]) == (0, "erase", "free")
    check = await run_retentiond("check", "--json", env=env)
    assert "unfenced" in check.stdout
    held = await run_retentiond(*PLACE, env=env)
    assert (held.code, held.json["state"], held.json["records_matched"]) == (0, "active", 33), held.stderr


@pytest.mark.parametrize("moment", ["stopped before", "stopped after"])
@pytest.mark.parametrize("command", ["sweep", "run"])
async def test_a_worker_killed_between_a_deletion_and_its_outcome(subject, command, moment):
    subject.proxy.arm(Fault(moment, about=of_a_sweep))
    async with start_retentiond(command, env={"RETENTIOND_HTTP__PORT": "0", **variables(subject)}) as worker:
        await subject.proxy.reached.wait()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    await subject.proxy.release()  # the server gets it, or has long had it
    await swept(subject)


async def test_a_hold_placed_in_the_middle_of_a_listing_keeps_its_objects(subject):
    def listing(asked):
        return asked.method == "GET" and "max-keys" in asked.target

    subject.proxy.arm(Fault("stopped after", about=listing))
    async with start_retentiond("sweep", "--json", env=variables(subject)) as worker:
        await subject.proxy.reached.wait()
        placed = await run_retentiond(*PLACE, env=variables(subject))
        assert (placed.code, placed.json["state"]) == (0, "active"), placed.stderr
        await subject.proxy.release()
        assert await worker.wait() == 0, worker.output
    assert len(await subject.left()) == 33
    assert not any(map(of_a_sweep, subject.proxy.passed))


async def test_a_hold_placed_while_a_deletion_is_stopped_is_not_active_before_its_requests_are_over(subject):
    subject.proxy.arm(Fault("stopped before", about=of_a_sweep))
    env = variables(subject)
    async with start_retentiond("sweep", "--json", env=env) as worker:
        await subject.proxy.reached.wait()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    placing = asyncio.create_task(run_retentiond(*PLACE, env=env))
    async with subject.rig.control_connection() as control:

        async def pending():
            return await control.fetchval("SELECT count(*) FROM retentiond.holds WHERE state = 'pending'")

        await until(pending)
    await subject.proxy.release()
    left = await subject.left()
    assert len(left) == 23
    await subject.let_time_pass()
    placed = await placing
    assert (placed.code, placed.json["state"]) == (0, "active"), placed.stderr
    await subject.rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=env)
    assert (result.code, result.json["targets"]["logs"]["held"]) == (0, 20), result.stderr
    assert await subject.left() == left
    await subject.rig.require_told(logs=10)


async def test_two_daemons_on_one_bucket_erase_each_object_once(subject):
    env = variables(subject)
    async with running(env) as one, running(env) as other:

        async def done():
            return await subject.left() == {1001, 1002, 1003} and await subject.rig.nobody_works()

        await until(done, lambda: one.process.output + other.process.output)
        for daemon in (one, other):
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 0
    await subject.rig.require_told(logs=30)
    await subject.rig.require_settled()


async def test_sigterm_in_a_batch_lets_it_finish_and_ends_with_0(subject):
    subject.proxy.arm(Fault("stopped before", about=of_a_sweep))
    async with running(variables(subject)) as daemon:
        await subject.proxy.reached.wait()
        daemon.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        await subject.proxy.release()
        assert await daemon.process.wait() == 0
    left = await subject.left()
    assert len(left) < 33
    await subject.rig.require_told(logs=33 - len(left))
    await subject.rig.require_settled()
    await swept(subject)


async def test_sigterm_does_not_wait_for_requests_that_were_not_answered(subject):
    subject.proxy.arm(Fault("lost", about=of_a_sweep))
    async with running(variables(subject)) as daemon:

        async def in_doubt():
            async with subject.rig.control_connection() as control:
                return len(await subject.left()) < 33 and await control.fetchval(
                    "SELECT prepared IS NOT NULL FROM retentiond.permits WHERE ended_at IS NULL"
                )

        await until(in_doubt, lambda: daemon.process.output)
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait(60) == 0
    await swept(subject)
