"""How each promise stands, true and cheap.

A full count judges every record that can be due; on the demo's data it takes about as long as a batch or two, so it is
made only before the daemon begins and after a sweep has drained its target. In between, what the daemon says it has
erased is taken off. A promise counts as kept by a full count alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from retentiond.daemon import App
from retentiond.demo.child import Reading
from retentiond.domain.accounts import NO_ACCOUNT
from retentiond.domain.policy import DataClass, Policy
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due
from retentiond.sweep.spec import Target


@dataclass(frozen=True, slots=True)
class Counted:
    """A full count of one target by tier, and what the daemon had done there before it."""

    due: Mapping[str, int]
    held: Mapping[str, int]
    before: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promise:
    """One class and tier. `overdue` is None while the last records are gone and nobody has counted again."""

    class_name: str
    tier: str
    term: str
    overdue: int | None
    held: int
    kept: bool

    def document(self) -> dict[str, object]:
        """The promise as `demo --json` shows it."""
        return {
            "class": self.class_name,
            "tier": self.tier,
            "term": self.term,
            "overdue": self.overdue,
            "held": self.held,
            "kept": self.kept,
        }


@dataclass(slots=True)
class Standing:
    """All targets of the configuration, as last counted."""

    app: App
    counted: dict[str, Counted] = field(default_factory=dict)
    drained: dict[str, float] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)

    async def count_all(self) -> None:
        """Count every target; raises what makes one impossible to judge."""
        for target in self.app.spec.targets:
            await self._count(target, Reading({}, {}))

    async def count_drained(self, reading: Reading) -> None:
        """Count again what has been drained since it was last counted."""
        for target in self.app.spec.targets:
            at = reading.drained.get(target.name, 0.0)
            if at > self.drained.get(target.name, 0.0):
                self.drained[target.name] = at
                await self._count(target, reading)

    async def _count(self, target: Target, reading: Reading) -> None:
        counted = await _count(self.app, target, reading)
        self.counted[target.name] = counted
        self.labels.setdefault(target.name, set()).update(counted.due, counted.held)

    def promises(self, reading: Reading) -> list[Promise]:
        """Every class and tier, and the records of nobody where some have been due or held."""
        policy = self.app.spec.policy
        by_class = {name: place for place, name in enumerate(policy.classes)}
        found = []
        for target in sorted(self.app.spec.targets, key=lambda each: by_class[each.data_class.name]):
            counted = self.counted[target.name]
            others = sorted(self.labels[target.name] - set(policy.tiers))
            found += [_promise(policy, target, tier, counted, reading) for tier in (*policy.tiers, *others)]
        return found

    @property
    def kept(self) -> bool:
        """Whether every promise was found kept by a full count."""
        return not any(count for each in self.counted.values() for count in each.due.values())


async def _count(app: App, target: Target, reading: Reading) -> Counted:
    plan = await app.engine.plan(target)
    store = app.engine.stores[target.name]
    due = (await count_due(store, plan, Outcome())).by_tier
    held: dict[str, int] = {}
    if plan.holds:
        # What would be due if there were no holds, less what is due: the held records, tier by tier.
        without = (await count_due(store, replace(plan, holds=()), Outcome())).by_tier
        held = {tier: count - due.get(tier, 0) for tier, count in without.items()}
    return Counted(due, held, reading.acted)


def _promise(policy: Policy, target: Target, tier: str, counted: Counted, reading: Reading) -> Promise:
    key = (target.name, tier)
    due = counted.due.get(tier, 0)
    left = due - reading.acted.get(key, 0) + counted.before.get(key, 0)
    return Promise(
        class_name=target.data_class.name,
        tier=tier,
        term=_term(policy, target.data_class, tier),
        overdue=left if left > 0 else None if due else 0,
        held=counted.held.get(tier, 0),
        kept=due == 0,
    )


def _term(policy: Policy, data_class: DataClass, tier: str) -> str:
    known = (policy.no_account or "") if tier == NO_ACCOUNT else tier
    term = str(data_class.terms[known]) if known in data_class.terms else "longest"
    return f"{term} after deletion" if data_class.after == "account_deleted" else term
