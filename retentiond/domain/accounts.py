"""From what the account directory says of an account to the term that applies to its records.

`resolve` is the one definition of that rule. `explain` calls it for one account; a store calls it once for each
distinct (tier, override) pair that the directory holds and pushes the answers down as a mapping, so that SQL never
parses a duration and text that nobody has resolved is kept (2-semantics, "Tiers").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from retentiond.domain.duration import Term, cutoff, parse_term
from retentiond.domain.policy import DataClass, Policy
from retentiond.errors import DurationError

UNKNOWN: Final = "unknown"
NO_ACCOUNT: Final = "none"


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the directory says of an account: raw tier, override text of the class, deletion, a recent tier change."""

    found: bool = False
    tier: str | None = None
    override: str | None = None
    deleted_at: datetime | None = None
    in_grace: bool = False


@dataclass(frozen=True, slots=True)
class TierRules:
    """How the names of the directory become tiers of the policy."""

    tier_map: Mapping[str, str] = field(default_factory=dict)

    def name(self, raw: str | None, policy: Policy) -> str:
        """The policy's tier for a raw name, or `unknown`."""
        if raw is None:
            return UNKNOWN
        mapped = self.tier_map.get(raw, raw)
        return mapped if mapped in policy.tiers else UNKNOWN


@dataclass(frozen=True, slots=True)
class Resolution:
    """The term of an account's records: `cutoff` is None when they never expire; `fault` says why it can't be told."""

    tier: str
    term: Term | None
    cutoff: datetime | None
    rule: str
    fault: str | None = None


def longest(data_class: DataClass, now: datetime) -> Term:
    """The candidate term that reaches furthest back from `now`: no other keeps a record longer today."""
    best: tuple[datetime, Term] | None = None
    for term in data_class.candidates():
        edge = cutoff(now, term)
        if edge is None:
            return term
        if best is None or edge < best[0]:
            best = (edge, term)
    if best is None:
        msg = f"class {data_class.name} has no term"
        raise ValueError(msg)
    return best[1]


def resolve(policy: Policy, data_class: DataClass, rules: TierRules, facts: AccountFacts, now: datetime) -> Resolution:
    """The term for the records of an account that the directory was asked about."""
    tier = rules.name(facts.tier, policy) if facts.found else UNKNOWN
    override = _override(policy, data_class, tier, facts)
    if isinstance(override, str):
        return Resolution(tier, None, None, "override", fault=override)
    if facts.found and facts.in_grace:
        return _longest(data_class, tier, "downgrade_grace", now)
    if override is not None:
        return Resolution(tier, override, cutoff(now, override), "override")
    return of_tier(policy, data_class, tier, now)


def of_tier(policy: Policy, data_class: DataClass, tier: str, now: datetime) -> Resolution:
    """The term of a tier by its name in the policy, or the rule for unknown ones."""
    if tier == UNKNOWN:
        if data_class.uniform and not data_class.bounds:
            return _plain(data_class, tier, policy.tiers[0], "uniform", now)
        if policy.unknown_tier != "longest":
            return _plain(data_class, tier, policy.unknown_tier, "unknown_tier", now)
        return _longest(data_class, tier, "unknown_tier", now)
    return _plain(data_class, tier, tier, "tier", now)


def of_nobody(policy: Policy, data_class: DataClass, now: datetime) -> Resolution:
    """The term of records without an account (`policy.no_account`)."""
    if policy.no_account is None:
        return _longest(data_class, NO_ACCOUNT, "no_account", now)
    return _plain(data_class, NO_ACCOUNT, policy.no_account, "no_account", now)


def _plain(data_class: DataClass, label: str, tier: str, rule: str, now: datetime) -> Resolution:
    term = data_class.terms[tier]
    return Resolution(label, term, cutoff(now, term), rule)


def _longest(data_class: DataClass, label: str, rule: str, now: datetime) -> Resolution:
    term = longest(data_class, now)
    edge = cutoff(now, term)
    fault = "tier unknown, and the longest term is forever" if edge is None and rule == "unknown_tier" else None
    return Resolution(label, term, edge, rule, fault)


def _override(policy: Policy, data_class: DataClass, tier: str, facts: AccountFacts) -> Term | str | None:
    """The override that applies, None where none does, or the text of its fault."""
    if not facts.found or facts.override is None:
        return None
    try:
        term = parse_term(facts.override)
    except DurationError as error:
        return f"the account's override is malformed: {error.message}"
    if tier in data_class.bounds and data_class.bounds[tier].admit(term):
        return term
    if any(data_class.bounds[other].admit(term) for other in policy.tiers if other in data_class.bounds):
        return None
    return f"the account's override {term} is out of bounds for every tier"
