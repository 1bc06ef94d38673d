"""A target behind a slow network: a batch takes its round trips whatever its size, and batches stay worth them."""

import pytest

from retentiond.sweep.events import BatchDone, Overhead
from tests.services.slow import slow

DUE = 400


@pytest.mark.late
async def test_batches_do_not_shrink_to_single_records_where_each_round_trip_takes_long(apart):
    rig, events = apart, []
    await rig.company(due=DUE)
    async with slow(rig.dsn, 0.04) as far:
        # What the server itself takes to answer can't be told from the way to it: such a network needs a limit of its own.
        rig.target(
            "logs", dsn=far, pace={"duty": 1.0, "batch_seconds": 0.25, "max_batch": 100, "health": {"response": 20}}
        )
        async with rig.app(observer=events.append) as app:
            outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("drained", DUE), outcome.error
    sizes = [event.changed for event in events if isinstance(event, BatchDone) and event.changed]
    assert len(sizes) <= 30, "by single records it would be hundreds"
    assert max(sizes[3:]) >= 40, sizes
    assert max(event.seconds for event in events if isinstance(event, Overhead)) > 0.25
    await rig.require_told(logs=DUE)
