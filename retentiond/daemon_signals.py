"""SIGTERM and SIGINT: the first lets the daemon drain, a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_AT_ONCE_SECONDS = 2.0
"""What a process that was told twice may still take to give its connections back; what is open then is cut off."""


@dataclass(slots=True)
class Signals:
    """The signals that this process got."""

    _first: asyncio.Event = field(default_factory=asyncio.Event)
    _second: asyncio.Event = field(default_factory=asyncio.Event)
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _number: int = 0

    def install(self) -> None:
        """Take both signals over, in the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._got, number)

    @property
    def stopping(self) -> bool:
        """Whether there was one."""
        return self._first.is_set()

    @property
    def hurried(self) -> bool:
        """Whether there was a second one."""
        return self._second.is_set()

    @property
    def exit_code(self) -> int:
        """0 after a drain, 128 + the number of the signal that cut it short."""
        return 128 + self._number if self.hurried else 0

    async def stopped_within(self, seconds: float) -> bool:
        """Wait so long for the first one, or until `nudge`; whether it came."""
        try:
            await asyncio.wait_for(self._nudged.wait(), seconds)
        except TimeoutError:
            return False
        if not self.stopping:
            self._nudged.clear()
        return self.stopping

    def nudge(self) -> None:
        """End the wait of `stopped_within`: there is something to do."""
        self._nudged.set()

    async def wait(self, tasks: Iterable[asyncio.Task[Any]], seconds: float) -> set[asyncio.Task[Any]]:
        """Wait for the tasks, at most so long, and no longer than until a second signal; those not done."""
        pending = set(tasks)
        hurry = asyncio.create_task(self._wait_second())
        try:
            async with asyncio.timeout(seconds):
                while pending and not self.hurried:
                    await asyncio.wait({*pending, hurry}, return_when=asyncio.FIRST_COMPLETED)
                    pending = {task for task in pending if not task.done()}
        except TimeoutError:
            return {task for task in pending if not task.done()}
        finally:
            hurry.cancel()
        return pending

    async def _wait_second(self) -> None:
        await self._second.wait()

    def _got(self, number: int) -> None:
        if not self._first.is_set():
            self._first.set()
            self._nudged.set()
            return
        self._number = number
        self._second.set()
        # Whatever hangs: transactions that are open roll back when the connection breaks, as in a crash.
        asyncio.get_running_loop().call_later(_AT_ONCE_SECONDS, os._exit, 128 + number)
