"""The daemon with its clock two years ahead: it erases nothing, ends no hold, says so, and is not ready."""

import asyncio

import aiohttp
import pytest

from tests.services.process import run_retentiond, start_retentiond

pytestmark = pytest.mark.system
AHEAD = ["faketime", "-f", "+2y"]


async def test_a_daemon_two_years_ahead_erases_nothing_and_is_not_ready(rig):
    await rig.company()
    async with start_retentiond("run", env=rig.environment(), prefix=AHEAD) as daemon:
        address = (await daemon.wait_for(r"http://127\.0\.0\.1:\d+")).group()
        await daemon.wait_for("sweep done")
        async with aiohttp.ClientSession(address) as session:
            answer = await session.get("/readyz")
            assert answer.status == 503
            assert "clock" in str((await answer.json())["checks"]["target logs"])
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0)


async def test_a_hold_in_its_release_grace_does_not_end_by_a_clock_that_is_ahead(rig):
    await rig.company()
    async with rig.app() as app:
        hold = await rig.hold(app, accounts=("1",))
    released = await run_retentiond("hold", "release", hold.id, "--reason", "settled", env=rig.environment())
    assert released.code == 0, released.stderr
    async with start_retentiond("run", env=rig.environment(), prefix=AHEAD) as daemon:
        await daemon.wait_for("sweep done")
        await asyncio.sleep(3)  # a few rounds of the daemon's loop, each of which looks for holds to end
        assert await rig.db.fetchval("SELECT state FROM retentiond.holds") == "releasing"
    outcome = await rig.only()
    assert (outcome.changed, outcome.held) == (0, 5)


async def test_records_that_only_a_clock_ahead_calls_expired_are_kept_when_it_is_right_again(rig):
    await rig.company(due=0, young=8)
    result = await run_retentiond("sweep", "--json", env=rig.environment(), prefix=AHEAD)
    assert (result.code, result.json["targets"]["logs"]["outcome"]) == (3, "guarded")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert len(await rig.ids()) == 8
