"""Readings of targets that take long: one at a time for all who ask, kept for a while, some at once and no more.

All that is kept is kept for twenty times as long as all of it took to read: however many ask, targets are read for a
twentieth of the time at most, and who reads a thousand of them still has the first when the last is there. A request
waits for a reading, and never ends it.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from retentiond.api.problems import Refusal

T = TypeVar("T")
WAIT_SECONDS = 25.0
_AT_ONCE = 2
_WAITING = 4_096
_KEPT = 4_096
_DERIVED = 16
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 600.0
_SHARE = 19


@dataclass(frozen=True, slots=True)
class _Read:
    value: Any
    at: float
    took: float


@dataclass(slots=True)
class Shared:
    """The readings by what they are of."""

    wait_seconds: float = WAIT_SECONDS
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[Hashable, _Read] = field(default_factory=OrderedDict)
    _took: float = 0.0
    _derived: OrderedDict[Hashable, tuple[tuple[object, ...], Any]] = field(default_factory=OrderedDict)
    _running: dict[Hashable, asyncio.Task[Any]] = field(default_factory=dict)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, or gave not long ago; raises Refusal 503 where that takes too long, and what it raises."""
        kept = self._kept.get(key)
        if kept is not None and self.clock() < kept.at + min(max(self._took * _SHARE, _LEAST_SECONDS), _MOST_SECONDS):
            found: T = kept.value
            return found
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= _WAITING:
                raise _busy("too much is being asked for")
            task = asyncio.create_task(self._read(key, read))
            self._running[key] = task
            task.add_done_callback(lambda done: self._over(key, done))
        try:
            async with asyncio.timeout(self.wait_seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            raise _busy("it is still being read") from None

    def derived(self, key: Hashable, parts: Sequence[object], make: Callable[[], T]) -> T:
        """What `make` gives of these readings; made once, as long as they are the same ones."""
        known = self._derived.get(key)
        if known is not None and len(known[0]) == len(parts) and all(map(operator.is_, known[0], parts)):
            found: T = known[1]
            return found
        made = make()
        self._derived[key] = (tuple(parts), made)
        self._derived.move_to_end(key)
        if len(self._derived) > _DERIVED:
            self._derived.popitem(last=False)
        return made

    async def close(self) -> None:
        """End all readings."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        async with self._room:
            began = self.clock()
            value = await read()
        self._keep(key, _Read(value, self.clock(), self.clock() - began))
        return value

    def _keep(self, key: Hashable, read: _Read) -> None:
        before = self._kept.pop(key, None)
        self._kept[key] = read
        self._took += read.took - (before.took if before is not None else 0.0)
        if len(self._kept) > _KEPT:
            self._took -= self._kept.popitem(last=False)[1].took

    def _over(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # who waited for it has it; nobody may have waited to the end


def _busy(why: str) -> Refusal:
    return Refusal(503, why, remedy="ask again later: the reading goes on", headers={"Retry-After": "10"})
