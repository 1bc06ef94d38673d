"""ISO 8601 durations as terms, and the two sides of expiry: `cutoff = now - TTL`, `expires_at = anchor + TTL`.

Calendar arithmetic in UTC. `cutoff` takes time and days off first, then months (clamped to the month's last day): with
that order nothing expires before PostgreSQL's `anchor + TTL` (tests/vectors/cutoff.csv, 2-semantics "Terms").
Years are kept as 12 months, a week as 7 days; hours are never folded into days.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from retentiond.errors import DurationError, UsageError

_DATE_UNITS: Final = ("Y", "M", "D")
_TIME_UNITS: Final = ("H", "M", "S")
_NUMBER: Final = re.compile(r"[0-9]+")
_SECONDS: Final = {"H": 3600, "M": 60, "S": 1}
_MICROS: Final = 1_000_000
_DAY: Final = 86_400 * _MICROS
_MAX_DIGITS: Final = 9
_MAX_YEARS: Final = 9999
# The mean Gregorian month, so that durations of different units have one fixed order.
_MONTH: Final = int(30.436875 * _DAY)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Duration:
    """A positive duration of months, days and microseconds, each kept apart as PostgreSQL's interval does."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def __str__(self) -> str:
        years, months = divmod(self.months, 12)
        date = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (self.days, "D")) if n)
        seconds = self.microseconds // _MICROS
        hours, rest = divmod(seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
        return f"P{date}T{time}" if time else f"P{date}"

    def nominal(self) -> int:
        """Microseconds with a month of 30.436875 days: a fixed total order, for comparing bounds."""
        return self.months * _MONTH + self.days * _DAY + self.microseconds


class Forever:
    """The term of what is never erased for its age."""

    __slots__ = ()

    def __str__(self) -> str:
        return "forever"

    def __repr__(self) -> str:
        return "FOREVER"


FOREVER: Final = Forever()
Term = Duration | Forever


def parse_duration(text: str) -> Duration:
    """The duration of an ISO 8601 text such as P90D, P1Y6M10D, PT36H or P2W; raises DurationError with the position."""
    if not text.startswith("P"):
        raise DurationError(text, 0, "a duration starts with P")
    date, mark, time = text[1:].partition("T")
    if not date and not mark:
        raise DurationError(text, 1, "nothing follows P")
    if mark and not time:
        raise DurationError(text, len(text), "nothing follows T")
    if date.endswith("W"):
        return _weeks(text, date, has_time=bool(mark))
    days = _parts(text, date, 1, _DATE_UNITS)
    times = _parts(text, time, 2 + len(date), _TIME_UNITS)
    duration = Duration(
        months=days.get("Y", 0) * 12 + days.get("M", 0),
        days=days.get("D", 0),
        microseconds=sum(number * _SECONDS[unit] for unit, number in times.items()) * _MICROS,
    )
    return _sized(text, duration)


def parse_term(text: str) -> Term:
    """A duration, or `forever`; raises DurationError."""
    return FOREVER if text == "forever" else parse_duration(text)


def cutoff(now: datetime, term: Term) -> datetime | None:
    """The instant before which anchors are expired at `now` (UTC); None for forever."""
    if isinstance(term, Forever):
        return None
    try:
        moment = now - timedelta(days=term.days, microseconds=term.microseconds)
    except OverflowError:
        return _EARLIEST
    return _add_months(moment, -term.months) or _EARLIEST


def expires_at(anchor: datetime, term: Term) -> datetime | None:
    """PostgreSQL's `anchor + TTL`, before which a record does not expire; None: not before the year 9999."""
    if isinstance(term, Forever):
        return None
    moment = _add_months(anchor, term.months)
    if moment is None:
        return None
    try:
        return moment + timedelta(days=term.days, microseconds=term.microseconds)
    except OverflowError:
        return None


def nominal(term: Term) -> float:
    """The term's place in the fixed order of terms; forever is the longest."""
    return float("inf") if isinstance(term, Forever) else term.nominal()


def shorter(one: Term, other: Term) -> bool:
    """Whether `one` is shorter than `other` in the fixed order."""
    return nominal(one) < nominal(other)


def instant(text: str) -> datetime:
    """The UTC instant of an RFC 3339 text with an offset, or of a date (its midnight UTC); raises UsageError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None and len(text) == len("2026-01-31"):
        moment = moment.replace(tzinfo=UTC)
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"{text!r} is not an instant", remedy="write RFC 3339 with a zone, such as 2026-01-31T00:00:00Z"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{text!r} is out of range", remedy="use the years 0001 to 9999") from None


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: 2026-05-17T00:00:00.000000Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _weeks(text: str, date: str, *, has_time: bool) -> Duration:
    number = date[:-1]
    if has_time or not (number.isascii() and number.isdigit()):
        raise DurationError(text, 1, "weeks stand alone, as in P2W")
    return _sized(text, Duration(days=7 * _number(text, number, 1)))


def _parts(text: str, part: str, start: int, units: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    position, order = 0, 0
    while position < len(part):
        match = _NUMBER.match(part, position)
        if match is None:
            raise DurationError(text, start + position, "a whole number was expected")
        if match.end() == len(part):
            raise DurationError(text, start + match.end(), f"a unit ({', '.join(units)}) was expected")
        unit = part[match.end()]
        if unit not in units[order:]:
            raise DurationError(text, start + match.end(), _unit_fault(unit, units))
        order = units.index(unit) + 1
        found[unit] = _number(text, match.group(), start + position)
        position = match.end() + 1
    return found


def _unit_fault(unit: str, units: tuple[str, ...]) -> str:
    if unit in units:
        return f"{unit!r} is repeated or out of order"
    if unit == "W":
        return "weeks can't be mixed with other units"
    if unit in ".,":
        return "fractions are not allowed"
    return f"{unit!r} is not one of {', '.join(units)}"


def _number(text: str, digits: str, position: int) -> int:
    if len(digits) > _MAX_DIGITS:
        raise DurationError(text, position, "the number is too large")
    return int(digits)


def _sized(text: str, duration: Duration) -> Duration:
    if not (duration.months or duration.days or duration.microseconds):
        raise DurationError(text, 0, "the duration is zero")
    if duration.nominal() > _MAX_YEARS * 12 * _MONTH:
        raise DurationError(text, 0, f"the duration is longer than {_MAX_YEARS} years: write `forever`")
    return duration


def _add_months(moment: datetime, months: int) -> datetime | None:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= _MAX_YEARS:
        return None
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))
