"""Shards that no worker takes up any more: what was left open in them is settled by who sweeps the target next."""

import asyncio

import asyncpg
import pytest

from retentiond.control import units
from retentiond.control.orphans import orphaned
from retentiond.domain.permit import Unit
from retentiond.errors import Unreachable
from retentiond.stores.postgres.batch import PostgresBatch
from retentiond.sweep.events import BatchDone, Failed
from retentiond.sweep.sweeper import Sweeper

DUE = 200
LONGER = {"classes": {"operational_logs": {"ttl": {"free": "P200D", "pro": "P365D", "enterprise": "P365D"}}}}


class Killed(BaseException):
    """What no handler of errors meets."""


@pytest.fixture
async def cut(apart):
    """A table that is cut into four shards of fifty records."""
    rig = apart
    await rig.company(due=DUE)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await rig.db.execute("ANALYZE logs")
    return rig


@pytest.fixture
def killed_in(monkeypatch):
    """A function that kills the process in the third batch of a shard, just before or just after its COMMIT."""

    def prepare(shard, moment):
        batches = 0
        batch, commit = Sweeper._batch, PostgresBatch.commit
        dying = False

        async def counting(self, *args):
            nonlocal batches, dying
            batches += self._lease.unit.shard == shard
            dying = batches == 3 and self._lease.unit.shard == shard
            return await batch(self, *args)

        async def committing(self):
            if dying and moment == "before":
                raise Killed
            await commit(self)
            if dying:
                raise Killed

        monkeypatch.setattr(Sweeper, "_batch", counting)
        monkeypatch.setattr(PostgresBatch, "commit", committing)
        monkeypatch.setattr(units, "release", lambda *_: asyncio.sleep(0))  # a killed process gives no lease back

    yield prepare
    monkeypatch.undo()


async def open_permits(rig):
    async with rig.control_connection() as control:
        return [
            row["shard"] for row in await control.fetch("SELECT shard FROM retentiond.permits WHERE ended_at IS NULL")
        ]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("then", ["other shards", "none"])
async def test_a_batch_of_a_shard_that_no_later_division_has_is_settled_by_the_next_sweep(
    cut, killed_in, monkeypatch, moment, then
):
    killed_in("3/4", moment)
    with pytest.raises(Killed):
        await cut.only()
    monkeypatch.undo()
    assert await open_permits(cut) == ["3/4"]
    await cut.let_leases_run_out()
    cut.policy = LONGER
    await cut.approve_policy()
    if then == "other shards":
        cut.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 2})
    else:
        await cut.db.execute("DELETE FROM pg_statistic WHERE starelid = 'logs'::regclass")
    outcome = await cut.only()
    assert outcome.outcome == "drained"
    assert await cut.ids() == [1001, 1002, 1003]
    await cut.require_settled()
    await cut.require_told(logs=DUE)


async def test_a_shard_that_failed_with_its_batch_unsettled_is_settled_within_the_sweep_and_counted(cut, monkeypatch):
    """Its connection is lost after COMMIT, and then for as long as it is tried: the next one would be of another cut."""
    commit, batch, seen = PostgresBatch.commit, Sweeper._batch, []
    lost = False

    async def following(self, *args):
        self._store.shard = self._lease.unit.shard
        if lost and self._lease.unit.shard == "2/4":
            raise Unreachable("the cable is pulled")
        return await batch(self, *args)

    async def unanswered(self):
        nonlocal lost
        await commit(self)
        if self._store.shard == "2/4" and not lost:
            lost = True
            raise ValueError("what no try again is for")

    monkeypatch.setattr(Sweeper, "_batch", following)
    monkeypatch.setattr(PostgresBatch, "commit", unanswered)
    outcome = await cut.only(observer=seen.append)
    assert lost
    assert (outcome.outcome, outcome.changed) == ("failed", DUE - 50 + 10)
    await cut.require_settled()
    await cut.require_told(logs=DUE - 50 + 10)
    assert sum(event.changed for event in seen if isinstance(event, BatchDone)) == DUE - 50 + 10


async def test_a_shard_whose_transaction_is_still_open_keeps_no_other_record_and_is_said(cut, killed_in, monkeypatch):
    killed_in("3/4", "before")
    with pytest.raises(Killed):
        await cut.only()
    monkeypatch.undo()
    monkeypatch.setattr("retentiond.sweep.recovery._PATIENCE_SECONDS", 0.5)
    async with cut.control_connection() as control, cut.app() as app:
        number = await control.fetchval("SELECT number FROM retentiond.permits WHERE ended_at IS NULL")
        stuck = await asyncpg.connect(cut.dsn)
        key = app.engine.stores["logs"].lock_key(number)
        await stuck.execute("SELECT pg_advisory_lock($1)", key)
        await cut.let_leases_run_out()
        cut.policy = LONGER
        await cut.approve_policy()
        cut.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 2})
        seen = []
        outcome = await cut.only(observer=seen.append)
        assert outcome.outcome == "drained"
        assert await cut.ids() == [1001, 1002, 1003]
        assert await open_permits(cut) == ["3/4"]
        assert any("still open" in event.message for event in seen if isinstance(event, Failed))
        await stuck.close()
    assert (await cut.only()).outcome == "drained"
    await cut.require_settled()
    await cut.require_told(logs=DUE)


async def test_shards_that_somebody_has_or_that_the_sweep_goes_on_with_are_no_orphans(cut, killed_in, monkeypatch):
    killed_in("3/4", "after")
    with pytest.raises(Killed):
        await cut.only()
    monkeypatch.undo()
    async with cut.app() as app, cut.control_connection() as control:
        sweep = await control.fetchval("SELECT sweep ->> 'sweep' FROM retentiond.units WHERE shard = '3/4'")

        async def found(of):
            async with app.database.transaction() as tx:
                return await orphaned(tx, "logs", sweep=of)

        assert await found("another") == [], "its lease is not over"
        await cut.let_leases_run_out()
        assert await found(sweep) == [], "who takes the shard settles it, and counts it to the sweep"
        assert await found("another") == [Unit("logs", "3/4")]
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE), "it is one sweep, with that batch in it"
