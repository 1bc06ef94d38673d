"""One window of log streams, or of groups: looked at, judged again under the permit, asked to go until an instant.

The expiry of the requests is the permit's life, counted from before the permit was asked for, by the service's own
clock (`ServerClock.earliest`). So it can't be later than the permit's deadline, whatever the clocks of this host and of
the control database say, and however long this process stood still in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Refused, RetentiondError
from retentiond.stores.base import AccountDirectory, Intended, Tally, Window
from retentiond.stores.clock import Expiry
from retentiond.stores.cloudwatch import ceilings, deleting
from retentiond.stores.cloudwatch.ceilings import Ceiling, Ceilings, Memory, Remembered
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.deleting import Done, Sent, absent, as_now
from retentiond.stores.cloudwatch.items import Items
from retentiond.stores.cloudwatch.place import Place
from retentiond.stores.cloudwatch.reading import page_of, told
from retentiond.stores.cloudwatch.rows import Stream
from retentiond.stores.cloudwatch.walk import CEILINGS, Groups, Row, Taken, Walks
from retentiond.stores.judging import Judged, Page, judge_page
from retentiond.stores.rulings import Rulings, State, Subject

MOST: Final = 1000
"""Streams of a window at most."""
_MARGIN: Final = timedelta(seconds=2)
"""Between the requests' expiry and the permit's deadline: a signature has whole seconds."""
_BUSY_SECONDS: Final = 15.0
"""Of a permit's life, what may be spent with deleting at the target's pace."""
_LOOK_SECONDS: Final = 8.0
"""How long it may take to see that what was deleted is not listed any more: the lease goes on running."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all batches of a target stand on; `looking` gives the rulings of a plan that looks go by."""

    name: str
    config: CloudwatchTarget
    place: Place
    groups: Groups
    walks: Walks
    directory: AccountDirectory | None
    memory: Memory | None
    looking: Callable[[TargetPlan], Rulings]
    seen: Callable[[Window, Page, Judged, Tally], None]

    async def ceilings(self) -> Ceilings:
        """What is wanted of groups."""
        all_of_them = await self.memory.remembered() if self.memory is not None else {}
        remembered = {name: each for name, each in all_of_them.items() if self.groups.fits(name)}
        return Ceilings(self.config, self.groups, self.directory, remembered)


@dataclass(slots=True)
class _Look:
    """What a window was found to hold, and `at` which instant of the service's clock."""

    taken: Taken
    page: Page
    found: Judged
    at: datetime

    def tally(self) -> Tally:
        """As it is told."""
        return told(self.found, self.taken.after, self.taken.requests)


@dataclass(slots=True)
class CloudwatchBatch:
    """See `stores.base.ExpiringBatch`."""

    _ground: Ground
    _plan: TargetPlan
    _look: _Look | None = None
    _items: Items | None = None
    _rulings: Rulings | None = None
    _ceilings: list[Ceiling] = field(default_factory=list)
    _remembered: Mapping[str, Remembered] = field(default_factory=dict)
    _after: tuple[str, ...] | None = None
    _at: datetime | None = None
    _window: timedelta | None = None

    async def looked(self, window: Window) -> Tally:
        """Read and judge the window; where something is due, see that it can be erased here at all."""
        tally = await (self._looked_at_groups(window) if window.walk == CEILINGS else self._looked_at_streams(window))
        if tally.selected or tally.ceilings:
            self._window = await self._ground.place.window()
            # The permit is asked for after this.
            self._at = (await self._ground.place.endpoint()).clock.earliest()
        return tally

    async def _looked_at_streams(self, window: Window) -> Tally:
        ground, rulings = self._ground, self._ground.looking(self._plan)
        endpoint = await ground.place.endpoint()
        async with ground.walks.at(endpoint, window.after, window.until) as listing:
            taken = await listing.take(min(window.size, MOST))
            page, found = await _judged(ground, rulings, taken.rows)
            allowed = self._allowed()
            if len(found.due) > allowed:
                taken = listing.cut(taken, found.due[allowed - 1] + 1)
                page, found = await _judged(ground, rulings, taken.rows)
        self._look = look = _Look(taken, page, found, endpoint.clock.earliest())
        ground.seen(window, page, found, look.tally())
        return look.tally()

    async def _looked_at_groups(self, window: Window) -> Tally:
        endpoint = await self._ground.place.endpoint()
        before, wanted = endpoint.requests, await self._ground.ceilings()
        begins = window.after[0] if window.after else None
        changes = await wanted.page(endpoint, self._plan, begins, self._allowed())
        self._ceilings = changes.wanted
        self._after = after = (changes.last,) if changes.last is not None else None
        requests = endpoint.requests - before
        return Tally(ceilings=ceilings.counted(self._ceilings), after=after, requests=requests)

    def _allowed(self) -> int:
        """How many requests that destroy a permit's life allows."""
        return max(int(self._ground.place.pacer.rate * _BUSY_SECONDS), 1)

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """Judge it once more: by the streams and groups as they are now, and by what the directory says now."""
        assert permit.epoch == self._plan.epoch
        endpoint = await self._ground.place.endpoint()
        if window.walk == CEILINGS:
            wanted = await self._ground.ceilings()
            owned = [await self._ground.groups.now(endpoint, each.group) for each in self._ceilings]
            self._ceilings = await wanted.wanted(self._plan, [each for each in owned if each is not None])
            self._remembered = wanted.remembered
            document = ceilings.document(self._ceilings) if self._ceilings else {}
            return Intended(0, document, shortened=sum(each.shortens for each in self._ceilings))
        look = self._look
        assert look is not None, "it was not looked at"
        rows = await self._rows_now(look)
        self._rulings = Rulings(self._plan)
        look.page, look.found = await _judged(self._ground, self._rulings, rows)
        self._items = items = Items([rows[i].stream for i in look.found.due], look.found.labels)
        return Intended(len(items), items.document() if len(items) else {})

    async def _rows_now(self, look: _Look) -> list[Row]:
        """The window's rows, those that are due as they are now; what is gone is not among them."""
        endpoint, due = await self._ground.place.endpoint(), set(look.found.due)
        rows = look.taken.rows
        names = dict.fromkeys(rows[i].stream.group for i in look.found.due)
        owned = {name: await self._ground.groups.now(endpoint, name) for name in names}
        streams = iter(await as_now(endpoint, [rows[i].stream for i in look.found.due]))
        now: list[Row] = []
        for index, row in enumerate(rows):
            if index not in due:
                now.append(row)
                continue
            _, stream = next(streams)
            group = owned[row.stream.group]
            if stream is not None and group is not None:
                now.append(Row(stream, group))
        return now

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Ask for what was intended, until the permit's deadline by the service's clock; each item is accounted for."""
        assert self._at is not None, "nothing was due"
        expiry = Expiry(self._at, self._at + (permit.deadline - permit.issued_at) - _MARGIN)
        endpoint = await self._ground.place.endpoint()
        sent = Sent(endpoint, expiry, self._window, self._ground.place.pacer)
        before = endpoint.requests
        tally = await (self._set(sent) if window.walk == CEILINGS else self._erased(sent, salt))
        return replace(tally, requests=tally.requests + endpoint.requests - before)

    async def _set(self, sent: Sent) -> Tally:
        done, read_back = await ceilings.set_all(sent, self._ceilings, self._ground.memory, self._remembered)
        came_to = Counter(each.outcome for each in done)
        pairs = list(zip(self._ceilings, done, strict=True))
        failed = came_to["failed"] + came_to["denied"]
        return Tally(
            ceilings=ceilings.counted([each for each, found in pairs if found.outcome == "erased"]),
            shortened=sum(each.shortens for each, found in pairs if found.outcome in ("erased", "unknown")),
            after=self._after,
            locked=came_to["passed over"],
            failed=failed,
            in_doubt=came_to["unknown"],
            verified="retention read back" if read_back else "retention answered",
            refusal=ceilings.refusal(self._ground.name, done) if failed else None,
        )

    async def _erased(self, sent: Sent, salt: str) -> Tally:
        look, items = self._look, self._items
        assert look is not None
        assert items is not None, "nothing was intended"
        done = await deleting.delete(sent, items.streams, self._still_due)
        came_to = Counter(each.outcome for each in done)
        gone = [i for i, each in enumerate(done) if each.outcome == "erased"]
        went = items.went(gone, salt)
        failed = came_to["failed"] + came_to["denied"] + came_to["unread"]
        return replace(
            look.tally(),
            selected=len(items),
            changed=went.changed,
            by_tier=went.by_tier,
            bytes=0,
            oldest=went.oldest,
            newest=went.newest,
            ids_digest=went.ids_digest,
            gone=came_to["gone"] + came_to["changed"],
            locked=came_to["passed over"],
            failed=failed,
            in_doubt=came_to["unknown"],
            verified=await _verified(sent, [items.streams[i] for i in gone]),
            refusal=_refusal(self._ground.name, done) if failed else None,
        )

    def _still_due(self, index: int, stream: Stream) -> bool:
        """Whether it is due and no hold is on it, with the newest event that was just read in it."""
        look, rulings = self._look, self._rulings
        assert look is not None
        assert rulings is not None
        at = look.found.due[index]
        page, anchor = look.page, stream.anchor
        subject: Subject = page.accounts[at] if page.tiers is None else (page.accounts[at], page.tiers[at])
        ruling = rulings.of([subject])[subject]
        return rulings.state(ruling, anchor) is State.DUE and not ruling.held(stream.id, anchor)


async def _judged(ground: Ground, rulings: Rulings, rows: Sequence[Row]) -> tuple[Page, Judged]:
    page = page_of(ground.config, rows)
    await rulings.ask(page.accounts, ground.directory)
    return page, judge_page(rulings, page)


async def _verified(sent: Sent, streams: Sequence[Stream]) -> str:
    """How it is known that they went; what can't be looked at now rests on the answers alone."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            gone = await absent(sent.endpoint, streams)
    except (RetentiondError, TimeoutError):
        gone = False
    return "absent" if gone else "answered"


def _refusal(name: str, done: Sequence[Done]) -> Refused:
    """Why some could not be erased, by the first of them."""
    first = next(each for each in done if each.outcome in ("denied", "failed", "unread"))
    if first.outcome == "unread":
        return Refused(
            f"target {name}: the newest event of a log stream can't be read right before it would go",
            remedy="grant logs:GetLogEvents on the log groups of the target",
        )
    if first.outcome == "denied":
        return Refused(
            f"target {name}: deleting log streams is not allowed ({first.code})",
            remedy="grant logs:DeleteLogStream on the log groups of the target",
        )
    return Refused(
        f"target {name}: the service does not delete log streams: {first.code}",
        remedy="see the documentation of DeleteLogStream for this code",
    )
