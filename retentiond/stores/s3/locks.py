"""What Object Lock keeps: asked of each version once, and then remembered for a while.

A version that is locked can't be erased, and to ask for it with every batch costs two requests each time. So what was
found is remembered: a retention until its end, a legal hold for as long as nobody is likely to have taken it off. Only
plans and counts ask beforehand; a batch asks for the erasure, and for the lock of what is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from retentiond.domain.duration import rfc3339
from retentiond.errors import Blind
from retentiond.stores.base import Tally, TierTally
from retentiond.stores.rulings import Rulings
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import Lock
from retentiond.stores.s3.locking import lock_of
from retentiond.stores.s3.reading import Found
from retentiond.stores.s3.rows import Rows

LONGEST: Final = timedelta(days=1)
"""After which a lock is asked about again: governance retentions can be shortened, legal holds taken off."""
OURS: Final = timedelta(minutes=10)
"""The same of legal holds in targets whose holds we write there ourselves, and take off when they are released."""
_FREE_FOR: Final = timedelta(hours=1)
_MOST = 200_000
_AT_ONCE = 16


class Locks:
    """What is remembered of one target; `longest` is after how long a legal hold is asked about again."""

    def __init__(self, longest: timedelta = LONGEST) -> None:
        self._longest = longest
        self._known: dict[int, tuple[bool, datetime]] = {}

    def found(self, key: str, version_id: str | None, lock: Lock | None, now: datetime) -> datetime:
        """Remember what was found at that instant; until when it is believed."""
        kept = lock is not None and lock.holds(now)
        until = now + (_FREE_FOR if not kept else self._longest if lock and lock.legal_hold else LONGEST)
        if kept and lock is not None and not lock.legal_hold and lock.until is not None:
            until = min(until, lock.until)
        # By hash, since it is many; two that share one are both believed to be kept, for a while.
        self._known[hash((key, version_id))] = (kept, until)
        while len(self._known) > _MOST:
            self._known.pop(next(iter(self._known)))
        return until

    def kept(self, key: str, version_id: str | None, now: datetime) -> datetime | None:
        """Until when the version is believed to be locked; None: it is not, or that is not known."""
        kept, until = self._known.get(hash((key, version_id)), (False, now))
        return until if kept and until > now else None

    def _knows(self, key: str, version_id: str | None, now: datetime) -> bool:
        known = self._known.get(hash((key, version_id)))
        return known is not None and known[1] > now

    async def look(self, bucket: Bucket, rows: Rows, indices: Collection[int], now: datetime) -> int:
        """Find out about these versions what is not known; how many were asked about. Raises Unreachable.

        Where that may not be seen nothing is found out: the erasure tells.
        """
        ids: Sequence[str | None] = rows.ids or [None] * len(rows)
        asked = [i for i in indices if not self._knows(rows.keys[i], ids[i], now)]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(i: int) -> None:
            async with gate:
                try:
                    lock = await lock_of(bucket, rows.keys[i], ids[i])
                except Blind:
                    return
            if lock != "absent":
                self.found(rows.keys[i], ids[i], lock, now)

        await asyncio.gather(*map(one, asked))
        return len(asked)

    def apart(self, rulings: Rulings, found: Found, rows: Rows, now: datetime) -> Found:
        """The verdicts with what is known to be locked among the held, and markers over it staying as well."""
        if not self._known or rows.ids is None or rows.of_uploads:
            return found
        until = {i: again for i in found.due if (again := self.kept(rows.keys[i], rows.ids[i], now)) is not None}
        return _apart(rulings, found, rows, until) if until else found


def _apart(rulings: Rulings, found: Found, rows: Rows, until: dict[int, datetime]) -> Found:
    keys = {rows.keys[i] for i in until}
    pairs = [(i, label) for i, label in zip(found.due, found.labels, strict=True) if i not in until]
    markers = [
        (i, label) for i, label in zip(found.markers, found.marker_labels, strict=True) if rows.keys[i] not in keys
    ]
    again = rfc3339(min(until.values()))
    kept = [label for i, label in zip(found.due, found.labels, strict=True) if i in until]
    return replace(
        found,
        due=[i for i, _ in pairs],
        labels=[label for _, label in pairs],
        markers=[i for i, _ in markers],
        marker_labels=[label for _, label in markers],
        tally=_counted(rulings, found, pairs, [label for _, label in markers], kept),
        next_due=again if found.next_due is None else min(again, found.next_due),
    )


def _counted(
    rulings: Rulings, found: Found, due: Sequence[tuple[int, str]], markers: Sequence[str], kept: Sequence[str]
) -> Tally:
    """The tally with the kept as held, and the figures of what is due made anew from what is left of it."""
    tiers = {
        label: replace(
            tier, due=markers.count(label), held=tier.held + kept.count(label), bytes=0, oldest=None, newest=None,
            overdue_seconds=0.0,
        )
        for label, tier in found.tally.tiers.items()
    }  # fmt: skip
    page = found.page
    for i, label in due:
        subject = page.accounts[i] if page.tiers is None else (page.accounts[i], page.tiers[i])
        anchor = page.anchors[i]
        moment = rfc3339(anchor) if anchor is not None else None
        past = rulings.past_term(rulings.of([subject])[subject], anchor)
        one = TierTally(due=1, bytes=page.sizes[i], oldest=moment, newest=moment, overdue_seconds=past)
        tiers[label] = tiers[label].plus(one)
    return found.tally.by(tiers)
