"""What commands leave alone: the mode of an installation, state that isn't there, and what they can't write to."""

import asyncpg
import pytest

from tests.services.process import run_retentiond


async def mode_of(rig):
    connection = await asyncpg.connect(rig.control)
    try:
        return await connection.fetchval("SELECT mode FROM retentiond.flags")
    finally:
        await connection.close()


async def test_a_sweep_in_plan_mode_leaves_an_enforcing_installation_enforcing(rig):
    await rig.company()
    assert (await rig.only()).changed == 5
    await rig.db.execute("INSERT INTO logs SELECT i, 1, now() - interval '1 year' FROM generate_series(1, 2) i")
    before = await rig.ledger()
    swept = await run_retentiond("sweep", "--json", env=rig.environment(mode="plan"))
    assert (swept.code, swept.json["targets"]["logs"]["would_erase"]) == (0, 2), swept.stderr
    assert await mode_of(rig) == "enforce"
    modes = [entry for entry in await rig.ledger() if entry["kind"] == "mode"]
    assert modes == [entry for entry in before if entry["kind"] == "mode"]
    assert len(await rig.ids()) == 5


LOOKING = (["check"], ["plan"], ["promises"], ["explain", "logs", "1"])
PLACE = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1")


@pytest.mark.parametrize("command", LOOKING, ids=lambda each: each[0])
async def test_looking_in_plan_mode_makes_no_state_where_there_is_none(rig, command, tmp_path):
    """Neither in the configured database nor in a folder of the user's own, and a hold is not placed in nothing."""
    await rig.company()
    result = await run_retentiond(*command, "--json", env=rig.environment(mode="plan"))
    assert result.code in (0, 1), result.stderr
    assert "no control state yet: holds and remembered accounts are not known" in result.stderr
    assert not await rig.db.fetchval("SELECT true FROM pg_namespace WHERE nspname = 'retentiond'")
    assert list(rig.state.iterdir()) == []
    home = tmp_path / "home"
    home.mkdir()
    alone = rig.environment(mode="plan", control={}, state_dir=None) | {"HOME": str(home), "TMPDIR": str(tmp_path)}
    result = await run_retentiond(*command, env=alone)
    assert result.code in (0, 1), result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]
    assert (await run_retentiond(*PLACE, env=alone)).code == 4


async def test_looking_goes_by_the_state_that_there_is_and_needs_no_key_of_it(rig, tmp_path):
    await rig.company()
    async with rig.app() as app:
        await rig.hold(app, accounts=("1",))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plan = await run_retentiond("plan", "--json", env=rig.environment(mode="plan", state_dir=str(elsewhere)))
    assert (plan.code, plan.json["targets"]["logs"]["held"]) == (0, 5), plan.stderr
    assert "no control state" not in plan.stderr
    assert list(elsewhere.iterdir()) == []


async def test_an_older_state_is_not_taken_for_none(rig):
    await rig.company()
    async with rig.app():
        pass
    await rig.db.execute(
        "DELETE FROM retentiond.migrations WHERE version = (SELECT max(version) FROM retentiond.migrations)"
    )
    assert (await run_retentiond("plan", env=rig.environment(mode="plan"))).code == 4


async def test_with_no_target_check_says_that_nothing_is_configured_and_no_hold_is_placed(rig):
    bare = rig.environment(mode="plan", accounts=None)
    checked = await run_retentiond("check", "--json", env=bare)
    assert (checked.code, [each["subject"] for each in checked.json["findings"]]) == (1, ["targets"])
    async with rig.app(mode="plan", accounts=None):
        pass
    placed = await run_retentiond(*PLACE, env=bare)
    assert (placed.code, placed.stdout) == (2, "")
    assert await rig.db.fetchval("SELECT count(*) FROM retentiond.holds") == 0
