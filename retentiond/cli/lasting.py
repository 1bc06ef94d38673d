"""How long records take at a pace that is bounded: what `plan` and the progress of a sweep say of it."""

from __future__ import annotations

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
