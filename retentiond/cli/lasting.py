"""How long records take at a bounded pace, and how long a store keeps them: what plans and sweeps say of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

from retentiond.sweep.spec import Pace

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def lasting(records: int, pace: Pace) -> str | None:
    """How long so many records take at the least, in words; None where the pace has no bound, or there are none."""
    if not pace.records_per_second or records <= 0:
        return None
    seconds = records / pace.records_per_second
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"about {ceil(seconds / unit)} {name}"
    return f"about {ceil(seconds)} s"


def ceilings_told(ceilings: Mapping[str, int], are: str) -> Iterator[str]:
    """What of groups of records `are` (or would be) told to erase by themselves: days, or `never`, and how many."""
    for days, groups in sorted(ceilings.items(), key=lambda each: (len(each[0]), each)):
        what = "keep everything" if days == "never" else f"erase by themselves after {days} days"
        yield f"{groups} groups of records {are} told to {what}"
