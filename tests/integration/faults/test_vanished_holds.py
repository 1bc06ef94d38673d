"""Holds that were taken from the control database behind retentiond's back: refused, and where forced, found."""

import asyncpg
import pytest

from retentiond.control import holds
from retentiond.ledger.verify import verify_database
from tests.services.daemon import running
from tests.services.process import run_retentiond

FORCED = "ALTER TABLE retentiond.holds DISABLE TRIGGER hold_stays;"


async def placed(rig):
    await rig.company()
    async with rig.app() as app:
        return await rig.hold(app, accounts=("1",))


async def verified(rig):
    async with rig.app(enter=False) as app:
        await rig._sign(app)
        return await verify_database(app.database, app.journal.verifier)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM retentiond.holds",
        "TRUNCATE retentiond.holds",
        "SET session_replication_role = replica; DELETE FROM retentiond.holds",
    ],
)
async def test_a_hold_is_not_removed_by_sql(rig, statement):
    await placed(rig)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="holds are never removed"):
        await rig.db.execute(statement)
    assert await rig.db.fetchval("SELECT count(*) FROM retentiond.holds") == 1
    assert (await rig.only()).held == 5


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM retentiond.holds", "which is active by the ledger, is missing"),
        (
            "UPDATE retentiond.holds SET state = 'released', erasable_at = now(), ended_at = now()",
            "which is active by the ledger, is released in the table",
        ),
    ],
)
async def test_a_hold_that_was_forced_away_is_named_and_the_daemon_is_not_ready(rig, statement, said):
    hold = await placed(rig)
    assert (await verified(rig)).ok
    await rig.db.execute(FORCED + statement)
    env = rig.environment(mode="plan")
    result = await run_retentiond("ledger", "verify", "--json", env=env)
    assert result.code == 1
    assert f"hold {hold.id}, {said}" in result.json["first_break"]["what"]
    async with running(env) as daemon:
        failing = await daemon.until_failing("ledger")
        assert hold.id in failing["message"]
    assert len(await rig.ids()) == 8


async def test_a_life_of_a_hold_agrees_with_the_ledger_at_each_step(rig):
    hold = await placed(rig)
    async with rig.app() as app:
        record = app.hold_recorder("test")
        await holds.release(app.database, hold.id, "test", "over", record=record)
        assert (await verified(rig)).ok
        await holds.reinstate(app.database, hold.id, "test", "not yet", record=record)
        assert (await verified(rig)).ok
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0, record=record)
        assert len(await holds.finish_releases(app.database, record=record)) == 1
    assert (await verified(rig)).ok


async def test_a_step_taken_while_the_ledger_is_read_is_no_break(rig):
    hold = await placed(rig)
    async with rig.app() as app:

        async def meanwhile(_):
            await holds.release(app.database, hold.id, "test", "over", record=app.hold_recorder("test"))

        await rig._sign(app)
        assert (await verify_database(app.database, app.journal.verifier, meanwhile)).ok
