"""How many records a target has, how old the oldest is, and how they lie, as walks over all of them have shown.

A walk may be in stretches (shards, a cursor that it went on from): they are put together where one begins at the end of
another, from the beginning to the end of all keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from retentiond.stores.base import Window, earliest
from retentiond.stores.s3.reading import Found
from retentiond.stores.s3.rows import Position
from retentiond.stores.s3.walk import Taken

_SAMPLES = 256


@dataclass(slots=True)
class Stretch:
    """A walk from one position to another, as far as it has come (`after`); `window` is where the last window began.

    `samples` are every so many-th position (`each`); `firsts` the oldest anchor of each tier, due or not, and `oldest`
    that of all that is not due.
    """

    begins: Position
    after: Position = None
    window: Position = None
    count: int = 0
    oldest: datetime | None = None
    firsts: dict[str, str] = field(default_factory=dict)
    samples: list[tuple[str, ...]] = field(default_factory=list)
    each: int = 100

    def add(self, window: Window, taken: Taken, found: Found) -> None:
        """A window that begins where it has come to."""
        rows = taken.rows
        first = -self.count % self.each
        self.samples += [rows.position(i) for i in range(first, len(rows), self.each)]
        while len(self.samples) > _SAMPLES:
            self.samples, self.each = self.samples[::2], self.each * 2
        self.count += len(rows)
        self.oldest = _older(self.oldest, found.oldest)
        for label, tier in found.tally.tiers.items():
            if (known := earliest(self.firsts.get(label), tier.first)) is not None:
                self.firsts[label] = known
        self.window, self.after = window.after, taken.after


@dataclass(slots=True)
class Census:
    """What is known of all walks; nothing before each was walked from its beginning to its end.

    `oldest`: of what was not due; `firsts`: by tier, of all.
    """

    _under_way: dict[tuple[str, Position], Stretch] = field(default_factory=dict)
    _over: dict[str, dict[Position, tuple[Position, Stretch]]] = field(default_factory=dict)
    total: int | None = None
    oldest: datetime | None = None
    firsts: dict[str, str] = field(default_factory=dict)

    def seen(self, walks: Sequence[str], window: Window, taken: Taken, found: Found) -> None:
        """A window was judged; what is due in it is taken for gone."""
        which = (window.walk, window.until)
        stretch = self._under_way.get(which)
        if stretch is not None and (window.after, taken.after) == (stretch.window, stretch.after):
            return  # looked at once more
        if stretch is None or window.after is None or window.after != stretch.after:
            stretch = Stretch(window.after)
        stretch.add(window, taken, found)
        if taken.after is not None:
            self._under_way[which] = stretch
            return
        self._under_way.pop(which, None)
        over = self._over.setdefault(window.walk, {})
        if stretch.begins is None and window.until is None:
            over.clear()
        over[stretch.begins] = (window.until, stretch)
        self._sum_up([whole for walk in walks if (whole := list(self._whole(walk)))], len(walks))

    def cuts(self, walk: str, parts: int) -> list[tuple[str, ...]]:
        """Positions that cut the walk into so many parts of about one size, as far as that is known."""
        weighed = [(place, stretch.each) for stretch in self._whole(walk) for place in stretch.samples]
        total, passed, found = sum(weight for _, weight in weighed), 0, list[tuple[str, ...]]()
        for place, weight in weighed:
            if passed >= total * (len(found) + 1) / parts and place not in found:
                found.append(place)
            passed += weight
        return found[: parts - 1]

    def _whole(self, walk: str) -> Iterator[Stretch]:
        """The stretches that lie end to end; nothing where some of the walk is in none."""
        over, found = self._over.get(walk, {}), list[Stretch]()
        begins: Position = None
        while len(found) <= len(over):
            if begins not in over:
                return
            begins, stretch = over[begins]
            found.append(replace(stretch))
            if begins is None:
                yield from found
                return

    def _sum_up(self, whole: Sequence[Sequence[Stretch]], walks: int) -> None:
        if len(whole) < walks:
            return
        stretches = [each for walk in whole for each in walk]
        self.total = sum(each.count for each in stretches)
        self.oldest, self.firsts = None, {}
        for each in stretches:
            self.oldest = _older(self.oldest, each.oldest)
            for label, first in each.firsts.items():
                self.firsts[label] = earliest(self.firsts.get(label), first) or first


def _older(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
