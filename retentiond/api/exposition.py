"""`/metrics` for however many ask: one text for all, made in a thread, and for a twentieth of the time at most.

Who asks now and then, as Prometheus does, waits for what there is now. Who asks without end gets what was made last, no
older than forty times as long as making it took, and waits for nothing.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Encode = Callable[[str], tuple[bytes, str]]
_SHARE, _QUICK = 19, 1
_KINDS = 8


@dataclass(frozen=True, slots=True)
class Text:
    """The text of all series, its content type, and the text as gzip, a tenth of it."""

    plain: bytes
    content_type: str
    packed: bytes


@dataclass(frozen=True, slots=True)
class _Made:
    text: Text
    at: float
    took: float


@dataclass(slots=True)
class Exposition:
    """What `encode` gives for an Accept header. `kind` tells which headers get the same."""

    encode: Encode
    kind: Callable[[str], str]
    _kept: dict[str, _Made] = field(default_factory=dict)
    _making: dict[str, asyncio.Task[_Made]] = field(default_factory=dict)

    async def get(self, accept: str) -> Text:
        """The text for that Accept header."""
        kind = self.kind(accept)
        kept, now = self._kept.get(kind), time.monotonic()
        if kept is not None and now < kept.at + kept.took * _SHARE:
            return kept.text
        making = self._making.get(kind)
        if making is None:
            making = asyncio.create_task(self._make(kind, accept))
            self._making[kind] = making
            making.add_done_callback(lambda _: self._making.pop(kind, None))
        if kept is not None and now < kept.at + 2 * kept.took * _SHARE:
            return kept.text
        return (await asyncio.shield(making)).text

    async def _make(self, kind: str, accept: str) -> _Made:
        began = time.monotonic()
        text = await asyncio.to_thread(self._encoded, accept)
        made = _Made(text, time.monotonic(), time.monotonic() - began)
        if len(self._kept) >= _KINDS:
            self._kept.clear()
        self._kept[kind] = made
        return made

    def _encoded(self, accept: str) -> Text:
        plain, content_type = self.encode(accept)
        return Text(plain, content_type, gzip.compress(plain, _QUICK))
