"""Pages fetched before they are asked for: a list takes as long as a round trip, and each needs the end of the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

Position = tuple[str, ...] | None


class Page(Protocol):
    """What any listing gives."""

    @property
    def after(self) -> Position:
        """Where the next page begins, None at the end."""


P = TypeVar("P", bound=Page)


class Ahead(Generic[P]):
    """Fetches up to `depth` pages beyond the one that was asked for last. Bound to one event loop, for one reader."""

    def __init__(self, fetch: Callable[[Position], Awaitable[P]], depth: int = 4) -> None:
        self._fetch, self._depth = fetch, depth
        self._task: asyncio.Task[None] | None = None
        self._pages: asyncio.Queue[P | Exception] = asyncio.Queue(depth)
        self._next: Position = None
        self._running = False

    async def page(self, after: Position) -> P:
        """The page at a position; one that was not expected makes it begin anew there. Raises what fetching raised."""
        if not self._running or after != self._next:
            await self.close()
            self._begin(after)
        found = await self._pages.get()
        if isinstance(found, Exception):
            await self.close()
            raise found
        self._next = found.after
        if found.after is None:
            await self.close()
        return found

    async def close(self) -> None:
        """Stop fetching, and forget what was fetched."""
        task, self._task, self._running = self._task, None, False
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _begin(self, after: Position) -> None:
        self._pages = asyncio.Queue(self._depth)
        self._running = True
        self._task = asyncio.create_task(self._run(after, self._pages))

    async def _run(self, after: Position, pages: asyncio.Queue[P | Exception]) -> None:
        while True:
            found: P | Exception
            try:
                found = await self._fetch(after)
            except Exception as error:
                found = error
            await pages.put(found)
            if isinstance(found, Exception) or found.after is None:
                return
            after = found.after
