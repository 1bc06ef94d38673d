"""Work in threads, and who waits for it."""

import asyncio
import threading

import pytest

from retentiond.stores.files.ground import in_thread


async def test_who_is_cancelled_again_and_again_still_waits_for_the_end_of_the_work():
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        may_end.wait(30)
        ended.set()

    waiting = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 30)
    try:
        for _ in range(3):
            waiting.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
    finally:
        may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_what_the_work_raises_is_raised():
    def work():
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        await in_thread(work)
    assert await in_thread(lambda: 7) == 7
