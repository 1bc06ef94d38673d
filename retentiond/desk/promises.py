"""What `promises` says: from the counts of each target to a row for each class and tier."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from retentiond.desk.targets import Broken
from retentiond.domain.accounts import NO_ACCOUNT, UNKNOWN
from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import DataClass, Policy
from retentiond.stores.base import Store, TierTally, earliest
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Target


@dataclass(frozen=True, slots=True)
class Promise:
    """How one target stands at `now`: its counts by tier, the oldest anchor of each tier.

    `known` is whether a tier without an oldest anchor has no record at all; else it is only not known. `terms` are
    those of the labels that are no tiers.
    """

    now: datetime
    tiers: Mapping[str, TierTally]
    oldest: Mapping[str, str]
    known: bool
    terms: Mapping[str, str | None]


async def beyond(store: Store, plan: TargetPlan, outcome: Outcome, tiers: Sequence[str]) -> Promise:
    """Where a target stands. A tier with nothing before the plan's horizon takes one more look, of bounded size."""
    # The walk over the anchors before the horizon has seen all of those; of later ones only some were looked at.
    horizon = plan.horizon()
    edge = rfc3339(horizon) if horizon else ""
    oldest = {tier: tally.first for tier, tally in outcome.tiers.items() if tally.first and tally.first < edge}
    known = not set(tiers) - set(oldest)
    if not known and (found := await store.beyond(plan)) is not None:
        oldest = {tier: tally.first for tier, tally in found.tiers.items() if tally.first} | oldest
        known = found.after is None
    terms = {NO_ACCOUNT: _text(plan.of_nobody().term), UNKNOWN: _text(plan.of_unknown().term)}
    return Promise(plan.now, outcome.tiers, oldest, known, terms)


def promised(
    policy: Policy, classes: Collection[str], targets: Sequence[Target], found: Mapping[str, Promise | Broken]
) -> list[dict[str, object]]:
    """A row for each class and tier, over all targets of the class; of no and unknown tier where there are records."""
    rows: list[dict[str, object]] = []
    for name in sorted(classes):
        data_class = policy.classes[name]
        mine = {target.name: found[target.name] for target in targets if target.data_class.name == name}
        labels = {label for each in mine.values() if isinstance(each, Promise) for label in (*each.tiers, *each.oldest)}
        rows += [_row(data_class, tier, mine) for tier in (*policy.tiers, *sorted(labels - set(policy.tiers)))]
    return rows


def _row(data_class: DataClass, tier: str, found: Mapping[str, Promise | Broken]) -> dict[str, object]:
    readable = [each for each in found.values() if isinstance(each, Promise)]
    total = TierTally()
    for each in readable:
        total = total.plus(each.tiers.get(tier, TierTally()))
    known = len(readable) == len(found) and all(each.known or tier in each.oldest for each in readable)
    oldest = earliest(*(each.oldest.get(tier) for each in readable)) if known else None
    overdue = total.due + total.blocked
    complete = bool(found) and len(readable) == len(found)
    return {
        "class": data_class.name,
        "tier": tier,
        "targets": sorted(found),
        "term": _term(data_class, tier, readable),
        "after": data_class.after,
        "legal_minimum": data_class.minimum,
        "oldest": oldest,
        "oldest_age_days": _days(oldest, readable) if oldest else None,
        "oldest_known": known and bool(found),
        "overdue": overdue,
        "overdue_seconds": round(total.overdue_seconds, 3),
        "blocked": total.blocked,
        "held": total.held,
        "minimum": total.minimum,
        "unresolved": total.unresolved,
        "kept": False if overdue else True if complete else None,
    }


def _days(oldest: str, readable: Sequence[Promise]) -> float:
    now = min(each.now for each in readable)
    return round((now - instant(oldest)).total_seconds() / 86_400, 1)


def _term(data_class: DataClass, tier: str, readable: Sequence[Promise]) -> str | None:
    if tier in data_class.terms:
        return str(data_class.terms[tier])
    return next((each.terms.get(tier) for each in readable), None)


def _text(term: object) -> str | None:
    return None if term is None else str(term)
