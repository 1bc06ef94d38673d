"""What log streams say of themselves, as the page that verdicts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally, earliest
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.rows import STANDARD
from retentiond.stores.cloudwatch.walk import Row
from retentiond.stores.judging import Judged, Page
from retentiond.stores.rulings import Account, Untold


def page_of(config: CloudwatchTarget, rows: Sequence[Row]) -> Page:
    """The records as they are judged; of their sizes the service tells nothing ("always reported as zero")."""
    return Page(
        [row.stream.id for row in rows],
        [row.stream.anchor for row in rows],
        [0] * len(rows),
        [account_of(row) for row in rows],
        [row.owned.tier for row in rows] if config.has_tier else None,
    )


def account_of(row: Row) -> Account:
    """Whose a stream is; nothing is told of one that can't be read right before it would go.

    GetLogEvents is not there for groups of the class INFREQUENT_ACCESS, and a group of DELIVERY lives for a day or two
    (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatch_Logs_Log_Classes.html).
    """
    return row.owned.account if row.owned.group.kind == STANDARD else Untold.CLASS


def told(found: Judged, after: tuple[str, ...] | None, requests: int) -> Tally:
    """The tally of a window."""
    next_due = rfc3339(found.next_due) if found.next_due is not None else None
    return replace(found.tally, after=after, next_due=next_due, requests=requests)


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
        ceilings=_ceilings(one, other),
    )
    return both.by(tiers)


def _ceilings(one: Tally, other: Tally) -> dict[str, int]:
    """The ceilings of both."""
    return {
        days: one.ceilings.get(days, 0) + other.ceilings.get(days, 0)
        for days in dict.fromkeys([*one.ceilings, *other.ceilings])
    }
