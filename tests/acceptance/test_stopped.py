"""Workers stopped for longer than a permit lives (30 s of real time), which then go on."""

import asyncio
import signal
import time

import pytest

from tests.services.gates import gate
from tests.services.process import run_retentiond, start_retentiond

pytestmark = pytest.mark.late
_LONGER_THAN_A_PERMIT = 32.0


@pytest.mark.parametrize(
    "trigger",
    ["BEFORE DELETE ON logs FOR EACH ROW", "AFTER DELETE ON logs FOR EACH ROW"],
    ids=["in the statement", "with its delete done"],
)
async def test_a_worker_stopped_past_its_permit_is_fenced_and_takes_nothing_that_is_held(rig, trigger):
    await rig.company(due=60)
    env = rig.environment()
    async with gate(rig.dsn, trigger) as stop, start_retentiond("sweep", "--json", env=env) as worker:
        await stop.reached()
        worker.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        await stop.open()
        place = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--json")
        placed = await run_retentiond(*place, env=env)
        assert (placed.code, placed.json["state"]) == (0, "active"), placed.stderr
        assert len(await rig.ids()) == 63, "a batch whose worker was stopped must not take effect"
        await rig.db.execute(
            "INSERT INTO logs SELECT 100 + i, 2, now() - interval '400 days' FROM generate_series(1, 20) i"
        )
        await asyncio.sleep(stopped + _LONGER_THAN_A_PERMIT - time.monotonic())
        other = await run_retentiond("sweep", "--json", env=env)
        assert other.code == 0, other.stderr
        assert (other.json["targets"]["logs"]["erased"], other.json["targets"]["logs"]["held"]) == (20, 60)
        worker.send_signal(signal.SIGCONT)
        assert await worker.wait() != 0, worker.output
    assert len(await rig.ids()) == 63
    await rig.require_told(logs=20)
    await rig.require_settled()
