"""How many log streams a second are deleted: no more than configured, and fewer after a ThrottlingException.

The service's quotas are of an AWS account in a region, so whoever else uses them has what is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

_LEAST: Final = 0.5
_GROWTH: Final = 1.05


class Pacer:
    """Shared by all batches of a target. `rate` is in streams a second."""

    def __init__(
        self,
        most: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._most, self._monotonic, self._sleep = most, monotonic, sleep
        self.rate = most
        self._free_at = 0.0

    async def take(self) -> None:
        """Wait until one may be asked for."""
        now = self._monotonic()
        at = max(now, self._free_at)
        self._free_at = at + 1 / self.rate
        if at > now:
            await self._sleep(at - now)

    def slowed(self) -> None:
        """The service said that it is too much."""
        self.rate = max(min(_LEAST, self._most), self.rate / 2)

    def passed(self) -> None:
        """One went through."""
        self.rate = min(self._most, self.rate * _GROWTH)
