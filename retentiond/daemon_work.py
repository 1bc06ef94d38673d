"""The worker's side of the daemon: what is announced, or left behind by a worker that is gone, is swept.

The queue is a doorbell: whatever it says, a unit is swept only by who gets its lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from retentiond.control import queue
from retentiond.control.overview import Overview
from retentiond.daemon import App
from retentiond.daemon_ready import LOOP
from retentiond.daemon_watch import Watch, target_check
from retentiond.domain.permit import Unit
from retentiond.sweep.scheduler import Turns

log = structlog.get_logger()
_QUEUE = "queue"
_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Work:
    """What this process is sweeping, never more than `workers.concurrency`, and the targets that it has swept.

    `allowed` says whether it may begin anything; `now` is that of the control database's clock.
    """

    app: App
    watch: Watch
    turns: Turns
    working: dict[Unit, asyncio.Task[bool]] = field(default_factory=dict)
    swept: set[str] = field(default_factory=set)
    allowed: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None
    _stopped: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def targets(self) -> Collection[str]:
        """The targets of which something is being swept here."""
        return {unit.target for unit in self.working if not unit.shard}

    @property
    def has_room(self) -> bool:
        """Whether one more may be begun, from wherever it comes."""
        return len(self.working) < self.app.settings.workers.concurrency

    def listen(self) -> None:
        """Begin to take what is announced, and go on until `refrain` or the end."""
        if self._listening is None:
            self._stop = asyncio.Event()
            self._listening = asyncio.create_task(self._listen(self._stop))

    def refrain(self) -> None:
        """Take nothing more until `listen`: what is announced is for others, and must not be taken from them."""
        self._stop.set()
        if self._listening is not None:
            self._stopped.add(self._listening)
            self._listening.add_done_callback(self._stopped.discard)
            self._listening = None

    def take_over(self, seen: Overview) -> None:
        """Begin what a worker that is gone has left behind, as far as there is room."""
        known = {target.name for target in self.app.spec.targets}
        for unit in seen.orphans:
            if unit.target in known:
                self.begin(unit)

    def begin(self, unit: Unit) -> None:
        """Sweep it in a task of its own, if there is room and nothing stands against it."""
        if unit not in self.working and self.has_room:
            task = asyncio.create_task(self.announced(unit))
            self.working[unit] = task
            task.add_done_callback(lambda _: self._over(unit, task))

    async def announced(self, unit: Unit) -> bool:
        """Sweep a unit that was announced; nothing where this process may not, knows no such target, or is at it.

        False: there is no room for it.
        """
        mine = asyncio.current_task()
        if not self.allowed or unit.target not in {target.name for target in self.app.spec.targets}:
            return True
        if unit not in self.working and not self.has_room:
            return False
        if mine is None or self.working.setdefault(unit, mine) is not mine:
            return True
        try:
            await self._sweep(unit)
        finally:
            self._over(unit, mine)
        return True

    async def stop(self) -> None:
        """Take nothing more."""
        self.allowed = False
        self.refrain()

    async def close(self, seconds: float) -> None:
        """Stop listening; what is still being swept is waited for, but not for longer."""
        self.refrain()
        if ending := list(self._stopped):
            _, late = await asyncio.wait(ending, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _over(self, unit: Unit, task: asyncio.Task[bool]) -> None:
        if self.working.get(unit) is task:
            del self.working[unit]

    async def _listen(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await queue.listen(
                    self.app.database,
                    self.announced,
                    concurrency=self.app.settings.workers.concurrency,
                    stop=stop,
                )
                self.watch.clear(LOOP, _QUEUE)
            except Exception as error:
                self.watch.fault(LOOP, error, part=_QUEUE)
            if not stop.is_set():
                log.warning("the queue ended", again_in=_AGAIN_SECONDS)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _sweep(self, unit: Unit) -> None:
        began, drained, target = time.monotonic(), False, self.app.spec.target(unit.target)
        try:
            if unit.shard:
                await self.app.engine.sweep_shard(unit)
                return
            outcome = await self.app.engine.sweep_if_free(target)
            if outcome is None:
                return
            self.swept.add(unit.target)
            drained = outcome.outcome == "drained"
        except Exception as error:
            self.watch.fault(target_check(unit.target), error)
        finally:
            if not unit.shard:
                self.turns.ended(unit.target, self.now, seconds=time.monotonic() - began, drained=drained)
