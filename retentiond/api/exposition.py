"""`/metrics` for however many ask: the text is made by one at a time, in a thread, and kept for twenty times as long as
that took. So a scrape has what there is now, and a thousand of them a second cost a twentieth of a core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Encode = Callable[[str], tuple[bytes, str]]
_SHARE = 19
_KINDS = 8


@dataclass(slots=True)
class Exposition:
    """What `encode` gives for an Accept header. `kind` tells which headers get the same."""

    encode: Encode
    kind: Callable[[str], str]
    _kept: dict[str, tuple[float, tuple[bytes, str]]] = field(default_factory=dict)
    _making: dict[str, asyncio.Task[tuple[bytes, str]]] = field(default_factory=dict)

    async def get(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type."""
        kind = self.kind(accept)
        kept = self._kept.get(kind)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        making = self._making.get(kind)
        if making is None:
            making = asyncio.create_task(self._make(kind, accept))
            self._making[kind] = making
            making.add_done_callback(lambda _: self._making.pop(kind, None))
        return await asyncio.shield(making)

    async def _make(self, kind: str, accept: str) -> tuple[bytes, str]:
        began = time.monotonic()
        found = await asyncio.to_thread(self.encode, accept)
        if len(self._kept) >= _KINDS:
            self._kept.clear()
        self._kept[kind] = (time.monotonic() + (time.monotonic() - began) * _SHARE, found)
        return found
