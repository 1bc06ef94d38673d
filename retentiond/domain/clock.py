"""Readings of the clocks involved in a sweep, and the rules by which they are trusted (2-semantics, "Terms")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from retentiond.errors import Guarded


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What a clock said (UTC), what this host's said in the middle of the asking, and whether it is another machine."""

    now: datetime
    host: datetime
    same_machine: bool

    @property
    def offset(self) -> timedelta:
        """How far the clock is ahead of this host's."""
        return self.now - self.host


def skew(readings: Mapping[str, ClockReading]) -> timedelta:
    """The largest difference between any two of the clocks, this host's included."""
    offsets = [timedelta(0), *(reading.offset for reading in readings.values())]
    return max(offsets) - min(offsets)


def agreed_now(readings: Mapping[str, ClockReading], *, host: datetime, max_skew: timedelta) -> datetime:
    """The earliest of the clocks as `now`; raises Guarded (`clock_skew`) when two differ by more than `max_skew`."""
    if (found := skew(readings)) > max_skew:
        told = ", ".join(f"{name} {reading.offset.total_seconds():+.1f} s" for name, reading in readings.items())
        raise Guarded(
            "clock_skew",
            f"clocks differ by {found.total_seconds():.1f} s (against this host: {told}); nothing is erased",
            remedy="set the clocks right (NTP); guards.max_clock_skew is the limit",
        )
    return host + min([timedelta(0), *(reading.offset for reading in readings.values())])


def require_no_jump(
    now: datetime,
    *,
    latest_seen: datetime | None,
    max_jump: timedelta,
    readings: Mapping[str, ClockReading],
) -> None:
    """Raise Guarded (`clock_jump`) when `now` is far past the latest instant seen and no other machine agrees."""
    if latest_seen is None or now - latest_seen <= max_jump:
        return
    if any(not reading.same_machine for reading in readings.values()):
        return
    raise Guarded(
        "clock_jump",
        f"the clock says {now.isoformat()}, more than {max_jump.days} days after the latest instant "
        f"seen ({latest_seen.isoformat()}); nothing is erased",
        remedy="if the clock is right, run `retentiond approve --clock`; else set it right",
    )
