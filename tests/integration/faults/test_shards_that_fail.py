"""A shard that is killed, cut off or refused: its sweep tells in sum what the ledger tells of it, and goes on by itself."""

import asyncio
import signal

import asyncpg
import orjson
import pytest

from retentiond.domain.permit import Unit
from retentiond.errors import Unreachable
from retentiond.stores.postgres.batch import PostgresBatch
from retentiond.sweep.events import BatchDone, Failed
from retentiond.sweep.retries import MOST
from retentiond.sweep.sweeper import Sweeper
from tests.services.daemon import running, until
from tests.services.gates import gate
from tests.services.process import start_retentiond

DUE = 200
OUTCOME_OF_A_SHARD = "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW WHEN (NEW.shard <> '')"
SOON = {"min_interval": 1}


@pytest.fixture
async def cut(apart):
    """A table that is cut into four shards of fifty records."""
    rig = apart
    await rig.company(due=DUE)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await rig.db.execute("ANALYZE logs")
    return rig


async def told_by_sweep(rig):
    """What the ledger says that each sweep has erased."""
    found = {}
    for entry in await rig.ledger():
        if entry["kind"] == "outcome":
            found[entry["sweep"]] = found.get(entry["sweep"], 0) + entry["counts"]["erased"]
    return found


async def test_a_batch_whose_worker_was_killed_before_it_told_of_it_is_in_the_sweeps_total(cut):
    await cut.sweep(mode="plan")
    async with gate(cut.control, OUTCOME_OF_A_SHARD) as stop:
        async with start_retentiond("run", env=cut.environment()) as worker:
            await stop.reached()
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
        await stop.open()
    gone = DUE + 3 - len(await cut.ids())
    assert gone in (10, 20, 30, 40), "each shard was killed in its first batch, or before its COMMIT"
    assert await told_by_sweep(cut) == {}
    await cut.let_leases_run_out()
    async with running(cut.environment()) as daemon:
        done = await daemon.process.wait_for(r'\{[^\n]*"event": "sweep done"[^\n]*\}')
        erased = await daemon.metric("records_erased_total", target="logs", tier="free")
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
    assert erased == DUE, "who found what became of it counts it"
    told = orjson.loads(done.group())
    assert told["erased"] == DUE
    assert await told_by_sweep(cut) == {told["sweep"]: DUE}
    await cut.require_told(logs=DUE)
    await cut.require_settled()


async def test_a_sweep_that_is_told_to_stop_shows_what_its_open_shards_have_come_to(cut):
    erased = 0

    def after_three(event):
        nonlocal erased
        if isinstance(event, BatchDone):
            erased += event.changed
            if erased == 30:
                app.engine.drain()

    async with cut.app(observer=after_three) as app:
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("capped", 30)
    assert list((await told_by_sweep(cut)).values()) == [30]
    assert (await cut.only()).changed == DUE
    assert list((await told_by_sweep(cut)).values()) == [DUE]


@pytest.fixture
def events():
    return []


async def test_a_shard_whose_connection_breaks_is_tried_again_within_the_sweep(cut, events):
    watcher = await asyncpg.connect(cut.dsn)
    async with gate(cut.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(cut.only(observer=events.append, sweep=SOON))
        pid = await stop.reached()
        await watcher.execute("SELECT pg_terminate_backend($1)", pid)
        await stop.open()
        outcome = await sweep
    await watcher.close()
    assert (outcome.outcome, outcome.changed, outcome.error) == ("drained", DUE, None)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.kind == "unreachable"
    assert "tried again" in failed.remedy
    assert f"1 of {MOST}" in failed.remedy
    assert list((await told_by_sweep(cut)).values()) == [DUE], "it is one sweep"
    await cut.require_settled()


async def test_a_shard_whose_commit_was_never_answered_is_tried_again_and_counts_what_that_commit_did(
    cut, events, monkeypatch
):
    commit, lost = PostgresBatch.commit, []

    async def unanswered(self):
        await commit(self)
        if not lost and await cut.db.fetchval("SELECT count(*) FROM logs") == DUE + 3 - 20:
            lost.append(self)
            raise Unreachable("the connection died after COMMIT was sent")

    monkeypatch.setattr(PostgresBatch, "commit", unanswered)
    outcome = await cut.only(observer=events.append, sweep=SOON)
    assert lost
    assert (outcome.outcome, outcome.changed, outcome.by_tier) == ("drained", DUE, {"free": DUE})
    assert sum(event.changed for event in events if isinstance(event, BatchDone)) == DUE
    assert list((await told_by_sweep(cut)).values()) == [DUE]
    assert "in_doubt" in {entry["kind"] for entry in await cut.ledger()}
    await cut.require_settled()


async def test_a_shard_that_fails_again_and_again_ends_and_the_others_do_not_wait_for_it(cut, events, monkeypatch):
    whole, order = Sweeper._batch, []

    async def failing(self, *args):
        order.append(shard := self._lease.unit.shard)
        if shard == "1/4" and self.outcome.batches == 2:
            raise Unreachable("the cable is pulled")
        return await whole(self, *args)

    monkeypatch.setattr(Sweeper, "_batch", failing)
    outcome = await cut.only(observer=events.append, sweep=SOON)
    assert (outcome.outcome, outcome.changed) == ("failed", DUE - 50 + 20)
    assert "cable" in outcome.error["message"]
    failed = [event for event in events if isinstance(event, Failed) and event.sweep is None]
    assert ["tried again" in (event.remedy or "") for event in failed] == [True] * MOST + [False]
    assert order.index("4/4") < len(order) - MOST, "meanwhile the others went on"
    assert list((await told_by_sweep(cut)).values()) == [DUE - 50 + 20]
    monkeypatch.undo()
    assert (await cut.only()).changed == 30
    await cut.require_told(logs=DUE)


async def test_a_lock_on_the_whole_table_that_ends_is_waited_out_by_the_shards(cut, events):
    """It is a lock timeout wherever it is met: in the look at the table, or in the batch."""
    other = await asyncpg.connect(cut.dsn)
    locked, batches = asyncio.Event(), 0

    def observe(event):
        nonlocal batches
        events.append(event)
        if isinstance(event, Failed):
            locked.set()

    whole = Sweeper._batch

    async def batch(self, *args):
        nonlocal batches
        if self._lease.unit.shard:
            batches += 1
            if batches == 3:
                await other.execute("BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        return await whole(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweeper, "_batch", batch)
        sweep = asyncio.create_task(cut.only(observer=observe, sweep=SOON))
        await locked.wait()
        await other.execute("ROLLBACK")
        outcome = await sweep
    await other.close()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE), outcome.error
    assert list((await told_by_sweep(cut)).values()) == [DUE]


async def test_a_shard_that_waits_for_its_next_try_is_taken_by_nobody_and_a_new_division_begins_afresh(
    cut, monkeypatch
):
    whole = Sweeper._batch

    async def failing(self, *args):
        if self._lease.unit.shard == "1/4":
            raise Unreachable("the cable is pulled")
        return await whole(self, *args)

    monkeypatch.setattr(Sweeper, "_batch", failing)
    async with cut.app() as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))

        async def third_try():
            async with cut.control_connection() as control:
                return await control.fetchval(
                    "SELECT next_due_at > now() + interval '1.5 s' FROM retentiond.units WHERE shard = '1/4'"
                )

        await until(third_try)
        async with cut.app() as other:
            assert await other.engine.sweep_shard(Unit("logs", "1/4")) is None
        app.engine.drain()
        await sweep
    monkeypatch.undo()
    cut.policy = {"classes": {"operational_logs": {"ttl": {"free": "P200D", "pro": "P365D", "enterprise": "P365D"}}}}
    await cut.approve_policy()
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 50)
    await cut.require_told(logs=DUE)
