"""Dates of log lines as instants in UTC.

RFC 3339 and its relatives (a space for the T, a comma before the fraction, no zone), the date of the common log format
(`10/Oct/2025:13:55:36 +0200`), and numbers since 1970 in the target's unit. A date without a zone is in the target's;
where clocks are put back it is the later of the two instants that it can mean. A day counts from its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from retentiond.stores.config import zone

_UNITS: Final = {"s": 1, "ms": 1_000, "us": 1_000_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)  # noqa: SIM905
}
_COMMON: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.\d{1,12})?", re.ASCII)
_REMEMBERED: Final = 4096


class Anchors:
    """Reads the dates of one target."""

    def __init__(self, timezone: str, unit: str | None) -> None:
        self._zone, self._unit = zone(timezone), unit
        self._is_utc = timezone == "UTC"
        self.of_text = lru_cache(maxsize=_REMEMBERED)(self._of_text)
        """The instant of a text; None where it is none. Lines of one second have one text."""

    def of(self, value: object) -> datetime | None:
        """The instant of a value as JSON has it; None where it is none."""
        if isinstance(value, str):
            return self.of_text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._of_number(value)
        return None

    def located(self, naive: Sequence[datetime]) -> list[datetime | None]:
        """Instants of dates that have no zone."""
        if self._is_utc:
            return [each.replace(tzinfo=UTC) for each in naive]
        return [self._local(each) for each in naive]

    def _of_number(self, value: float) -> datetime | None:
        if self._unit is None:
            return None
        try:
            if isinstance(value, int):
                return _EPOCH + timedelta(microseconds=value * (1_000_000 // _UNITS[self._unit]))
            return _EPOCH + timedelta(seconds=value / _UNITS[self._unit])
        except (OverflowError, ValueError):
            return None

    def _of_text(self, text: str) -> datetime | None:
        text = text.strip()
        try:
            if _MOMENT.fullmatch(text):
                return self._aware(datetime.fromisoformat(text.replace(",", ".", 1)))
            if _DAY.fullmatch(text):
                return self._local(datetime.combine(date.fromisoformat(text) + timedelta(days=1), datetime.min.time()))
            if (found := _COMMON.fullmatch(text)) is not None:
                day, month, year, time, offset = found.groups()
                return self._aware(datetime.fromisoformat(f"{year}-{_MONTHS[month]:02}-{day}T{time}{offset}"))
            if self._unit is not None and _NUMBER.fullmatch(text):
                return self._of_number(float(text) if "." in text else int(text))
        except (ValueError, KeyError, OverflowError):
            return None
        return None

    def _aware(self, moment: datetime) -> datetime | None:
        return self._local(moment) if moment.tzinfo is None else moment.astimezone(UTC)

    def _local(self, naive: datetime) -> datetime | None:
        try:
            return max(naive.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        except (OverflowError, ValueError):
            return None
