"""Readings that take long: one for all who ask, kept for a while, never ended by who waits."""

import asyncio

import pytest

from retentiond.api.problems import Refusal
from retentiond.api.reading import Shared


class Slow:
    def __init__(self):
        self.begun, self.go = 0, asyncio.Event()

    async def __call__(self):
        self.begun += 1
        await self.go.wait()
        return self.begun


async def test_all_who_ask_meanwhile_get_one_reading():
    shared, slow = Shared(), Slow()
    asked = [asyncio.create_task(shared.get("plan", slow)) for _ in range(100)]
    await asyncio.sleep(0)
    slow.go.set()
    assert set(await asyncio.gather(*asked)) == {1}


async def test_what_was_read_is_kept_for_twenty_times_as_long_as_it_took():
    now, read = [0.0], []

    async def reading():
        now[0] += 10.0
        read.append(1)
        return len(read)

    shared = Shared(clock=lambda: now[0])
    assert await shared.get("plan", reading) == 1
    now[0] += 189.0
    assert await shared.get("plan", reading) == 1
    now[0] += 2.0
    assert await shared.get("plan", reading) == 2


async def test_of_many_the_first_is_still_there_when_the_last_was_read():
    now, read = [0.0], []

    def reading(number):
        async def once():
            now[0] += 1.0
            read.append(number)
            return number

        return once

    shared = Shared(clock=lambda: now[0])
    for _ in range(2):
        assert [await shared.get(number, reading(number)) for number in range(100)] == list(range(100))
    assert len(read) == 100


async def test_who_waits_too_long_is_told_so_and_the_reading_goes_on():
    shared, slow = Shared(wait_seconds=0.01), Slow()
    with pytest.raises(Refusal) as refused:
        await shared.get("plan", slow)
    assert (refused.value.status, "Retry-After" in refused.value.headers) == (503, True)
    slow.go.set()
    assert await Shared.get(shared, "plan", slow) == 1


async def test_no_more_than_two_are_read_at_once():
    shared, slow = Shared(), [Slow() for _ in range(5)]
    asked = [asyncio.create_task(shared.get(number, each)) for number, each in enumerate(slow)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert sum(each.begun for each in slow) == 2
    for each in slow:
        each.go.set()
    assert await asyncio.gather(*asked) == [1] * 5


async def test_an_error_is_told_to_all_who_wait_and_not_kept():
    async def broken():
        raise LookupError("gone")

    async def mended():
        return "there"

    shared = Shared()
    told = await asyncio.gather(*(shared.get("plan", broken) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in told] == [LookupError] * 3
    assert await shared.get("plan", mended) == "there"


def test_what_is_made_of_readings_is_made_anew_when_one_of_them_is():
    shared, made, first, second = Shared(), [], object(), object()

    def make():
        made.append(1)
        return len(made)

    assert [shared.derived("plan", [first, second], make) for _ in range(3)] == [1, 1, 1]
    assert shared.derived("plan", [first], make) == 2
    assert shared.derived("plan", [first, object()], make) == 3
    for number in range(100):
        shared.derived(number, [first], make)
    assert len(shared._derived) < 50


async def test_all_readings_end_with_the_site():
    shared, slow = Shared(), Slow()
    asked = asyncio.create_task(shared.get("plan", slow))
    await asyncio.sleep(0)
    await shared.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
