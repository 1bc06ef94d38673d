"""How many records a target has and how old the oldest is, as walks over all of them have shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from retentiond.stores.base import Tally, Window, earliest
from retentiond.stores.judging import Page


@dataclass(slots=True)
class Census:
    """Nothing is known before one walk went from the beginning to the end; what is due is taken for gone."""

    total: int | None = None
    oldest: datetime | None = None
    firsts: dict[str, str] = field(default_factory=dict)
    _after: tuple[str, ...] | None = None
    _whole: bool = False
    _count: int = 0
    _oldest: datetime | None = None
    _firsts: dict[str, str] = field(default_factory=dict)

    def seen(self, window: Window, page: Page, due: tuple[int, ...], tally: Tally) -> None:
        """A window was judged."""
        if window.until is not None:
            return
        if window.after is None:
            self._whole, self._count, self._oldest, self._firsts = True, 0, None, {}
        elif window.after != self._after:
            # Looked at once more, or of another walk: then this one is not whole.
            self._whole = self._whole and tally.after == self._after
            return
        gone = set(due)
        kept = [anchor for i, anchor in enumerate(page.anchors) if i not in gone and anchor is not None]
        self._count += len(page.keys)
        self._oldest = min([*kept, *([self._oldest] if self._oldest else [])], default=None)
        for label, tier in tally.tiers.items():
            if (first := earliest(self._firsts.get(label), tier.first)) is not None:
                self._firsts[label] = first
        self._after = tally.after
        if tally.after is None and self._whole:
            self.total, self.oldest, self.firsts = self._count, self._oldest, dict(self._firsts)
