"""How many streams a second are deleted."""

import pytest

from retentiond.stores.cloudwatch.pace import Pacer


@pytest.fixture
def clock():
    return {"now": 0.0, "slept": []}


def pacer(clock, most):
    async def sleep(seconds):
        clock["slept"].append(seconds)
        clock["now"] += seconds

    return Pacer(most, lambda: clock["now"], sleep)


async def test_one_after_another_at_the_rate_that_is_configured(clock):
    paced = pacer(clock, 4.0)
    for _ in range(9):
        await paced.take()
    assert clock["now"] == pytest.approx(2.0)


async def test_slower_after_it_was_too_much_and_slowly_back_to_the_most(clock):
    paced = pacer(clock, 4.0)
    paced.slowed()
    assert paced.rate == 2.0
    for _ in range(20):
        paced.slowed()
    assert paced.rate == 0.5
    for _ in range(200):
        paced.passed()
    assert paced.rate == 4.0


async def test_no_slower_than_configured_where_that_is_slow(clock):
    paced = pacer(clock, 0.1)
    paced.slowed()
    assert paced.rate == 0.1
