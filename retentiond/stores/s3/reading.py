"""What rows of a listing say of their records, and the verdicts on them.

A delete marker is no record of its own: it goes with the last version of its key, and never before, since the version
below it would come back. So it is judged by what is left of its key; a hold keeps it like any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally, TierTally
from retentiond.stores.judging import Page, judge_page, later, plus
from retentiond.stores.rulings import Account, Rulings, Subject, Untold
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.rows import Rows

__all__ = ["Found", "Reading", "accounts_of", "plus"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a window comes to: the indices of rows that are due, their tiers' labels, and the same of its markers.

    `next_due` is when anything else of it can become due, as a text; `oldest` the oldest anchor of what is kept.
    """

    page: Page
    due: Sequence[int]
    labels: Sequence[str]
    markers: Sequence[int]
    marker_labels: Sequence[str]
    tally: Tally
    next_due: str | None
    oldest: datetime | None


class Reading:
    """Reads the rows of one target."""

    def __init__(self, config: S3Target) -> None:
        self._template, self._account = config.template(), config.account

    def page(self, rows: Rows) -> Page:
        """The records of the rows, as they are judged."""
        said = self._template.columns(rows.keys, account=self._account)
        return Page(rows.keys, later(rows.modified, said.until), rows.sizes, said.accounts, said.tiers)

    def found(self, rulings: Rulings, page: Page, rows: Rows, torn: frozenset[str]) -> Found:
        """The verdicts, and the orphans; `rulings` must have been told of the accounts.

        Rows of keys in `torn` are not all there.
        """
        found = self._judged(rulings, page, rows, torn)
        orphans = page.accounts.count(Untold.OWNER)
        return replace(found, tally=replace(found.tally, orphans=orphans)) if orphans else found

    def _judged(self, rulings: Rulings, page: Page, rows: Rows, torn: frozenset[str]) -> Found:
        if rows.markers is None or True not in rows.markers:
            judged = judge_page(rulings, page)
            next_due = rfc3339(judged.next_due) if judged.next_due is not None else None
            oldest = _oldest(page.anchors, set(judged.due))
            return Found(page, judged.due, judged.labels, (), (), judged.tally, next_due, oldest)
        return _with_markers(rulings, page, rows, rows.markers, torn)


def _oldest(anchors: Sequence[datetime | None], without: set[int]) -> datetime | None:
    kept = [anchor for i, anchor in enumerate(anchors) if i not in without] if without else anchors
    return min((anchor for anchor in kept if anchor is not None), default=None)


def _with_markers(rulings: Rulings, page: Page, rows: Rows, is_marker: Sequence[bool], torn: frozenset[str]) -> Found:
    versions = [i for i, marker in enumerate(is_marker) if not marker]
    judged = judge_page(rulings, _only(page, versions))
    due = [versions[i] for i in judged.due]
    leaving = set(due)
    kept_keys = {rows.keys[i] for i in versions if i not in leaving}
    tally, next_due = judged.tally, judged.next_due
    markers: list[int] = []
    labels: list[str] = []
    held: defaultdict[str, int] = defaultdict(int)
    for i, marker in enumerate(is_marker):
        key = rows.keys[i]
        if not marker or key in kept_keys:
            continue
        if key in torn:
            # Whether anything of the key is left is for the next sweep to see.
            next_due = rulings.plan.now
            continue
        subject: Subject = page.accounts[i] if page.tiers is None else (page.accounts[i], page.tiers[i])
        ruling = rulings.of([subject])[subject]
        if ruling.held(key, page.anchors[i]):
            held[ruling.label] += 1
        elif ruling.fault is None:
            markers.append(i)
            labels.append(ruling.label)
    return Found(
        page,
        due,
        judged.labels,
        markers,
        labels,
        _counting(tally, labels, held, len(is_marker)),
        rfc3339(next_due) if next_due is not None else None,
        _oldest(page.anchors, leaving),
    )


def _only(page: Page, indices: Sequence[int]) -> Page:
    return Page(
        [page.keys[i] for i in indices],
        [page.anchors[i] for i in indices],
        [page.sizes[i] for i in indices],
        [page.accounts[i] for i in indices],
        None if page.tiers is None else [page.tiers[i] for i in indices],
    )


def _counting(tally: Tally, labels: Sequence[str], held: Mapping[str, int], scanned: int) -> Tally:
    """The tally with these markers, which have no bytes and no anchors that count."""
    tiers = dict(tally.tiers)
    for label in {*labels, *held}:
        more = TierTally(due=labels.count(label), held=held.get(label, 0))
        tiers[label] = tiers.get(label, TierTally()).plus(more)
    return replace(tally, scanned=scanned).by(tiers)


def accounts_of(page: Page) -> set[Account]:
    """The accounts that the page's records name."""
    return set(page.accounts)
