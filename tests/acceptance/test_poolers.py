"""PgBouncer in transaction mode in front of the control database, of the target, of both."""

import re
import signal

import pytest

from tests.services.archives import archived_ids, place
from tests.services.daemon import until
from tests.services.pgbouncer import pgbouncer
from tests.services.process import run_retentiond, start_retentiond

pytestmark = pytest.mark.system


@pytest.fixture(params=["control", "target", "both"])
def pooled(request, apart, postgres_server):
    """The rig with poolers in front of what the parameter says."""
    rig = apart
    with pgbouncer(postgres_server, "transaction", size=6) as front:

        def behind(dsn):
            return re.sub(r"/[^/]*$", "", front) + "/" + dsn.rpartition("/")[2]

        rig.direct = rig.dsn
        if request.param in ("control", "both"):
            rig.control = behind(rig.control)
        if request.param in ("target", "both"):
            rig.dsn = behind(rig.dsn)
        yield rig


async def company(rig, due=400, **pace):
    await rig.company(due=due)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, **pace})
    await rig.db.execute("ANALYZE logs")


async def test_a_sweep_behind_a_pooler_erases_what_is_due_and_a_hold_binds(pooled):
    await company(pooled, shards=3)
    await pooled.sweep(mode="plan")
    placed = await run_retentiond(
        "hold", "place", "--matter", "m", "--reason", "r", "--record", "logs=7", "--json", env=pooled.environment()
    )
    assert placed.code == 0, placed.stderr
    swept = await run_retentiond("sweep", "--json", env=pooled.environment())
    assert swept.code == 0, swept.stderr
    assert swept.json["targets"]["logs"]["erased"] == 399


async def test_daemons_behind_a_pooler_share_the_work_and_activate_a_hold(pooled):
    await company(pooled)
    async with (
        start_retentiond("run", env=pooled.environment()) as first,
        start_retentiond("run", env=pooled.environment()) as second,
    ):

        async def empty():
            assert first.code is None, first.output
            assert second.code is None, second.output
            return await pooled.db.fetchval("SELECT count(*) FROM logs") == 3

        await until(empty, lambda: first.output + second.output)
        placed = await run_retentiond(
            "hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--json", env=pooled.environment()
        )
        assert placed.code == 0, placed.stderr
        assert placed.json["state"] == "active"
        await pooled.db.execute("INSERT INTO logs SELECT 9999, 2, now() - interval '400 days'")
        await pooled.db.execute("INSERT INTO logs SELECT 9998, 1, now() - interval '400 days'")
        await run_retentiond("pause", env=pooled.environment())
        woken = await run_retentiond("resume", env=pooled.environment())
        assert woken.code == 0, woken.stderr

        async def swept():
            return not await pooled.db.fetchval("SELECT count(*) FROM logs WHERE id = 9999")

        await until(swept, lambda: first.output + second.output)
        for each in (first, second):
            each.send_signal(signal.SIGTERM)
            assert await each.wait() == 0, each.output
        assert "not well" not in first.output + second.output, first.output + second.output
    assert await pooled.ids() == [1001, 1002, 1003, 9998]
    await pooled.require_told(logs=401)
    await pooled.require_settled()


async def test_check_names_the_pooler(pooled):
    await company(pooled)
    await run_retentiond("sweep", env=pooled.environment())
    found = await run_retentiond("check", "--json", env=pooled.environment())
    assert "pooler" in found.stdout, found.stdout


async def test_records_are_archived_behind_a_pooler(pooled, moto_server):
    async with moto_server.bucket() as ground:
        await pooled.company(due=35)
        archive = place(moto_server, ground.name)
        pooled.target("logs", action="archive", region_group="eu", archive=archive)
        swept = await run_retentiond("sweep", "--json", env=pooled.environment())
        assert swept.code == 0, swept.stderr
        assert swept.json["targets"]["logs"]["archived"] == 35
        assert await archived_ids(ground) == list(range(1, 36))
