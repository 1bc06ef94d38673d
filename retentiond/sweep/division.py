"""A sweep that is divided: a large table's walk of the terms is cut into shards, each a unit that any worker may take.

What a shard's worker must know lies in the control database beside the shard, so that whoever takes it over goes on
with the same sweep: its `now`, its stretch of the walk, what it may act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retentiond.domain.duration import instant, rfc3339
from retentiond.stores.base import Window
from retentiond.sweep.spec import Pace

_RECORDS_EACH = 5_000_000
_MOST_BY_SIZE = 8


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `shards` of a sweep: `leg` is its stretch, `bound` how many records it may act on (None: any number).

    `order` is what the walk went in the order of when it was cut.
    """

    name: str
    sweep: str
    now: datetime
    digest: str
    leg: Window
    shards: int
    bound: int | None
    order: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As it is kept in the control database."""
        return {
            "sweep": self.sweep,
            "now": rfc3339(self.now),
            "digest": self.digest,
            "order": list(self.order),
            "walk": self.leg.walk,
            "after": _listed(self.leg.after),
            "until": _listed(self.leg.until),
            "shards": self.shards,
            "bound": self.bound,
        }

    @classmethod
    def of(cls, name: str, kept: Mapping[str, Any]) -> Shard:
        """From what is kept."""
        leg = Window(kept["walk"], _position(kept["after"]), 0, _position(kept["until"]))
        now, order = instant(kept["now"]), tuple(kept["order"])
        return cls(name, kept["sweep"], now, kept["digest"], leg, kept["shards"], kept["bound"], order)


@dataclass(frozen=True, slots=True)
class Divided:
    """What the unit of the whole target keeps while its sweep is divided: which walk was cut, into how many shards.

    `bound` is that of what is in no shard.
    """

    sweep: str
    now: datetime
    digest: str
    walk: str
    shards: int
    bound: int | None

    def document(self) -> dict[str, Any]:
        """As it is kept in the control database."""
        return {
            "sweep": self.sweep,
            "now": rfc3339(self.now),
            "digest": self.digest,
            "walk": self.walk,
            "shards": self.shards,
            "bound": self.bound,
        }

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None, *, digest: str, after: datetime) -> Divided | None:
        """What was kept, if it is of a sweep by the same policy that was begun after that instant.

        Another is begun anew: what became due since is in no old one.
        """
        if kept is None or kept.get("digest") != digest:
            return None
        now = instant(kept["now"])
        found = cls(kept["sweep"], now, kept["digest"], kept["walk"], kept["shards"], kept["bound"])
        return found if found.now > after else None


def wanted(pace: Pace) -> tuple[int, int]:
    """About how many records a shard is to have (0: whatever it comes to), and how many shards at most."""
    return (0, pace.shards) if pace.shards else (_RECORDS_EACH, _MOST_BY_SIZE)


def names(count: int) -> Sequence[str]:
    """The shards' names, in an order that is that of texts as well."""
    width = len(str(count))
    return [f"{i:0{width}}/{count}" for i in range(1, count + 1)]


def _listed(position: tuple[str, ...] | None) -> list[str] | None:
    return None if position is None else list(position)


def _position(kept: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if kept is None else tuple(map(str, kept))
