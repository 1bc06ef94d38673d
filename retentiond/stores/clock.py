"""The clock of a server, as far as the Date of its answers tells, and instants that are judged by it alone.

A request's expiry is judged by the server's clock alone, so what enters it must never be later than that clock says:
hence `earliest`, a bound from below. It is reckoned on from this host's monotonic clock, which nobody sets. A service
has many servers, of which any may get the next request: of those seen of late the one that is furthest behind counts,
and for the guard of clocks (`reading`) the one that is furthest off.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from retentiond.domain.clock import ClockReading
from retentiond.errors import Unreachable

_REMEMBERED = 32
_OF_LATE = 600.0
"""Seconds for which an answer counts beside later ones: a clock that was set right must not be doubted for ever."""
_SHARP = 1.0
_TICK = 1.0
"""A Date header has whole seconds, cut off."""


class _Answer(NamedTuple):
    """How far the server's clock is ahead of the monotonic one, at least and at most; and when it was heard."""

    low: float
    high: float
    at: float

    @property
    def sharp(self) -> bool:
        """Whether it came quickly enough to tell much."""
        return self.high - self.low <= _TICK + _SHARP


class ServerClock:
    """What a server's clock says, learned from its answers. Not for use by several threads."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, host: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._monotonic, self._host = monotonic, host
        self._seen: deque[_Answer] = deque(maxlen=_REMEMBERED)

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """Take note of an answer's Date, and of when (monotonic) its request was sent and it was received."""
        if date is None:
            return
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return
        if said.tzinfo is None:  # "-0000": UTC, from a machine that does not know its zone
            said = said.replace(tzinfo=UTC)
        # The instant was at the earliest `said` when it was received, and at the latest a tick later when it was sent.
        told = said.timestamp()
        self._seen.append(_Answer(told - received, told + _TICK - sent, received))

    @property
    def known(self) -> bool:
        """Whether any answer has told the time yet."""
        return bool(self._seen)

    def earliest(self) -> datetime:
        """An instant (UTC) that all servers seen of late have surely reached; raises Unreachable where none told."""
        return datetime.fromtimestamp(self._monotonic() + min(each.low for each in self._telling()), UTC)

    def reading(self) -> ClockReading:
        """The clock of the server that is furthest off, beside this host's; Unreachable: none told the time."""
        host = self._host()
        now = max((self._now(each, host) for each in self._telling()), key=lambda moment: abs(moment - host))
        return ClockReading(now=now, host=host, same_machine=False)

    def latest(self) -> datetime:
        """The time (UTC) by the last answer that tells much, roughly; raises Unreachable where none told the time."""
        return self._now(self._telling()[-1], self._host())

    def _now(self, answer: _Answer, host: datetime) -> datetime:
        now = datetime.fromtimestamp(self._monotonic() + (answer.low + answer.high) / 2, UTC)
        # Within what a Date can tell, the clocks agree: half a second is no difference.
        return host if abs((now - host).total_seconds()) <= (answer.high - answer.low) / 2 else now

    def _telling(self) -> list[_Answer]:
        """Of late: what was answered quickly, else the quickest. A slow one says little, unless that it is behind."""
        if not self._seen:
            raise Unreachable(
                "the endpoint's answers have no Date, so its clock is not known",
                remedy="make the proxy in front of it pass the Date header on",
            )
        seen = [each for each in self._seen if each.at >= self._seen[-1].at - _OF_LATE]
        quick = [each for each in seen if each.sharp] or [min(seen, key=lambda each: each.high - each.low)]
        least = min(each.low for each in quick)
        return [each for each in seen if not each.sharp and each.high < least] + quick


def floor_second(instant: datetime) -> datetime:
    """The instant without the part of a second: signatures have none."""
    return instant.replace(microsecond=0)


def seconds_between(start: datetime, end: datetime) -> int:
    """Whole seconds from one instant to another, cut off."""
    return (end - start) // timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Expiry:
    """From when until when (exclusive) a request is good, by the *server's* clock (UTC)."""

    issued_at: datetime
    expires_at: datetime

    @property
    def seconds(self) -> int:
        """The whole seconds of its life, never more than there are."""
        return seconds_between(floor_second(self.issued_at), self.expires_at)

    @property
    def spent(self) -> bool:
        """Whether it leaves no time: such a request is not sent, for what a server makes of 0 is its own affair."""
        return self.seconds < 1
