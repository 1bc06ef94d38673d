"""The clock of an S3 server, as far as the Date of its answers tells.

A request's expiry is judged by the server's clock alone, so what enters it must never be later than that clock says:
hence `earliest`, a bound from below. It is reckoned on from this host's monotonic clock, which nobody sets. A service
has many servers; the one that is furthest behind counts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from retentiond.domain.clock import ClockReading
from retentiond.errors import Unreachable

_REMEMBERED = 32
_SHARP = 1.0
_TICK = 1.0
"""A Date header has whole seconds, cut off."""


class ServerClock:
    """What a server's clock says, learned from its answers. Not for use by several threads."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, host: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._monotonic, self._host = monotonic, host
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

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
        self._seen.append((said.timestamp() - received, said.timestamp() + _TICK - sent))

    @property
    def known(self) -> bool:
        """Whether any answer has told the time yet."""
        return bool(self._seen)

    def earliest(self) -> datetime:
        """An instant (UTC) that all servers seen of late have surely reached; raises Unreachable where none told."""
        return datetime.fromtimestamp(self._monotonic() + min(low for low, _ in self._sharp()), UTC)

    def reading(self) -> ClockReading:
        """The clock beside this host's, by the latest answer; raises Unreachable where none told the time."""
        low, high = self._sharp()[-1]
        now = datetime.fromtimestamp(self._monotonic() + (low + high) / 2, UTC)
        host = self._host()
        # Within what a Date can tell, the clocks agree: half a second is no difference.
        if abs((now - host).total_seconds()) <= (high - low) / 2:
            now = host
        return ClockReading(now=now, host=host, same_machine=False)

    def _sharp(self) -> list[tuple[float, float]]:
        """What was answered quickly, else the quickest answer: a slow one says little."""
        if not self._seen:
            raise Unreachable(
                "the S3 endpoint's answers have no Date, so its clock is not known",
                remedy="make the proxy in front of it pass the Date header on",
            )
        quick = [each for each in self._seen if each[1] - each[0] <= _TICK + _SHARP]
        return quick or [min(self._seen, key=lambda each: each[1] - each[0])]


def floor_second(instant: datetime) -> datetime:
    """The instant without the part of a second: signatures have none."""
    return instant.replace(microsecond=0)


def seconds_between(start: datetime, end: datetime) -> int:
    """Whole seconds from one instant to another, cut off."""
    return (end - start) // timedelta(seconds=1)
