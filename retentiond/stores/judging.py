"""Judging in Python, for stores whose records come in pages of columns and not by SQL: objects, files, log lines.

The rules are those of `verdict.judge`, and a property test holds the two against each other. What is the same for all
records of an account is worked out once (`rulings`); here a record costs a look-up and a comparison. Holds are asked
only about what would count without them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally, TierTally, earliest
from retentiond.stores.rulings import Account, Ruling, Rulings, State, Subject

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Records as columns, all of one length: `anchors` in UTC (None: can't be told), `sizes` in bytes.

    `accounts` and `tiers` are as the records name them; without `tiers` they have none of their own.
    """

    keys: Sequence[str]
    anchors: Sequence[datetime | None]
    sizes: Sequence[int]
    accounts: Sequence[Account]
    tiers: Sequence[str | None] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What a page comes to: the indices of what is to be erased, ascending, and the label of the tier of each.

    `tally` counts as a store's does. `next_due` is the earliest instant at which anything else of the page can become
    due, as long as neither holds nor the directory change: None where nothing can.
    """

    due: tuple[int, ...]
    labels: tuple[str, ...]
    tally: Tally
    next_due: datetime | None


def later(modified: Sequence[datetime | None], until: Sequence[datetime | None] | None) -> Sequence[datetime | None]:
    """The anchors of objects: the later of when each was last modified and the date that it names, if any.

    Where it is not known when one was last modified its anchor can't be told.
    """
    if until is None:
        return modified
    return [
        moment if moment is None or end is None or end <= moment else end
        for moment, end in zip(modified, until, strict=True)
    ]


def judge_page(rulings: Rulings, page: Page) -> Judged:
    """The verdicts on a page; `rulings` must have been told of its accounts (`Rulings.ask`), else they are kept."""
    subjects: Sequence[Subject] = (
        page.accounts if page.tiers is None else list(zip(page.accounts, page.tiers, strict=True))
    )
    of = rulings.of(set(subjects))
    low = [_LAST] * rulings.slots
    due: list[int] = []
    other: list[int] = []
    for index, (subject, anchor) in enumerate(zip(subjects, page.anchors, strict=True)):
        ruling = of[subject]
        if anchor is None or not ruling.plain:
            other.append(index)
        elif anchor < ruling.edge:
            due.append(index)
        elif anchor < low[ruling.slot]:
            low[ruling.slot] = anchor
    counts = _Counts(rulings, page, subjects)
    counts.add_aged(low)
    for index in other:
        counts.add(index, rulings.state(of[subjects[index]], page.anchors[index]))
    if rulings.plan.holds:
        for index in due:
            counts.add(index, State.DUE)
    else:
        counts.due += due
    return counts.judged()


def tally_of(anchors: Sequence[datetime | None], sizes: Sequence[int], labels: Sequence[str]) -> Tally:
    """What records that have gone come to, from what is known of each."""
    known = [anchor for anchor in anchors if anchor is not None]
    return Tally(
        scanned=len(labels),
        selected=len(labels),
        changed=len(labels),
        bytes=sum(sizes),
        oldest=rfc3339(min(known)) if known else None,
        newest=rfc3339(max(known)) if known else None,
        by_tier={label: labels.count(label) for label in dict.fromkeys(labels)},
    )


def plus(one: Tally, other: Tally) -> Tally:
    """Two windows judged one after the other, as one."""
    tiers = dict(one.tiers)
    for label, tier in other.tiers.items():
        tiers[label] = tiers[label].plus(tier) if label in tiers else tier
    both = Tally(
        scanned=one.scanned + other.scanned,
        after=other.after,
        next_due=earliest(one.next_due, other.next_due),
        requests=one.requests + other.requests,
        orphans=one.orphans + other.orphans,
        gone=one.gone + other.gone,
    )
    return both.by(tiers)


@dataclass(slots=True)
class _Tier:
    """What the records of one tier come to."""

    due: int = 0
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    bytes: int = 0
    oldest: datetime = _LAST
    newest: datetime = _FIRST
    first: datetime = _LAST
    overdue: float = 0.0

    def tally(self) -> TierTally:
        """The same for whoever counts."""
        return TierTally(
            due=self.due,
            held=self.held,
            minimum=self.minimum,
            unresolved=self.unresolved,
            bytes=self.bytes,
            oldest=_shown(self.oldest),
            newest=_shown(self.newest),
            first=_shown(self.first),
            overdue_seconds=self.overdue,
        )


@dataclass(slots=True)
class _Counts:
    """Counts while a page is judged."""

    of: Rulings
    page: Page
    subjects: Sequence[Subject]
    due: list[int] = field(default_factory=list)
    tiers: defaultdict[str, _Tier] = field(default_factory=lambda: defaultdict(_Tier))
    next_due: datetime = _LAST

    def add_aged(self, low: Iterable[datetime]) -> None:
        """Of each slot the oldest of the records that only their age keeps."""
        for slot, anchor in enumerate(low):
            if anchor is not _LAST:
                self._first(self.of.label_of(slot), anchor)
                self._next(self.of.next_due(slot, anchor))

    def add(self, index: int, state: State) -> None:
        """One record, by its state without holds."""
        ruling, anchor = self._ruling(index), self.page.anchors[index]
        held = state is not State.KEEP and ruling.held(self.page.keys[index], anchor)
        if state is State.DUE and not held:
            self.due.append(index)
            return
        tier = self._first(ruling.label, anchor)
        if held:
            tier.held += 1
            return
        tier.minimum += state is State.MINIMUM
        tier.unresolved += state is State.UNRESOLVED
        self._next(self.of.next_due_of(ruling, anchor))

    def judged(self) -> Judged:
        """All of it, with the figures of what is due."""
        self.due.sort()
        of, subjects, anchors, sizes = self.of.of(()), self.subjects, self.page.anchors, self.page.sizes
        alike: defaultdict[Subject, list[int]] = defaultdict(list)
        for index in self.due:
            alike[subjects[index]].append(index)
        for subject, indices in alike.items():
            ruling = of[subject]
            tier = self.tiers[ruling.label]
            tier.due += len(indices)
            tier.bytes += sum(map(sizes.__getitem__, indices))
            known = [anchor for index in indices if (anchor := anchors[index]) is not None]
            if known:
                first, last = min(known), max(known)
                tier.oldest, tier.first = min(tier.oldest, first), min(tier.first, first)
                tier.newest = max(tier.newest, last)
                # The older the later.
                tier.overdue = max(tier.overdue, self.of.past_term(ruling, first))
            if len(known) < len(indices):
                tier.overdue = max(tier.overdue, self.of.past_term(ruling, None))
        labels = [of[subjects[index]].label for index in self.due]
        return Judged(tuple(self.due), tuple(labels), self._tally(), None if self.next_due is _LAST else self.next_due)

    def _tally(self) -> Tally:
        tiers = {label: tier.tally() for label, tier in self.tiers.items()}
        return Tally(scanned=len(self.page.keys)).by(tiers)

    def _ruling(self, index: int) -> Ruling:
        return self.of.of(())[self.subjects[index]]

    def _first(self, label: str, anchor: datetime | None) -> _Tier:
        tier = self.tiers[label]
        if anchor is not None and anchor < tier.first:
            tier.first = anchor
        return tier

    def _next(self, moment: datetime | None) -> None:
        if moment is not None and moment < self.next_due:
            self.next_due = moment


def _shown(moment: datetime) -> str | None:
    return None if moment in (_FIRST, _LAST) else rfc3339(moment)
