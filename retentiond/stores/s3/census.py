"""How many records a target has and how old the oldest is, as the last walk over all of them has shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from retentiond.stores.base import Window
from retentiond.stores.s3.reading import Found
from retentiond.stores.s3.rows import Position
from retentiond.stores.s3.walk import Taken


@dataclass(slots=True)
class _Walk:
    """One walk as far as it has come; `over` has what it came to when it was last at its end."""

    after: Position = None
    count: int = 0
    oldest: datetime | None = None
    over: tuple[int, datetime | None] | None = None


@dataclass(slots=True)
class Census:
    """What is known of all walks; nothing before each was once walked from its beginning to its end."""

    _walks: dict[str, _Walk] = field(default_factory=dict)
    total: int | None = None
    oldest: datetime | None = None

    def seen(self, walks: tuple[str, ...], window: Window, taken: Taken, found: Found) -> None:
        """A window was judged; what is due in it is taken for gone."""
        if window.until is not None:
            return
        walk = self._walks.setdefault(window.walk, _Walk())
        if window.after is None:
            walk.after, walk.count, walk.oldest = None, 0, None
        elif window.after != walk.after:
            return
        walk.count += len(taken.rows)
        walk.oldest = _older(walk.oldest, found.oldest)
        walk.after = taken.after
        if taken.after is not None:
            return
        walk.over = (walk.count, walk.oldest)
        done = [self._walks[name].over if name in self._walks else None for name in walks]
        told = [each for each in done if each is not None]
        if len(told) == len(walks):
            self.total = sum(count for count, _ in told)
            self.oldest = None
            for _, oldest in told:
                self.oldest = _older(self.oldest, oldest)


def _older(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
