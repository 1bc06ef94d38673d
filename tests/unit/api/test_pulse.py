"""A loop that stands still is told of in the log, with where it stands; one that turns late by `/healthz`."""

import asyncio
import time

import structlog

from retentiond.api.pulse import Pulse


async def test_a_loop_that_stands_still_is_told_of_with_where_it_stands():
    pulse = Pulse(stalled_seconds=0.05, beat_seconds=0.01)
    with structlog.testing.capture_logs() as said:
        async with pulse.beating():
            await asyncio.sleep(0.02)
            assert pulse.well
            until = time.monotonic() + 10
            while not said and time.monotonic() < until:
                time.sleep(0.01)  # the loop does not turn meanwhile
            assert not pulse.well
            await asyncio.sleep(0.03)
            assert pulse.well
    (told,) = said
    assert told["event"] == "the event loop stands still"
    assert "test_pulse" in told["where"]
