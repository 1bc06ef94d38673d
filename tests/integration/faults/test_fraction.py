"""The guard over a sweep's size on tables so large that the planner's estimate stands for their total."""

import pytest

from tests.services.sweeping import ACCOUNTS, LOGS

CLAIMED = 210_000


async def claimed(rig, due, young, **settings):
    """A table that the planner takes for CLAIMED rows, as it does after a mass delete without a vacuum."""
    rig.guards = {"max_fraction": 0.25}
    await rig.db.execute(
        ACCOUNTS + LOGS + f"INSERT INTO logs SELECT i, 1, now() - CASE WHEN i <= {due} THEN interval '400 days'"
        f" ELSE interval '1 day' END FROM generate_series(1, {due} + {young}) i; ANALYZE logs;"
    )
    await rig.db.execute("UPDATE pg_class SET reltuples = $1 WHERE oid = 'logs'::regclass", CLAIMED)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 50_000, **settings})


async def test_a_stale_estimate_does_not_let_a_whole_table_go(rig):
    await claimed(rig, CLAIMED, 0)
    await rig.db.execute("DELETE FROM logs WHERE id > 8000")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("guarded", 0)
    assert "8000 records, more than 2000" in outcome.error["message"]
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 8_000
    await rig.require_told(logs=0)


@pytest.mark.parametrize(("due", "young", "gone"), [(1_000, 2_999, 0), (1_000, 3_000, 1_000), (500, 0, 500)])
async def test_what_may_go_is_a_fraction_of_what_is_there(rig, due, young, gone):
    await claimed(rig, due, young)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained" if gone else "guarded", gone)
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == due + young - gone
    await rig.require_told(logs=gone)


async def test_what_becomes_due_meanwhile_is_bounded_by_what_is_there_too(rig):
    """Of 2 400 records 400 are due; the 2 000 that become so as the first ones go are another sweep's question."""
    await claimed(rig, 400, 2_000, max_batch=100)
    await rig.db.execute(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE accounts SET deleted_at = '2020-01-01' WHERE id = 1; RETURN NULL; END $$;"
        "CREATE TRIGGER late AFTER DELETE ON logs EXECUTE FUNCTION late()"
    )
    outcome = await rig.only()
    assert 400 <= outcome.changed <= 600
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 2_400 - outcome.changed
    await rig.require_told(logs=outcome.changed)
