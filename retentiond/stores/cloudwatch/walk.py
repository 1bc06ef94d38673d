"""A walk over a target's log streams, window by window, in the order of groups and of streams in them.

The service lists a group's streams from a token and from no name, so a walk that goes on in another process begins the
group anew and passes over what is before its position. At least one stream more than a window has is at hand before it
is given out: so the token's own last stream is never one that the window's batch deletes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from retentiond.stores.cloudwatch import api
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.rows import Group, Stream
from retentiond.stores.rulings import Account, Untold

STREAMS, CEILINGS = "streams", "ceilings"
"""The walks: over the records, and over groups for what they erase by themselves."""
Position = tuple[str, ...] | None
_MOST_IDLE: Final = 4


@dataclass(frozen=True, slots=True)
class Owned:
    """A group of the target: whose it is and of which tier, as its name, its tags or the configuration tell."""

    group: Group
    account: Account
    tier: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A stream, and the group that it is in."""

    stream: Stream
    owned: Owned

    @property
    def position(self) -> tuple[str, ...]:
        """Where a walk is that has come to it."""
        return (self.stream.group, self.stream.name)


@dataclass(frozen=True, slots=True)
class Taken:
    """A window's streams; `after` is where the walk goes on. `requests`: how many calls it took."""

    rows: tuple[Row, ...]
    after: Position
    requests: int


class Groups:
    """The groups of one target, with what they say of accounts and tiers."""

    def __init__(self, config: CloudwatchTarget) -> None:
        self._names, self._tags = config.names(), config.tags
        self._account = config.account
        self.head = self._names.head

    def fits(self, name: str) -> bool:
        """Whether a group of that name is one of the target's."""
        return self._names.read(name) is not None

    async def page(self, endpoint: Endpoint, token: str | None, begins: str | None) -> tuple[list[Owned], str | None]:
        """A page of those from a name on, itself among them, and the token of the next."""
        groups, token = await api.groups(endpoint, self.head, token=token)
        found = [
            await self.owned(endpoint, each)
            for each in groups
            if (begins is None or each.name >= begins) and self.fits(each.name)
        ]
        return [each for each in found if each is not None], token

    async def every(self, endpoint: Endpoint) -> list[Owned]:
        """All of them."""
        found, token = await self.page(endpoint, None, None)
        while token is not None:
            more, token = await self.page(endpoint, token, None)
            found += more
        return found

    async def now(self, endpoint: Endpoint, name: str) -> Owned | None:
        """That group as it is now; None where it is gone, or is none of the target's."""
        group = await api.group(endpoint, name)
        return await self.owned(endpoint, group) if group is not None else None

    async def owned(self, endpoint: Endpoint, group: Group) -> Owned | None:
        """A group with what it says; None where its name is none of the target's."""
        read = self._names.read(group.name)
        if read is None:
            return None
        account: Account = read[0] if read[0] is not None else self._account
        tier = read[1]
        if self._tags is not None:
            group = replace(group, tags=await api.tags(endpoint, group))
            if self._tags.account is not None:
                account = group.tags.get(self._tags.account, Untold.TAG)
            if self._tags.tier is not None:
                tier = group.tags.get(self._tags.tier)
        return Owned(group, account, tier)


@dataclass
class Listing:
    """A walk under way: groups that are still to come (None: not listed yet), and streams at hand."""

    endpoint: Endpoint
    groups: Groups
    until: Position
    begins: Position
    _at_hand: deque[Row] = field(default_factory=deque)
    _waiting: deque[Owned] | None = None
    _groups_token: str | None = None
    _group: Owned | None = None
    _token: str | None = None
    _ended: bool = False

    async def take(self, size: int) -> Taken:
        """The next so many."""
        before = self.endpoint.requests
        rows: list[Row] = []
        while len(rows) < size:
            while not self._ended and len(self._at_hand) < 2:
                await self._extend()
            if not self._at_hand:
                break
            rows.append(self._at_hand.popleft())
        while not self._ended and not self._at_hand:
            await self._extend()
        self.begins = rows[-1].position if rows and self._at_hand else None
        return Taken(tuple(rows), self.begins, self.endpoint.requests - before)

    def cut(self, taken: Taken, count: int) -> Taken:
        """The first so many of what was just taken, at least one; the rest is for the next window."""
        if count >= len(taken.rows):
            return taken
        self._at_hand.extendleft(reversed(taken.rows[count:]))
        self.begins = taken.rows[count - 1].position
        return replace(taken, rows=taken.rows[:count], after=self.begins)

    async def _extend(self) -> None:
        """One page more; it may have nothing of this walk in it."""
        if self._group is None and not await self._next_group():
            return
        assert self._group is not None
        streams, self._token = await api.streams(self.endpoint, self._group.group.name, token=self._token)
        rows = [Row(each, self._group) for each in streams]
        self._at_hand += [each for each in rows if self._inside(each.position)]
        if self._token is None:
            self._group = None

    async def _next_group(self) -> bool:
        """Whether there is one now; else the walk is at its end, or a page of groups had none."""
        if self._waiting is None or (not self._waiting and self._groups_token is not None):
            begins = self.begins[0] if self.begins is not None else None
            found, self._groups_token = await self.groups.page(self.endpoint, self._groups_token, begins)
            self._waiting = deque(found)
        if self._waiting:
            self._group, self._token = self._waiting.popleft(), None
            beyond = self.until is not None and self._group.group.name > self.until[0]
            self._ended = beyond
            return not beyond
        self._ended = self._groups_token is None
        return False

    def _inside(self, position: tuple[str, ...]) -> bool:
        return (self.begins is None or position > self.begins) and (self.until is None or position <= self.until)


class Walks:
    """The walks of one target that are under way, each taken up again where its reader has left it."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._idle: list[Listing] = []

    @asynccontextmanager
    async def at(self, endpoint: Endpoint, after: Position, until: Position) -> AsyncIterator[Listing]:
        """The walk whose next window begins after that position, for as long as the block lasts.

        After an error it is not gone on with.
        """
        found = next(
            (
                each
                for each in self._idle
                if after is not None and (each.endpoint, each.until, each.begins) == (endpoint, until, after)
            ),
            None,
        )
        if found is not None:
            self._idle.remove(found)
        listing = found if found is not None else Listing(endpoint, self._groups, until, after)
        yield listing
        if listing.begins is not None:
            self._idle = [*self._idle, listing][-_MOST_IDLE:]

    def close(self) -> None:
        """Give up all walks."""
        self._idle.clear()
