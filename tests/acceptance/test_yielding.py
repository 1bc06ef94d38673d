"""A command and a daemon beside a server that is too busy: they say why nothing moves, and end when they are told to."""

import signal

import pytest

from tests.services.daemon import running, until
from tests.services.gates import open_transaction
from tests.services.process import run_retentiond, start_retentiond

WAITING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"


@pytest.fixture
async def busy(rig):
    await rig.company(due=30)
    rig.targets["logs"]["pace"] = {"duty": 1.0, "max_batch": 10, "health": {"oldest_snapshot": 0.05}}
    return rig


@pytest.mark.parametrize("arguments", [("--json",), ()])
async def test_a_sweep_says_on_standard_error_why_it_waits_and_when_it_goes_on(busy, arguments):
    async with (
        open_transaction(busy.dsn, WAITING) as dump,
        start_retentiond("sweep", *arguments, env=busy.environment()) as process,
    ):
        await process.wait_for(r"logs: yields: a transaction of .* \(pace\.health\.oldest_snapshot\)")
        await dump.execute("COMMIT")
        assert await process.wait() == 0
        assert "logs: goes on after" in process.output
    assert await busy.ids() == [1001, 1002, 1003]


async def test_a_sweep_that_gives_up_waiting_exits_with_1_and_the_reason(busy):
    busy.targets["logs"]["pace"]["health"]["patience"] = 0.2
    async with open_transaction(busy.dsn, WAITING):
        swept = await run_retentiond("sweep", "--json", env=busy.environment())
    found = swept.json["targets"]["logs"]
    assert (swept.code, found["outcome"], found["error"]["kind"]) == (1, "capped", "strained"), swept.stderr
    assert "oldest_snapshot" in found["error"]["message"]


async def test_ctrl_c_ends_a_sweep_that_waits(busy):
    async with open_transaction(busy.dsn, WAITING), start_retentiond("sweep", env=busy.environment()) as process:
        await process.wait_for("logs: yields")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert len(await busy.ids()) == 33


async def test_the_daemon_shows_that_it_yields_stays_ready_and_drains_at_once(busy):
    async with running(busy.environment(sweep={"min_interval": 1, "max_interval": 1})) as daemon:
        await daemon.until_ready()
        await until(lambda: _above(daemon, "last_success_timestamp_seconds", 0, target="logs"))
        async with open_transaction(busy.dsn, WAITING):
            await busy.db.execute(
                "INSERT INTO logs SELECT i, 1, now() - interval '1 year' FROM generate_series(1, 9) i"
            )
            await until(lambda: _above(daemon, "yielding", 0, target="logs", reason="oldest_snapshot"))
            assert await daemon.checks() == {}
            assert await _above(daemon, "health_signal", 0.05, target="logs", reason="oldest_snapshot")
            await daemon.process.wait_for("pace.health.oldest_snapshot")
            daemon.process.send_signal(signal.SIGTERM)
            assert await daemon.process.wait() == 0
    assert len(await busy.ids()) == 12


async def _above(daemon, name, low, **labels):
    found = await daemon.metric(name, **labels)
    return found is not None and found > low
