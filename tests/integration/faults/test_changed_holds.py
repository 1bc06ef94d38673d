"""Holds that change while a walk goes on: each time the holds are read again, however often that is."""

from retentiond.control import barrier
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
