"""What is remembered of files, so that one that has not changed is not opened again before something in it can be due.

A file is the same as long as device, inode, size and time of change are. What was found rests on the rules, the holds
and the account directory: where any of these is another, it counts for nothing. Only files with nothing due are
remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from retentiond.domain.duration import instant
from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally, earliest
from retentiond.stores.files.folder import Entry, Mark

_MOST: Final = 100_000
TOGETHER: Final = timedelta(hours=1)
"""A file is not rewritten for each line that falls due, but for those of an hour together."""

Basis = tuple[str, int, str, str]


def basis_of(plan: TargetPlan) -> Basis:
    """What verdicts rest on beside the file and the time."""
    return (plan.digest, plan.epoch, plan.surveyed.digest, plan.action)


@dataclass(frozen=True, slots=True)
class Known:
    """What a file came to; `exact`: by tier, as plans want it."""

    mark: Mark
    basis: Basis
    tally: Tally
    exact: bool

    def holds_for(self, entry: Entry, plan: TargetPlan, *, exact: bool) -> bool:
        """Whether it is still so."""
        due = self.tally.next_due
        fresh = self.mark == entry.mark and self.basis == basis_of(plan) and (self.exact or not exact)
        return fresh and (due is None or plan.now < instant(due))


class Memory:
    """The files of one target."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Known] = {}
        self._lines: dict[tuple[int, int], tuple[Mark, int]] = {}

    def of(self, entry: Entry, plan: TargetPlan, *, exact: bool) -> Tally | None:
        """What the file came to, if that is still so."""
        known = self._known.get(_key(entry.mark))
        return known.tally if known is not None and known.holds_for(entry, plan, exact=exact) else None

    def lines(self, entry: Entry) -> int | None:
        """How many lines it has, if that is known."""
        mark, lines = self._lines.get(_key(entry.mark), (None, None))
        return lines if mark == entry.mark else None

    def learn(self, mark: Mark, plan: TargetPlan, tally: Tally, *, exact: bool) -> None:
        """Remember what a file came to."""
        key = _key(mark)
        self._lines[key] = (mark, tally.scanned)
        if tally.selected or tally.failed or tally.blocked:
            self._known.pop(key, None)
            return
        self._known[key] = Known(mark, basis_of(plan), tally, exact)

    def forget(self) -> None:
        """What was found rests on what the directory does not say any more."""
        self._known.clear()

    def keep(self, entries: Iterable[Entry]) -> None:
        """Forget what is not there any more."""
        there = {_key(entry.mark) for entry in entries}
        if len(self._lines) > min(2 * len(there) + 1000, _MOST):
            self._known = {key: known for key, known in self._known.items() if key in there}
            self._lines = {key: known for key, known in self._lines.items() if key in there}

    def all_of(self, entries: Iterable[Entry]) -> list[Tally] | None:
        """What all of these came to, by tier, whatever it rested on; None where any is not known."""
        found = []
        for entry in entries:
            known = self._known.get(_key(entry.mark))
            if known is None or known.mark != entry.mark or not known.exact:
                return None
            found.append(known.tally)
        return found

    def next_expiry(self, entries: Iterable[Entry]) -> datetime | None:
        """When files are worth to be looked at for lines that fall due; None: nothing is in sight."""
        known = (self._known.get(_key(entry.mark)) for entry in entries)
        due = earliest(*(each.tally.next_due for each in known if each is not None))
        return None if due is None else instant(due) + TOGETHER


def _key(mark: Mark) -> tuple[int, int]:
    return mark.dev, mark.ino
