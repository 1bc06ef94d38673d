"""A walk over what a target's keys begin with, window by window, with pages fetched before they are asked for.

A window ends where a key ends, as far as its size allows: whether a delete marker may go depends on all versions of its
key. What was listed and not used stays for the next window, unless it is too old to erase by.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from retentiond.stores.s3.ahead import Ahead
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.inventory.picture import Picture
from retentiond.stores.s3.inventory.source import Inventory
from retentiond.stores.s3.rows import Chunk, Listing, Position, Rows, fetch, read, until

KEYS, UPLOADS = "keys", "uploads"
"""The walks: over objects (or all their versions), and over uploads that nobody completed."""
MOST = 12_000
"""Rows of a window at most, so that memory does not depend on how many records there are."""
_AHEAD = 12
"""Pages: a window's worth, so that listing goes on all the while that a window is erased."""
_FRESH_SECONDS = 30.0
"""How old a listing may be that is erased by."""
_AGAIN_SECONDS = 5.0
"""For how long a window may be looked at again without listing it anew: a hold came meanwhile."""
_MOST_IDLE = 8


@dataclass(frozen=True, slots=True)
class Taken:
    """A window's rows; `after` is where the walk goes on. `torn` are keys of which it has not all rows.

    `picture`: the inventory that the rows are of; None: they were listed.
    """

    rows: Rows
    after: Position
    torn: frozenset[str]
    requests: int
    picture: Picture | None = None


class Pages:
    """The listing of one walk, for one reader at a time; with a picture, the walk over that."""

    def __init__(self, bucket: Bucket, what: Listing, head: str, end: Position, picture: Picture | None = None) -> None:
        self._picture = picture
        self._bucket, self._what, self._head, self._end = bucket, what, head, read(end)
        self._ahead: Ahead[Chunk] = Ahead(self._fetch, _AHEAD)
        self._asked = self._told = 0
        self._begins: Position = None
        self._last: tuple[Position, int] = (None, 0)
        self._rows: Rows | None = None
        self._more: Position = None
        self._ended = False
        self._listed: deque[tuple[int, float]] = deque()
        self.over = False
        """Whether the last window was the end of the walk."""

    def offset(self, after: Position) -> int | None:
        """How far into what is at hand the position is; None where it is not there."""
        if self._rows is None:
            return None
        if after == self._begins:
            return 0
        place, offset = self._last
        return offset if after is not None and after == place else None

    def _is_stale(self, offset: int) -> bool:
        """Whether what is at hand from there on is too old to erase by; a window looked at again is sooner."""
        age = time.monotonic() - self._listed[0][1] if self._listed else 0.0
        return age > (_FRESH_SECONDS if offset else _AGAIN_SECONDS)

    async def take(self, after: Position, size: int) -> Taken:
        """The next window; raises what listing raises."""
        offset = self.offset(after)
        if offset is None or self._rows is None or self._is_stale(offset):
            await self._ahead.close()
            if offset:
                # Windows are so slow that what is fetched ahead is wasted.
                self._ahead = Ahead(self._fetch, 1)
            self._rows, self._more, self._ended = Rows([], [], [], []), read(after), False
            self._listed.clear()
        elif offset:
            self._drop(offset)
        self._begins, self._last = after, (None, 0)
        wanted = min(size, MOST)
        # One row more tells whether the last key ends there.
        while not self._ended and len(self._rows) < wanted + (self._what == "versions"):
            await self._extend()
        cut, torn = self._cut(wanted, after)
        rows = self._rows.part(0, cut)
        ends = self._ended and cut == len(self._rows)
        # Where the server gave nothing and there is more, the listing has raised.
        place = None if ends or not cut else rows.position(cut - 1)
        self._last = (place, cut)
        self.over = place is None
        told, self._told = self._told, self._asked
        return Taken(rows, place, torn, self._asked - told, self._picture)

    async def close(self) -> None:
        """Stop fetching, and forget what was fetched; it is of no use any more."""
        self._rows = None
        await self._ahead.close()
        picture, self._picture = self._picture, None
        if picture is not None:
            await picture.left()

    async def _extend(self) -> None:
        chunk = await self._ahead.page(self._more)
        if time.monotonic() - chunk.at > _FRESH_SECONDS:
            await self._ahead.close()
            self._ahead = Ahead(self._fetch, 1)
            chunk = await self._ahead.page(self._more)
        assert self._rows is not None
        self._rows = self._rows.plus(chunk.rows)
        self._more, self._ended = chunk.after, chunk.after is None
        self._listed.append((len(chunk.rows), chunk.at))

    def _drop(self, count: int) -> None:
        """Forget the first rows of what is at hand."""
        assert self._rows is not None
        self._rows = self._rows.part(count, len(self._rows))
        while count and self._listed:
            rows, at = self._listed.popleft()
            if rows > count:
                self._listed.appendleft((rows - count, at))
            count -= min(rows, count)

    async def _fetch(self, after: Position) -> Chunk:
        if self._picture is not None:
            chunk = await self._picture.fetch(after)
        else:
            self._asked += 1
            chunk = await fetch(self._bucket, self._what, self._head, after)
        return chunk if self._end is None else until(chunk, self._end)

    def _cut(self, wanted: int, after: Position) -> tuple[int, frozenset[str]]:
        """Where the window ends, and the keys of which rows are missing at either end of it."""
        assert self._rows is not None
        keys = self._rows.keys
        cut = min(wanted, len(keys))
        if self._what != "versions" or not cut:
            return cut, frozenset()
        torn = set()
        began = read(after)
        if began is not None and keys[0] == began[0]:
            torn.add(keys[0])
        if cut < len(keys) and keys[cut] == keys[cut - 1]:
            start = cut - 1
            while start and keys[start - 1] == keys[cut]:
                start -= 1
            if start:
                cut = start
            else:
                torn.add(keys[cut])
        return cut, frozenset(torn)


class Walks:
    """The listings of one target that are under way, each taken up again where its reader has left it."""

    def __init__(self, head: str, inventory: Inventory | None = None) -> None:
        """With an inventory walks over keys are over that, where it can be had."""
        self._head, self._inventory = head, inventory
        self._idle: list[tuple[tuple[Bucket, Listing, Position, Picture | None], Pages]] = []

    @asynccontextmanager
    async def at(self, bucket: Bucket, what: Listing, after: Position, end: Position) -> AsyncIterator[Pages]:
        """The listing whose next window begins after that position, for as long as the block lasts."""
        picture = None
        if self._inventory is not None and what != "uploads":
            picture = await self._inventory.picture(what)
        which = (bucket, what, end, picture)
        found = next((each for each in self._idle if each[0] == which and each[1].offset(after) is not None), None)
        if found is not None:
            self._idle.remove(found)
            if picture is not None:
                await picture.left()  # it has taken it once already
        # Where there is another picture now, the walk goes on in that, from the same position.
        pages = found[1] if found is not None else Pages(bucket, what, self._head, end, picture)
        await self._forget_retired()
        try:
            yield pages
        except BaseException:
            await pages.close()
            raise
        if pages.over:
            await pages.close()
            return
        self._idle.append((which, pages))
        while len(self._idle) > _MOST_IDLE:
            await self._idle.pop(0)[1].close()

    async def _forget_retired(self) -> None:
        for each in [each for each in self._idle if each[0][3] is not None and each[0][3].retired]:
            self._idle.remove(each)
            await each[1].close()

    async def close(self) -> None:
        """Give up all listings."""
        while self._idle:
            await self._idle.pop()[1].close()
