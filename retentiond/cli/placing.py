"""What `hold place` waits for once the hold is placed: that it is active, and what the targets say to its scope.

Placing comes first, and each of the two goes on beside the other: a target that is slow to answer delays no more than
what is about it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import NoReturn

from retentiond.beside import beside
from retentiond.cli.matched import warn_of_unfit
from retentiond.cli.output import note
from retentiond.control import holds
from retentiond.control.holds import Waiting
from retentiond.daemon import App
from retentiond.domain.holds import Hold, HoldState
from retentiond.errors import RetentiondError, StillPending
from retentiond.sweep.spec import Target

_POLL_SECONDS = 0.2
_OPEN_AT_ONCE = 16
_FIRST_SECONDS = 5.0
"""What the first round may take where less was given: else nothing could be said of what is waited for."""


async def until_active(app: App, placed: Hold, timeout: float, *, by: str) -> Hold:
    """The hold once it is active, and warned of what does not fit the targets' columns; raises StillPending in time."""
    async with beside(_fitted(app, placed)) as fitting:
        active = await _active(app, placed, timeout, by)
        await fitting
    return active


@dataclass(slots=True)
class _Rounds:
    """Tries to activate what is pending: how many are over, and why holds wait by the last word of it."""

    app: App
    by: str
    over: int = 0
    why: dict[str, str] = field(default_factory=dict)

    async def go(self) -> NoReturn:
        """One try after another: each waits for all targets that it asks, also those that other holds wait for."""
        app = self.app
        while True:
            await app.activate_holds(app.hold_recorder(self.by), self._note)
            self.over += 1
            await asyncio.sleep(_POLL_SECONDS)

    def _note(self, hold: Hold, reasons: tuple[Waiting, ...]) -> None:
        self.why[hold.id] = "; ".join(map(_waits_for, reasons))


async def _active(app: App, placed: Hold, timeout: float, by: str) -> Hold:
    began, rounds = time.monotonic(), _Rounds(app, by)
    async with beside(rounds.go()) as going:
        while True:
            async with app.database.transaction(read_only=True) as tx:
                found = await holds.get(tx, placed.id)
            if found.state is not HoldState.PENDING:
                return found
            if going.done():
                going.result()  # It has no other end than an error.
            if time.monotonic() >= began + (timeout if rounds.over else max(timeout, _FIRST_SECONDS)):
                raise StillPending(
                    f"hold {placed.id} is placed and still pending: {rounds.why.get(placed.id) or _NOT_OVER}",
                    remedy="no new batch touches its records; the daemon goes on, see `retentiond hold show`",
                )
            await asyncio.wait({going}, timeout=_POLL_SECONDS)


_NOT_OVER = "a batch is not over, or a target has not answered"


async def _fitted(app: App, placed: Hold) -> None:
    room = asyncio.Semaphore(_OPEN_AT_ONCE)

    async def opened(target: Target) -> None:
        async with room:
            try:
                await app.engine.open(target)
            except RetentiondError as error:
                note(f"target {target.name}: {error.message}")

    await asyncio.gather(*map(opened, app.spec.targets))
    await warn_of_unfit(app, placed)


def _waits_for(reason: Waiting) -> str:
    told = reason.detail or reason.why
    return f"target {reason.target}: {told}" if reason.target else told
