"""How many keys a second a prefix may be asked to give up: additive increase, multiplicative decrease.

S3 bounds requests per prefix and says SlowDown, for a request or for single keys of one. Without a limit until the
first of those; from then on half of what was asked of it in the last seconds, a little more with each that passes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

_LEAST = 20.0
"""Keys a second below which it does not go: slower, a permit would not see the end of a batch."""
_GROWTH = 0.05
"""Of the rate, for each second's worth of keys that has passed."""
_LOOK_BACK = 5.0
_ONE_CAUSE = 1.0
"""Answers that come this close together complain of the same load."""


class Throttle:
    """Shared by all that erase under one prefix. `rate` is in keys a second, None while there is no limit."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self.rate: float | None = None
        self.slowed_times = 0
        self._taken: deque[tuple[float, int]] = deque()
        self._free_at = 0.0
        self._slowed_at = float("-inf")

    async def take(self, keys: int) -> None:
        """Wait until so many keys may be asked for."""
        now = self._monotonic()
        if self.rate is not None:
            at = max(now, self._free_at)
            self._free_at = at + keys / self.rate
            if at > now:
                await self._sleep(at - now)
        self._note(keys)

    def slowed(self) -> None:
        """The server said that it is too much."""
        now = self._monotonic()
        if now - self._slowed_at < _ONE_CAUSE:
            return
        self._slowed_at = now
        self.slowed_times += 1
        self.rate = max(_LEAST, (self._recent(now) if self.rate is None else self.rate) / 2)
        self._free_at = max(self._free_at, now + _ONE_CAUSE)

    def passed(self, keys: int) -> None:
        """So many went through."""
        if self.rate is not None:
            self.rate += keys * _GROWTH

    def _note(self, keys: int) -> None:
        now = self._monotonic()
        self._taken.append((now, keys))
        while self._taken and self._taken[0][0] < now - _LOOK_BACK:
            self._taken.popleft()

    def _recent(self, now: float) -> float:
        """Keys a second of late."""
        if not self._taken:
            return 2 * _LEAST
        return sum(keys for _, keys in self._taken) / max(now - self._taken[0][0], 1.0)
