"""From what the account directory says of an account to the term that applies to its records.

`resolve` is the one definition of that rule. `explain` calls it for one account; a store calls it once for each
distinct (tier, override) pair that the directory holds and pushes the answers down as a mapping, so that SQL never
parses a duration and text that nobody has resolved is kept (2-semantics, "Tiers").
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from retentiond.domain.duration import Term, cutoff, parse_term
from retentiond.domain.policy import DataClass, Policy
from retentiond.errors import DurationError

UNKNOWN: Final = "unknown"
NO_ACCOUNT: Final = "none"


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the directory says of an account: raw tier, override text of the class, deletion, a recent tier change.

    Not found, but with `deleted_at`: the directory has lost it, and it counts as deleted since then.
    """

    found: bool = False
    tier: str | None = None
    override: str | None = None
    deleted_at: datetime | None = None
    in_grace: bool = False


def account_hash(key: bytes, account: str) -> bytes:
    """The 16 bytes by which an account's id (as the directory's text) is remembered; the key makes it no id."""
    return hmac.digest(key, account.encode("utf-8", "surrogatepass"), hashlib.sha256)[:16]


@dataclass(frozen=True, slots=True)
class MissingAccount:
    """An account that the directory no longer has and that counts as deleted since it was first missed (UTC)."""

    id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What our memory adds to what the directory says now; the empty value adds nothing.

    `recent`: accounts whose tier changed within the downgrade grace. `tiers`: the raw tier of each at the survey, so
    that a change since then is seen; None where the directory or its rows tell that themselves. `missing`: since when
    accounts are missing, by `account_hash` under `key`; empty unless they count as deleted (`accounts.missing`).
    `transaction`: what the survey began in, for rows that carry their own. `digest`: of all that was said of accounts,
    as far as verdicts at that instant rest on it; the same for the same, in any order.
    """

    recent: frozenset[str] = frozenset()
    tiers: Mapping[str, str | None] | None = None
    missing: Mapping[bytes, datetime] = field(default_factory=dict)
    key: bytes = b""
    transaction: int | None = None
    digest: str = ""

    def in_grace(self, account: str, tier: str | None) -> bool:
        """Whether a found account's tier changed of late; one that the survey did not see may have had any."""
        if account in self.recent:
            return True
        return self.tiers is not None and (account not in self.tiers or self.tiers[account] != tier)

    def missing_since(self, account: str) -> datetime | None:
        """Since when (UTC) an account that is not found counts as deleted; None where it was never in the directory."""
        return self.missing.get(account_hash(self.key, account)) if self.missing else None

    def applied(self, account: str, facts: AccountFacts, *, has_grace: bool) -> AccountFacts:
        """What the directory says now, with what is remembered."""
        if facts.found:
            return replace(facts, in_grace=facts.in_grace or (has_grace and self.in_grace(account, facts.tier)))
        return replace(facts, deleted_at=self.missing_since(account))


NOTHING_REMEMBERED: Final = Surveyed()


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
