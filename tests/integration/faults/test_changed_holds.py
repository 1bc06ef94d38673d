"""Holds that change while a walk goes on: each time the holds are read again, however often that is."""

import pytest

from retentiond.control import barrier, holds
from retentiond.sweep import sweeper
from retentiond.sweep.sweeper import Sweeper


def changing(monkeypatch, rig, each):
    """Let the holds change before so many tries of each batch."""
    real, left = Sweeper._batch, [each]

    async def batch(self, window, way):
        if left[0]:
            left[0] -= 1
            async with self._tools.database.transaction() as tx:
                await barrier.enter_alone(tx)
                await barrier.bump(tx)
        else:
            left[0] = each
        return await real(self, window, way)

    monkeypatch.setattr(Sweeper, "_batch", batch)
    monkeypatch.setattr(sweeper, "_MAX_EPOCH_RETRIES", 3)


async def test_a_walk_outlasts_more_changes_of_holds_than_one_batch_is_tried(apart, monkeypatch):
    await apart.company(due=100)
    changing(monkeypatch, apart, 2)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 100), outcome.error
    assert outcome.batches >= 10
    await apart.require_told(logs=100)
    await apart.require_settled()


async def test_holds_that_change_before_every_try_of_one_batch_end_the_sweep(apart, monkeypatch):
    await apart.company(due=100)
    changing(monkeypatch, apart, 1000)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.error["kind"], outcome.changed) == ("failed", "epoch_moved", 0)
    await apart.require_settled()


@pytest.mark.parametrize("shards", [1, 4])
async def test_records_that_a_hold_kept_are_due_at_once_though_it_ended_when_the_sweep_had_passed_them(
    apart, monkeypatch, shards
):
    """And the next sweep, of a process that knows nothing of this one, finds the target due."""
    rig, passed = apart, False
    await rig.company(due=100)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": shards})
    await rig.db.execute("ANALYZE logs")
    real = Sweeper._batch

    async def batch(self, window, way):
        nonlocal passed
        found = await real(self, window, way)
        if found.changed and not passed:
            passed = True
            async with rig.app() as counsel:
                await holds.release(counsel.database, hold.id, "counsel", "over", grace_seconds=0)
                await holds.finish_releases(counsel.database)
        return found

    async with rig.app() as app:
        hold = await rig.hold(app, records={"logs": ("1",)})
        monkeypatch.setattr(Sweeper, "_batch", batch)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert passed
    assert outcome.changed in (99, 100)
    async with rig.control_connection() as control:
        assert await control.fetchval("SELECT next_due_at <= now() FROM retentiond.units WHERE shard = ''")
    await rig.only()
    assert await rig.ids() == [1001, 1002, 1003]
    async with rig.control_connection() as control:
        assert await control.fetchval("SELECT next_due_at > now() FROM retentiond.units WHERE shard = ''")
