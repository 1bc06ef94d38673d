"""Which lines of a block are due, fast: by columns, with what is the same for all lines of an account worked out once.

Two ways, of which a property test shows that they agree. `exact` is `judging.judge_page`: counts by tier, for plans and
promises. `quick` is for rewriting, where nobody asks for more than which lines go: a line whose account has a plain
term and no hold on it costs a look-up and a comparison, done by the interpreter's own loops; all others are judged
exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import compress
from operator import gt
from typing import Any, Final

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally, TierTally, earliest, latest
from retentiond.stores.files.formats import Columns
from retentiond.stores.judging import Judged, Page, judge_page, plus
from retentiond.stores.rulings import Account, Rulings, Subject, Untold

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_EXACTLY: Final = -1
"""The group of subjects whose lines are judged one by one; the last of the edges is theirs."""


class Keys(Sequence[str]):
    """Stands for the ids of lines, which no rule asks for: a hold that names lines or files is on all of them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: object) -> str:
        return ""


@dataclass(slots=True)
class Sums:
    """What the lines of a file come to. `due` counts by the label of the tier; `seen` are subjects with lines due."""

    lines: int = 0
    due: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    failed: int = 0
    next_due: datetime | None = None
    seen: set[Subject] = field(default_factory=set)

    def tally(self) -> Tally:
        """The same as sweeps have it."""
        return Tally(
            scanned=self.lines,
            selected=self.due.total(),
            held=self.held,
            minimum=self.minimum,
            unresolved=self.unresolved,
            failed=self.failed,
            bytes=self.bytes,
            oldest=_text(self.oldest),
            newest=_text(self.newest),
            by_tier=dict(+self.due),
            next_due=_text(self.next_due),
        )


class Sieve:
    """Sorts lines under one plan; `rulings` must have been told of their accounts (`lacking`)."""

    def __init__(self, rulings: Rulings, *, tiered: bool) -> None:
        self.rulings, self._tiered = rulings, tiered
        self._group: dict[Subject, int] = {}
        self._kinds: list[tuple[str, int]] = []
        self._edges: list[datetime] = [_NEVER]
        self._by_kind: dict[tuple[str, int, datetime], int] = {}
        self._sorted: tuple[Columns | None, list[int]] = (None, [])
        self._dated = False
        """Whether every line of the block that was sorted last has a date."""

    def subjects(self, columns: Columns) -> Sequence[Subject]:
        """Whose each line is."""
        if columns.tiers is None:
            return columns.accounts
        return list(zip(columns.accounts, columns.tiers, strict=True))

    def lacking(self, columns: Columns) -> set[Account]:
        """The accounts that the directory must be asked about first."""
        subjects = self.subjects(columns)
        try:
            self._sorted = (columns, list(map(self._group.__getitem__, subjects)))
        except KeyError:
            new: set[Any] = set(subjects).difference(self._group)
            accounts = {each[0] for each in new} if self._tiered else new
            return {each for each in accounts if isinstance(each, str) and is_askable(each)}
        return set()

    def due(self, columns: Columns) -> tuple[list[bool], Sequence[int], Judged | None]:
        """Which lines are due; and those that were judged exactly, with what that came to."""
        anchors, groups = columns.anchors, self._groups(columns)
        edges = map(self._edges.__getitem__, groups)
        try:
            flags = list(map(gt, edges, anchors))  # type: ignore[arg-type]
            exactly = _where(groups)
            self._dated = True
        except TypeError:  # a line without a date
            self._dated = False
            flags = [
                at is not None and edge > at
                for edge, at in zip(map(self._edges.__getitem__, groups), anchors, strict=True)
            ]
            exactly = [i for i, group in enumerate(groups) if group == _EXACTLY or anchors[i] is None]
        if not exactly:
            return flags, exactly, None
        judged = judge_page(self.rulings, self._page(columns, exactly))
        for at in judged.due:
            flags[exactly[at]] = True
        return flags, exactly, judged

    def add(
        self, sums: Sums, columns: Columns, flags: Sequence[bool], exactly: Sequence[int], judged: Judged | None
    ) -> None:
        """Count the lines in, of which those with a flag go."""
        subjects, anchors, groups = self.subjects(columns), columns.anchors, self._groups(columns)
        sums.lines += len(flags)
        if True in flags:
            self._add_due(sums, subjects, groups, anchors, flags)
        if judged is not None:
            at = {exactly[each]: label for each, label in zip(judged.due, judged.labels, strict=True)}
            sums.due.update(label for index, label in at.items() if flags[index])
            sums.held += judged.tally.held
            sums.minimum += judged.tally.minimum
            sums.unresolved += judged.tally.unresolved
            sums.next_due = _sooner(sums.next_due, judged.next_due)
        self._add_kept(sums, groups, anchors, flags)

    def exact(self, columns: Columns, sizes: Sequence[int], skipped: Sequence[bool] | None = None) -> Judged:
        """The verdicts by `judge_page`; lines that are skipped are not looked at, and not counted."""
        whole = range(len(sizes))
        indices = whole if skipped is None else [i for i in whole if not skipped[i]]
        return judge_page(self.rulings, replace(self._page(columns, indices), sizes=[sizes[i] for i in indices]))

    def _add_due(
        self,
        sums: Sums,
        subjects: Sequence[Subject],
        groups: Sequence[int],
        anchors: Sequence[datetime | None],
        flags: Sequence[bool],
    ) -> None:
        sums.seen.update(compress(subjects, flags))
        for group, count in Counter(compress(groups, flags)).items():
            if group != _EXACTLY:
                sums.due[self._kinds[group][0]] += count
        due: Any = (
            compress(anchors, flags) if self._dated else (at for at in compress(anchors, flags) if at is not None)
        )
        known = list(due)
        if known:
            first, last = min(known), max(known)
            sums.oldest = first if sums.oldest is None else min(first, sums.oldest)
            sums.newest = last if sums.newest is None else max(last, sums.newest)

    def _add_kept(
        self, sums: Sums, groups: Sequence[int], anchors: Sequence[datetime | None], flags: Sequence[bool]
    ) -> None:
        """When the first of the kept lines can be due, of those whose term is plain."""
        present = set(groups) - {_EXACTLY}
        if not present:
            return
        dated = anchors if self._dated else [each for each in anchors if each is not None]
        if not dated:
            return
        low, high = min(dated), max(dated)  # type: ignore[type-var]
        for group in present:
            edge = self._edges[group]
            if high < edge:  # type: ignore[operator]
                continue
            first = low
            if low < edge:  # type: ignore[operator]
                mine = [at for at, each, flag in zip(anchors, groups, flags, strict=True) if each == group and not flag]
                first = min((at for at in mine if at is not None), default=None)
            if first is not None:
                sums.next_due = _sooner(sums.next_due, self.rulings.next_due(self._kinds[group][1], first))

    def _groups(self, columns: Columns) -> list[int]:
        if self._sorted[0] is not columns:
            subjects = self.subjects(columns)
            self._learn(set(subjects).difference(self._group))
            self._sorted = (columns, list(map(self._group.__getitem__, subjects)))
        return self._sorted[1]

    def _learn(self, new: set[Subject]) -> None:
        of = self.rulings.of(new)
        for subject in new:
            ruling = of[subject]
            if not ruling.plain or ruling.holds:
                self._group[subject] = _EXACTLY
                continue
            kind = (ruling.label, ruling.slot, ruling.edge)
            if kind not in self._by_kind:
                self._by_kind[kind] = len(self._kinds)
                self._kinds.append((ruling.label, ruling.slot))
                self._edges.insert(-1, ruling.edge)
            self._group[subject] = self._by_kind[kind]

    def _page(self, columns: Columns, indices: Sequence[int]) -> Page:
        return Page(
            Keys(len(indices)),
            [columns.anchors[i] for i in indices],
            [0] * len(indices),
            [columns.accounts[i] for i in indices],
            None if columns.tiers is None else [columns.tiers[i] for i in indices],
        )


def asked(columns: Columns) -> Columns:
    """The columns, with accounts that no database could be asked about as lines that can't be read."""
    odd = {each for each in set(columns.accounts) if isinstance(each, str) and not is_askable(each)}
    if not odd:
        return columns
    return replace(columns, accounts=[Untold.LINE if each in odd else each for each in columns.accounts])


def unread(lines: int, tally: Tally) -> Tally:
    """The tally with lines in addition that were not read."""
    more = TierTally(unresolved=lines)
    tiers = {**tally.tiers, "unknown": tally.tiers.get("unknown", TierTally()).plus(more)}
    return replace(tally.by(tiers), scanned=tally.scanned + lines)


def exactly(one: Tally, other: Tally) -> Tally:
    """Two files judged exactly, as one."""
    return replace(
        plus(one, other),
        blocked=one.blocked + other.blocked,
        failed=one.failed + other.failed,
        refusal=one.refusal or other.refusal,
    )


def together(one: Tally, other: Tally) -> Tally:
    """Two files judged quickly, as one."""
    return Tally(
        scanned=one.scanned + other.scanned,
        selected=one.selected + other.selected,
        held=one.held + other.held,
        minimum=one.minimum + other.minimum,
        unresolved=one.unresolved + other.unresolved,
        blocked=one.blocked + other.blocked,
        failed=one.failed + other.failed,
        bytes=one.bytes + other.bytes,
        oldest=earliest(one.oldest, other.oldest),
        newest=latest(one.newest, other.newest),
        by_tier=dict(Counter(one.by_tier) + Counter(other.by_tier)),
        overdue_seconds=max(one.overdue_seconds, other.overdue_seconds),
        next_due=earliest(one.next_due, other.next_due),
        refusal=one.refusal or other.refusal,
    )


def is_askable(account: str) -> bool:
    """Whether a database could be asked about it at all; of another nothing is ever told."""
    if "\0" in account:
        return False
    return account.isascii() or not any("\ud800" <= each <= "\udfff" for each in account)


def _where(groups: list[int]) -> list[int]:
    """The places of lines that are judged exactly; there are few."""
    found: list[int] = []
    at = -1
    for _ in range(groups.count(_EXACTLY)):
        at = groups.index(_EXACTLY, at + 1)
        found.append(at)
    return found


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    return one or other if one is None or other is None else min(one, other)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
