"""No two targets over the same records: a hold on the one would not be minded by a sweep of the other.

Where each target's records lie is asked once a minute, whoever sweeps: one question at a time for each address, so
that a thousand targets need no more connections than one, and a few addresses at a time. An address that can't be
reached is asked once for all its targets, and left alone for a while: its targets can't be swept either.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from retentiond.errors import Blind, RetentiondError, Unreachable
from retentiond.stores.base import Extent, Store

log = structlog.get_logger()
_KEPT_SECONDS = 60.0
_UNREACHABLE_SECONDS = 300.0
_ADDRESSES = 16


@dataclass(slots=True)
class Overlap:
    """What is known of the extents of all targets, as of a moment ago."""

    stores: Mapping[str, Store]
    _known: dict[str, Extent] = field(default_factory=dict)
    _ask_at: dict[str, float] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def require_apart(self, name: str) -> None:
        """Raise Blind where another target is over some of the same records; Unreachable."""
        mine = await self.stores[name].extent()
        async with self._asking:
            await self._refresh(other for other in self.stores if other != name)
        for other, theirs in self._known.items():
            if other != name and mine.meets(theirs):
                raise Blind(
                    f"targets {name} and {other} are over the same records: {self.stores[name].described} and "
                    f"{self.stores[other].described} are one, or one is a part of the other",
                    remedy=f"keep one of targets.{name} and targets.{other}, or give each its own part",
                )

    async def _refresh(self, names: Iterable[str]) -> None:
        now = time.monotonic()
        stale: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if self._ask_at.get(name, now) <= now:
                stale[self.stores[name].address].append(name)
        room = asyncio.Semaphore(_ADDRESSES)

        async def ask(there: list[str]) -> None:
            async with room:
                await self._ask(there)

        await asyncio.gather(*map(ask, stale.values()))

    async def _ask(self, there: list[str]) -> None:
        """Ask for the extents of targets of one address; what can't be told stays as it was last seen."""
        for name in there:
            try:
                self._known[name] = await self.stores[name].extent()
            except Unreachable:
                again = time.monotonic() + _UNREACHABLE_SECONDS
                self._ask_at.update(dict.fromkeys(there, again))
                return
            except RetentiondError as error:
                log.debug("extent unknown", target=name, kind=error.kind)  # its own sweep will say what is wrong
            self._ask_at[name] = time.monotonic() + _KEPT_SECONDS
