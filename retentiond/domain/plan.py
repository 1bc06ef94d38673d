"""The plan of one target: every rule that enters a verdict, frozen with its `now`.

`explain` judges a record by it (`verdict.judge`), and a store derives its SQL from the same plan. What differs
between accounts comes in as groups: each distinct pair of raw tier and override text seen in the account directory,
resolved once here. A pair that appears later is in no group, and is kept until the next plan has resolved it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Literal

from retentiond.domain.accounts import (
    NOTHING_REMEMBERED,
    UNKNOWN,
    AccountFacts,
    MissingAccount,
    Resolution,
    Surveyed,
    TierRules,
    of_nobody,
    of_tier,
    resolve,
)
from retentiond.domain.duration import cutoff
from retentiond.domain.holds import TargetHold
from retentiond.domain.policy import DataClass, Policy

TierSource = Literal["constant", "record", "directory", "none"]


@dataclass(frozen=True, slots=True)
class Group:
    """A distinct pair of raw tier and override text of the directory (or of the records, for a tier column)."""

    tier: str | None
    override: str | None = None


@dataclass(frozen=True, eq=False)  # a plan is itself alone, so that what follows from it can be kept
class TargetPlan:
    """All that decides the verdicts of one target at `now` (UTC).

    `tier_source` says where the tier comes from; `knows_account` whether the records name their account, and
    `has_directory` whether there is a directory to look it up in. `surveyed` is what our memory adds to it, and
    `missing` are the accounts of the target's own records that are due by it: a store takes each for one more row of
    the directory that is not found but deleted, as long as the directory really lacks it. `schema` is what the store
    told of itself when the plan was made (`Store.mark`): the plan's texts are of that.
    """

    target: str
    data_class: DataClass
    policy: Policy
    now: datetime
    rules: TierRules = field(default_factory=TierRules)
    tier_source: TierSource = "directory"
    tier: str | None = None
    knows_account: bool = True
    has_directory: bool = True
    groups: tuple[Group, ...] = ()
    holds: tuple[TargetHold, ...] = ()
    action: str = "delete"
    digest: str = ""
    epoch: int = 0
    surveyed: Surveyed = NOTHING_REMEMBERED
    missing: tuple[MissingAccount, ...] = ()
    schema: str = ""

    @property
    def deletion_cutoff(self) -> datetime:
        """An account deleted before this instant is due for erasure (2-semantics, "Erasure and export")."""
        edge = cutoff(self.now, self.policy.deletion_grace)
        assert edge is not None
        return edge

    @property
    def grace_cutoff(self) -> datetime | None:
        """A tier changed after this instant is in its downgrade grace; None: there is no grace."""
        return cutoff(self.now, self.policy.downgrade_grace) if self.policy.downgrade_grace else None

    @property
    def counts_from_deletion(self) -> bool:
        """Whether the term counts from the account's deletion instead of the record's anchor."""
        return self.data_class.after == "account_deleted"

    def resolve(self, group: Group, *, in_grace: bool = False) -> Resolution:
        """The resolution of a group, under the target's own tier where it has one."""
        tier = self.tier if self.tier_source == "constant" else group.tier
        facts = AccountFacts(found=True, tier=tier, override=group.override, in_grace=in_grace)
        return resolve(self.policy, self.data_class, self.rules, facts, self.now)

    def resolution(self, *, account: str | None, raw_tier: str | None, facts: AccountFacts) -> Resolution:
        """The resolution of one record, by its account, its own raw tier, and what the directory says."""
        if self.tier_source in ("constant", "record"):
            return self.resolve(Group(raw_tier, facts.override if facts.found else None))
        if not self.knows_account or not self.has_directory:
            return of_tier(self.policy, self.data_class, UNKNOWN, self.now)
        if account is None:
            return self.of_nobody()
        if not facts.found:
            return self.of_unknown()
        return self.resolve(Group(facts.tier, facts.override), in_grace=facts.in_grace)

    def of_nobody(self) -> Resolution:
        """The resolution of a record without an account."""
        return of_nobody(self.policy, self.data_class, self.now)

    def of_unknown(self) -> Resolution:
        """The resolution of a record whose account the directory does not have."""
        return of_tier(self.policy, self.data_class, UNKNOWN, self.now)

    def in_grace(self) -> Resolution:
        """The resolution of a found account in its downgrade grace whose override has no fault."""
        return self.resolve(Group(None), in_grace=True)

    def raw_tiers(self) -> tuple[str, ...]:
        """The raw names that are a tier of the policy, or are mapped to one."""
        return (*self.policy.tiers, *(raw for raw in self.rules.tier_map if raw not in self.policy.tiers))

    def resolutions(self) -> Mapping[Group, Resolution]:
        """Each group's resolution outside the downgrade grace: every pair that a record of the target can have."""
        return self._resolutions

    @cached_property
    def _resolutions(self) -> Mapping[Group, Resolution]:
        overrides = dict.fromkeys([None, *(group.override for group in self.groups)])
        groups: Iterable[Group] = self.groups
        if self.tier_source == "constant":
            groups = (Group(None, override) for override in overrides)
        elif self.tier_source == "record":
            groups = (Group(tier, override) for tier in (*self.raw_tiers(), None) for override in overrides)
        return {group: self.resolve(group) for group in groups}

    def horizon(self) -> datetime | None:
        """No record with a later anchor can be expired; None: nothing can expire by its anchor."""
        return self._horizon

    @cached_property
    def _horizon(self) -> datetime | None:
        if self.counts_from_deletion:
            return None
        edges = [found.cutoff for found in self.resolutions().values() if found.cutoff]
        edges += [found.cutoff for found in (self.of_nobody(), self.of_unknown()) if found.cutoff]
        return max(edges, default=None)
