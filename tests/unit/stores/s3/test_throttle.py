"""Additive increase, multiplicative decrease, by a clock that the test turns."""

from retentiond.stores.s3.throttle import Throttle


class World:
    def __init__(self):
        self.now = 0.0
        self.slept = []
        self.throttle = Throttle(lambda: self.now, self.sleep)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    async def work(self, keys, seconds):
        await self.throttle.take(keys)
        self.now += seconds
        self.throttle.passed(keys)


async def test_nothing_waits_before_a_server_complains():
    world = World()
    for _ in range(100):
        await world.work(1000, 0.1)
    assert world.slept == []
    assert world.throttle.rate is None


async def test_a_complaint_halves_what_was_asked_of_it():
    world = World()
    for _ in range(50):
        await world.work(1000, 0.1)  # 10000 keys a second
    world.throttle.slowed()
    assert 4000 <= world.throttle.rate <= 6000


async def test_complaints_of_one_moment_count_once_and_later_ones_again():
    world = World()
    await world.work(1000, 1)
    world.throttle.slowed()
    once = world.throttle.rate
    world.throttle.slowed()
    assert world.throttle.rate == once
    world.now += 2
    world.throttle.slowed()
    assert world.throttle.rate == once / 2


async def test_it_keeps_to_the_rate_and_grows_with_what_passes():
    world = World()
    await world.work(1000, 1)
    world.throttle.slowed()
    rate, began = world.throttle.rate, world.now
    for _ in range(10):
        await world.throttle.take(1000)
    assert world.now - began >= 9 * 1000 / rate
    world.throttle.passed(1000)
    assert world.throttle.rate > rate


async def test_it_never_stands_still():
    world = World()
    for _ in range(100):
        world.throttle.slowed()
        world.now += 2
    assert world.throttle.rate >= 20
