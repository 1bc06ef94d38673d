"""`hold place` with what can't be meant, or can't be done in time: nothing is placed, or all that is held is said."""

import pytest

from tests.services.process import run_retentiond

GIVEN = {"--matter": "m", "--reason": "r", "--account": "1"}


def place(**changed):
    given = GIVEN | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return ["hold", "place", *(word for pair in given.items() if pair[1] is not None for word in pair)]


@pytest.fixture
async def env(rig):
    await rig.company()
    async with rig.app():
        pass
    return rig.environment()


async def test_what_can_not_be_meant_is_refused_before_anything_is_placed(rig, env):
    for wrong in (
        {"account": ""},
        {"matter": " "},
        {"reason": ""},
        {"timeout": "nan"},
        {"timeout": "inf"},
        {"timeout": "-1"},
    ):
        result = await run_retentiond(*place(**wrong), env=env)
        assert (result.code, result.stdout) == (2, ""), (wrong, result.stderr)
        assert "remedy" in result.stderr
    assert await rig.db.fetchval("SELECT count(*) FROM retentiond.holds") == 0


async def test_ids_of_another_type_are_warned_of_and_hold_all(rig, env):
    result = await run_retentiond(*place(account="abc", review_by="2020-01-01"), env=env)
    assert result.code == 0, result.stderr
    assert "abc is no id of the type of logs's account column: all records of logs" in result.stderr
    assert "is past" in result.stderr
    result = await run_retentiond(*place(account=None, record="logs=x-1"), "--json", env=env)
    assert (result.code, result.json["records_matched"]) == (0, 8), result.stderr
    assert "x-1 is no id of the type of logs's key column" in result.stderr
    result = await run_retentiond(*place(), env=env)
    assert "warning" not in result.stderr
    released = await run_retentiond("hold", "release", result.stdout.split()[1], "--reason", "closed", env=env)
    assert "release_reason  closed" in released.stdout


async def test_a_hold_that_is_not_active_in_time_is_shown_as_pending(rig, env):
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.barrier SET line_changed_at = now()")
    result = await run_retentiond(*place(timeout="0"), "--json", env=env)
    assert (result.code, result.json["state"]) == (4, "pending"), result.stderr
    assert await rig.db.fetchval("SELECT state FROM retentiond.holds WHERE id = $1", result.json["id"]) == "pending"
