"""What every sweep works with, the plan of a target under the holds as they are, and counting by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from retentiond.control import holds
from retentiond.control.database import Database
from retentiond.domain.accounts import NOTHING_REMEMBERED, Surveyed
from retentiond.domain.holds import covers_target
from retentiond.domain.plan import TargetPlan
from retentiond.ledger.journal import Journal
from retentiond.stores.base import Store, Window
from retentiond.sweep.events import Observer, ignore
from retentiond.sweep.legs import whole
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Spec, Target

_COUNT_WINDOW = 50_000


@dataclass(frozen=True, slots=True)
class Tools:
    """What every sweeper works with; `evidence` keys the digests of record ids."""

    database: Database
    journal: Journal
    spec: Spec
    evidence: bytes
    worker: str
    observer: Observer = ignore


async def make_plan(
    tools: Tools, store: Store, target: Target, now: datetime, surveyed: Surveyed = NOTHING_REMEMBERED
) -> TargetPlan:
    """The plan of a target at `now`, with the holds of the current epoch in the target's own text."""
    spec = tools.spec
    # Before all that is asked of the store: where it is opened anew meanwhile, the plan must count as one of before.
    mark = store.mark
    plan = TargetPlan(
        target=target.name,
        data_class=target.data_class,
        policy=spec.policy,
        now=now,
        rules=spec.rules,
        tier_source=target.tier_source,
        tier=target.tier,
        knows_account=target.knows_account,
        has_directory=spec.has_directory,
        groups=await store.groups(target.data_class.name),
        action=target.action,
        digest=spec.digest,
        surveyed=surveyed,
        schema=mark,
    )
    plan = replace(plan, missing=await store.missing(plan))
    return await with_holds(tools.database, store, plan)


async def with_holds(database: Database, store: Store, plan: TargetPlan) -> TargetPlan:
    """The plan under the holds as they are now."""
    async with database.transaction(read_only=True) as tx:
        current = await holds.current(tx)
    bearing = [
        await store.hold(hold)
        for hold in current.holds
        if covers_target(hold.scope, target=plan.target, class_name=plan.data_class.name)
    ]
    return replace(plan, holds=tuple(bearing), epoch=current.epoch)


async def count_due(store: Store, plan: TargetPlan, total: Outcome) -> Outcome:
    """Judge every record that can be due, touching none, and add it to `total`."""
    for leg in whole(store, plan):
        await count_leg(store, plan, leg, total)
    return total


async def count_leg(store: Store, plan: TargetPlan, leg: Window, total: Outcome) -> int:
    """Judge the records of one leg and add them to `total`; how many are due."""
    before, after = total.would, leg.after
    while True:
        found = await store.count(plan, replace(leg, after=after, size=_COUNT_WINDOW))
        total.judged(found)
        after = found.after
        if after is None:
            return total.would - before
