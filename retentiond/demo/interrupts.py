"""SIGINT, SIGTERM and SIGHUP while the demo runs: the first ends its work, never its cleaning up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Interrupts:
    """`number` is the signal that came, None when none did; `hurry` is set by a second one."""

    console: Console
    number: int | None = None
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _work: asyncio.Task[object] | None = None

    def end(self, work: asyncio.Task[object]) -> None:
        """The task that a signal cancels; at once when one has come before."""
        self._work = work
        if self.number is not None:
            work.cancel()

    def _got(self, number: int) -> None:
        if self.number is not None:
            self.hurry.set()
            return
        self.number = number
        # A terminal that is gone can't be written to, and what is left to do doesn't need it.
        self.console.quiet = self.console.quiet or number == signal.SIGHUP
        if self._work is not None:
            self._work.cancel()


@contextmanager
def interrupts(console: Console) -> Iterator[Interrupts]:
    """Take the signals over, in the running loop, until left."""
    loop = asyncio.get_running_loop()
    found = Interrupts(console)
    for number in _SIGNALS:
        loop.add_signal_handler(number, found._got, number)  # noqa: SLF001 - a function of the same class
    try:
        yield found
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
