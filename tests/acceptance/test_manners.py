"""What commands leave alone: the mode of an installation, state that isn't there, and what they can't write to."""

import asyncpg

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
