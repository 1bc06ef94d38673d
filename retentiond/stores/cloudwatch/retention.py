"""Retention as a ceiling: after how many days a log group may erase by itself, by the policy alone.

The service erases natively, under no permit of ours and whatever the account directory says by then. So the ceiling is
the longest term that a record of the group can have without the policy being changed, bounds of overrides included, and
rounded up to what the service permits: an account's upgrade, an override that comes later, a damaged directory, none of
them can make it erase too soon. What is due before that goes by our own sweeps, stream by stream.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from retentiond.domain.accounts import UNKNOWN
from retentiond.domain.duration import FOREVER, Duration, Term, nominal
from retentiond.domain.holds import TargetHold
from retentiond.domain.native_expiry import longest
from retentiond.domain.plan import Group as TierGroup
from retentiond.domain.plan import TargetPlan
from retentiond.stores.rulings import Account, Untold

PERMITTED: Final = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
"""The days that PutRetentionPolicy takes
(https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html)."""
_DAY: Final = timedelta(days=1)


def rounded_up(term: Term) -> int | None:
    """The fewest permitted days that are no shorter than the term, whenever it begins; None: it never erases.

    The service counts from each event, as the promise does.
    """
    if not isinstance(term, Duration):
        return None
    days = -(-(longest(term)) // _DAY)
    at = bisect_left(PERMITTED, days)
    return PERMITTED[at] if at < len(PERMITTED) else None


def longest_term(plan: TargetPlan, account: Account, tier: str | None) -> Term:
    """The longest term that a record of a group may come to have under the policy, whatever the directory says."""
    of_class = plan.data_class
    if plan.counts_from_deletion or isinstance(account, Untold):
        return FOREVER
    all_of_them = max(of_class.candidates(), key=nominal, default=FOREVER)
    if plan.tier_source not in ("constant", "record"):
        return all_of_them
    found = plan.resolve(TierGroup(plan.tier if plan.tier_source == "constant" else tier))
    if found.fault is not None or found.tier == UNKNOWN or found.term is None:
        return all_of_them
    bound = of_class.bounds.get(found.tier)
    if bound is None or not plan.knows_account or not plan.has_directory:
        return found.term
    return max(found.term, bound.maximum or FOREVER, key=nominal)


def held(holds: Iterable[TargetHold], account: Account, group: str) -> bool:
    """Whether a hold bears on any record that the group has, or may come to have: time parts none, since all grow old.

    `account` is in the directory's canonical text, as the holds' are.
    """
    return any(_bears(hold, account, group) for hold in holds)


def _bears(hold: TargetHold, account: Account, group: str) -> bool:
    if hold.accounts is not None and not isinstance(account, Untold) and account not in hold.accounts:
        return False
    if not hold.by_item:
        return True
    own = f"{group}:"
    named = any(record == group or record.startswith(own) for record in hold.records or ())
    return named or any(prefix.startswith(own) or own.startswith(prefix) for prefix in hold.prefixes)
