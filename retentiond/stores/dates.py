"""Dates in keys: forms such as `%Y/%m/%d`, and the instant at which the day (hour, month, …) that one names is over.

Only directives of a fixed width are there, so that a date ends in one place. A date counts from its end, in UTC: the
object may have been written at the very last moment of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from retentiond.stores.config import Unfit

_WIDTHS: Final = {"Y": 4, "m": 2, "d": 2, "j": 3, "H": 2, "M": 2, "S": 2}
# A finer unit means nothing without the coarser ones.
_UNITS: Final = tuple(
    frozenset(units) for units in ("Y", "Ym", "Ymd", "Yj", "YmdH", "YjH", "YmdHM", "YjHM", "YmdHMS", "YjHMS")
)
_LENGTHS: Final = (("S", timedelta(seconds=1)), ("M", timedelta(minutes=1)), ("H", timedelta(hours=1)))
_REMEDY: Final = "write the form in %Y %m %d %H %M %S, or %j for the day of the year: {date:%Y/%m/%d}"


@dataclass(frozen=True, slots=True)
class DateForm:
    """A form of dates: the pattern of its texts, and the units in their order."""

    pattern: str
    units: tuple[str, ...]
    reading: re.Pattern[str]

    @classmethod
    def parse(cls, form: str, position: int) -> DateForm:
        """The form that stands at a position of a template; raises Unfit, which names it."""
        patterns, units = [], []
        for at, part in _tokens(form):
            if part[0] != "%" or part == "%%":
                patterns.append(re.escape(part[0]))
            elif part[1:] not in _WIDTHS:
                raise _unfit(f"a date can't be read by {part}", position + at)
            elif part[1] in units:
                raise _unfit(f"{part} stands twice", position + at)
            else:
                patterns.append(f"([0-9]{{{_WIDTHS[part[1]]}}})")
                units.append(part[1])
        if frozenset(units) not in _UNITS:
            raise _unfit(f"{form!r} names no day, hour, month or year" if form else "a date needs a form", position)
        bare = "".join(f"(?:{each[1:-1]})" if each[0] == "(" else each for each in patterns)
        return cls(bare, tuple(units), re.compile("".join(patterns)))

    def end(self, text: str) -> datetime | None:
        """The first instant (UTC) after what the text names; None where there is no such date."""
        found = self.reading.fullmatch(text)
        if found is None:
            return None
        try:
            return _end({unit: int(digits) for unit, digits in zip(self.units, found.groups(), strict=True)})
        except (ValueError, OverflowError):  # a 30th of February; the last year that there can be has no end
            return None


def _unfit(message: str, position: int) -> Unfit:
    return Unfit(f"the template can't be used: {message} (at position {position})", _REMEDY)


def _tokens(form: str) -> Iterator[tuple[int, str]]:
    """Each character or directive, with where it begins."""
    at = 0
    while at < len(form):
        token = form[at : at + 2] if form[at] == "%" else form[at]
        yield at, token
        at += len(token)


def _end(units: Mapping[str, int]) -> datetime:
    year = units["Y"]
    start = datetime(year, units.get("m", 1), units.get("d", 1), tzinfo=UTC)
    if "j" in units:
        start += timedelta(days=units["j"] - 1)
        if start.year != year:
            msg = "no such day of the year"
            raise ValueError(msg)
    elif "m" not in units:
        return start.replace(year=year + 1)
    elif "d" not in units:
        return start.replace(year=year + units["m"] // 12, month=units["m"] % 12 + 1)
    start = start.replace(hour=units.get("H", 0), minute=units.get("M", 0), second=units.get("S", 0))
    return start + next((length for unit, length in _LENGTHS if unit in units), timedelta(days=1))
