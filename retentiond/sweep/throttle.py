"""The pace of one target: batch sizes that fit a time budget, rest between batches, records a second.

A batch that took longer than its budget halves the next one or more; a quick one grows it at most fourfold
(4-safety, "Postgres, what bites" 10). Never waits inside a transaction: the sweeper rests before it begins one.

What a batch takes however small it is (a slow network between its statements) no smaller one saves: where that is much
of the budget, which two sizes tell apart, the budget is for the records alone. Else batches would end at one record.
"""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.sweep.spec import Pace

_FIRST = 1_000
_LEAST, _MOST = 0.1, 4.0
_APART = 2
_MUCH = 0.5


@dataclass(slots=True)
class Pacer:
    """The next batch's size, the rest owed before it, and the seconds that a batch takes whatever its size (0: few)."""

    pace: Pace
    size: int = 0
    overhead: float = 0.0
    _base: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        """Begin small: the first batch measures."""
        self.size = self.size or min(max(_FIRST, self.pace.min_batch), self.pace.max_batch)

    def after(self, seconds: float) -> None:
        """Fit the size to what the last batch took."""
        self._look_for_overhead(seconds)
        factor = min(max(self.pace.batch_seconds / max(seconds - self.overhead, 1e-6), _LEAST), _MOST)
        self.size = min(max(int(self.size * factor), self.pace.min_batch), self.pace.max_batch)

    def _look_for_overhead(self, seconds: float) -> None:
        """Compare with a batch of quite another size: what both took is not the records'."""
        # A batch that was quicker than that disproves it.
        self.overhead = min(self.overhead, seconds)
        size, before = self._base or (self.size, seconds)
        if self.size * _APART > size and self.size < size * _APART:
            self._base = (size, before)
            return
        each = max((before - seconds) / (size - self.size), 0.0)
        found = max(seconds - each * self.size, 0.0)
        self.overhead = found if found >= self.pace.batch_seconds * _MUCH else 0.0
        self._base = (self.size, seconds)

    def trouble(self, size: int) -> None:
        """Halve what was refused, down to one record: only so is it found that can't go."""
        self.size = max(size // 2, 1)

    def rest(self, seconds: float, records: int) -> tuple[str, float]:
        """The reason for and the seconds of the rest after a batch that took `seconds` and changed `records`."""
        by_duty = seconds * (1 / self.pace.duty - 1)
        by_rate = records / self.pace.records_per_second - seconds if self.pace.records_per_second else 0.0
        return ("duty", by_duty) if by_duty >= by_rate else ("records_per_second", by_rate)
