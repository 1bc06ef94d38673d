"""Does the event loop turn? A beat in the loop, and a thread beside it that says in the log where it is stuck.

A loop that stands still answers nothing, `/healthz` neither: then the log is all there is. One that turns late is told
by `/healthz`, as 503.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()
STALLED_SECONDS = 5.0
_BEAT_SECONDS = 0.5


@dataclass(slots=True)
class Pulse:
    """When the loop turned last, by the monotonic clock."""

    stalled_seconds: float = STALLED_SECONDS
    beat_seconds: float = _BEAT_SECONDS
    beat_at: float = field(default_factory=time.monotonic)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def late(self) -> float:
        """By how many seconds the loop is late now."""
        return max(time.monotonic() - self.beat_at - self.beat_seconds, 0.0)

    @property
    def well(self) -> bool:
        """Whether it turns."""
        return self.late < self.stalled_seconds

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat and watch for as long as the block lasts; entered by the thread of the loop."""
        self.beat_at = time.monotonic()
        thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="pulse", daemon=True)
        thread.start()
        beat = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            self._over.set()
            await asyncio.to_thread(thread.join)

    async def _beat(self) -> None:
        while True:
            self.beat_at = time.monotonic()
            await asyncio.sleep(self.beat_seconds)

    def _watch(self, loops_thread: int) -> None:
        told = False
        while not self._over.wait(self.beat_seconds):
            if self.well:
                told = False
            elif not told:
                told = True
                frame = sys._current_frames().get(loops_thread)  # noqa: SLF001 - the way that faulthandler has in C
                where = "".join(traceback.format_stack(frame, limit=12)) if frame is not None else ""
                log.error("the event loop stands still", seconds=round(self.late, 1), where=where)
