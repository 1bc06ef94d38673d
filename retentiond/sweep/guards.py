"""The guard over a sweep's size: `guards.max_fraction` and `guards.max_records` (4-safety, "Guards").

It counts before the first batch, and what it allows bounds the whole sweep: if more becomes due meanwhile, say because
the account directory was changed, the sweep stops there and the next one is guarded anew. An estimate of how many
records there are may stop a sweep, and never lets one through: after a mass delete it is too high by any factor.

A store that is told to erase by itself (`Tally.ceilings`) erases records that are never counted as due. So groups whose
retention becomes finite or shorter are guarded as a share of the groups, also where no record is due. `min_records` is
no floor for them, since one group may hold all there is; the floor is a single group, as each new one gets its
retention, unless that is the only one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from retentiond.control import approvals
from retentiond.domain.permit import Lease
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Guarded
from retentiond.ledger import kinds
from retentiond.stores.base import EXACT_BELOW, Store, Window
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools, count_leg
from retentiond.sweep.questions import not_asked
from retentiond.sweep.spec import Target

_NO_LIMIT = float("inf")


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many records a sweep may act on (None: any number), and how many were due in each of its legs.

    `groups`: of how many groups of records it may shorten the retention (None: any number).
    """

    most: int | None
    due: tuple[int, ...] = ()
    groups: int | None = None

    def of(self, legs: Collection[int]) -> int | None:
        """What the sweepers of these legs (by place) may act on: what was due there, and a share of the rest."""
        if self.most is None:
            return None
        over = self.most - sum(self.due)
        return sum(self.due[leg] for leg in legs) + over * len(legs) // len(self.due)


async def backlog(
    tools: Tools,
    store: Store,
    target: Target,
    plan: TargetPlan,
    lease: Lease,
    outcome: Outcome,
    legs: Sequence[Window],
) -> Allowance:
    """How many records the sweep of these legs may act on, with what had to be counted in `outcome.counted`.

    Raises Guarded, with the question on the waiting list, where it takes an approval.
    """
    limits = tools.spec.limits
    if limits.max_fraction >= 1 and limits.max_records is None:
        return Allowance(None)
    # Where counting the legs meets every record, that is the total, and costs nothing more.
    total = 0 if limits.max_fraction >= 1 or store.rests else await store.total()
    outcome.counted = Outcome()
    by_leg = [await count_leg(store, plan, leg, outcome.counted) for leg in legs]
    outcome.gone += outcome.counted.gone
    if store.rests:
        total = outcome.counted.scanned
    fraction = limits.max_fraction * total if limits.max_fraction < 1 else _NO_LIMIT
    most = min(fraction, limits.max_records if limits.max_records is not None else _NO_LIMIT)
    limit = int(max(most, limits.min_records))
    due = outcome.counted.would
    if 0 < due <= limit and total >= EXACT_BELOW and limits.max_fraction and not store.rests:
        # As many as `due` needs, and some more, so that a little that becomes due meanwhile may go as well.
        there = await store.counted(ceil(due / limits.max_fraction) + EXACT_BELOW)
        fraction = limits.max_fraction * there
        limit = min(limit, int(max(fraction, limits.min_records)))
    shortened, most_groups = outcome.counted.shortened, _most_groups(limits.max_fraction, outcome.counted.groups)
    groups_trip = most_groups is not None and shortened > most_groups
    if due <= limit and not groups_trip:
        async with tools.database.transaction() as tx:
            await not_asked(tx, tools.journal, "sweep", target.name, by=tools.worker)
        return Allowance(limit, tuple(by_leg), most_groups)
    # The approval is about exactly these groups, and bounds both together.
    digest = approvals.with_groups(plan.digest, shortened) if groups_trip else plan.digest
    asked = due + shortened if groups_trip else due
    async with tools.database.transaction() as tx:
        approval = await approvals.find(tx, "sweep", target.name, digest)
        if approval is not None and (approval.bound is None or asked <= approval.bound):
            await approvals.use(tx, approval.id, lease)
            used = kinds.approval(
                "used", subject="sweep", target=target.name, digest=digest, bound=approval.bound, by=tools.worker
            )
            await tools.journal.append(tx, used)
            if not groups_trip:
                return Allowance(approval.bound, tuple(by_leg), most_groups)
            records = approval.bound - shortened if approval.bound is not None else None
            return Allowance(records, tuple(by_leg), shortened)
        detail = {"limit": limit, **({"groups": shortened, "groups_limit": most_groups} if groups_trip else {})}
        await approvals.request(tx, "sweep", target.name, digest, asked, detail)
    if groups_trip:
        raise Guarded(
            "fraction",
            f"a sweep of target {target.name} would shorten the retention of {shortened} of {outcome.counted.groups} "
            f"groups, more than {most_groups}, and {plan.action} {due} records (guards.max_fraction)",
            remedy=f"look at `retentiond plan` and at targets.{target.name}.groups, then run "
            f"`retentiond approve {target.name}`",
        )
    raise Guarded(
        "fraction" if fraction <= most else "records",
        f"a sweep of target {target.name} would {plan.action} {due} records, more than {limit} "
        "(guards.max_fraction, guards.max_records)",
        remedy=f"look at `retentiond plan`, then run `retentiond approve {target.name}`",
    )


def _most_groups(fraction: float, groups: int) -> int | None:
    """Of how many groups the retention may become shorter unasked (None: any number)."""
    return None if fraction >= 1 else max(int(fraction * groups), min(1, groups - 1), 0)
