"""The verdict on one record: what applies, in the order of precedence of 2-semantics, with every reason.

The order: held, minimum, erase (account_erasure), unresolved, erase (expired), keep. The store's SQL is derived from
the same `TargetPlan`; a property test holds the two against each other on a real PostgreSQL.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from retentiond.domain.accounts import UNKNOWN, AccountFacts, Resolution
from retentiond.domain.duration import Term, expires_at, rfc3339
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan


class Kind(StrEnum):
    """The verdicts."""

    HELD = "held"
    MINIMUM = "minimum"
    ERASE = "erase"
    UNRESOLVED = "unresolved"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What a record says of itself: `anchor` is None where it is missing, unparsable or infinite.

    `referring` are the tables whose rows refer to it, which keep it from being deleted. `fault` says why it can't be
    read at all (an object's key that does not fit its template): nothing but its key and anchor is known of it.
    """

    key: str
    anchor: datetime | None
    account: str | None = None
    tier: str | None = None
    referring: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a record, and why; `considered` lists every rule and hold that was looked at."""

    kind: Kind
    reason: str
    rule: str
    tier: str
    term: Term | None
    anchor: datetime | None
    expires_at: datetime | None
    holds: tuple[str, ...]
    considered: tuple[str, ...]
    due: bool

    def document(self, class_name: str) -> dict[str, object]:
        """The shape of `explain --json` (3-interface, "Commands")."""
        return {
            "verdict": str(self.kind),
            "reason": self.reason,
            "rule": self.rule,
            "class": class_name,
            "tier": self.tier,
            "term": str(self.term) if self.term else None,
            "anchor": rfc3339(self.anchor) if self.anchor else None,
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "holds": list(self.holds),
            "considered": list(self.considered),
        }


def judge(plan: TargetPlan, record: RecordFacts, facts: AccountFacts) -> Verdict:
    """The verdict on a record at the plan's `now`."""
    found = _resolution(plan, record, facts)
    base = facts.deleted_at if plan.counts_from_deletion else record.anchor
    expired = found.fault is None and None not in (base, found.cutoff) and _before(base, found.cutoff)
    erasing = _erasing(plan, record, facts)
    holds = tuple(hold.hold_id for hold in plan.holds if _covers(plan, hold, record))
    kind, reason, rule = _decide(plan, record, facts, found, holds=holds, expired=expired, erasing=erasing)
    return Verdict(
        kind=kind,
        reason=reason,
        rule=rule,
        tier=found.tier,
        term=found.term,
        anchor=record.anchor,
        expires_at=expires_at(base, found.term) if base and found.term else None,
        holds=holds,
        considered=(
            *_considered(plan, facts, found, holds, expired=expired, erasing=erasing),
            *(_blocked(table) for table in record.referring if kind is Kind.ERASE),
        ),
        due=expired or (erasing and not plan.data_class.minimum),
    )


def _resolution(plan: TargetPlan, record: RecordFacts, facts: AccountFacts) -> Resolution:
    if record.fault is not None:
        return Resolution(UNKNOWN, None, None, "record", fault=record.fault)
    return plan.resolution(account=record.account, raw_tier=record.tier, facts=facts)


def _covers(plan: TargetPlan, hold: TargetHold, record: RecordFacts) -> bool:
    if record.fault is not None:
        hold = replace(hold, accounts=None)  # whose it is can't be evaluated, and so it matches
    account = record.account if plan.knows_account else None
    return hold.matches(account=account, key=record.key, anchor=record.anchor)


def _blocked(table: str) -> str:
    return f"blocked: kept as long as rows of {table} refer to it, though it is due"


def _before(base: datetime | None, edge: datetime | None) -> bool:
    return base is not None and edge is not None and base < edge


def _erasing(plan: TargetPlan, record: RecordFacts, facts: AccountFacts) -> bool:
    known = plan.knows_account and plan.has_directory and record.account is not None and record.fault is None
    return known and _before(facts.deleted_at, plan.deletion_cutoff)


def _decide(
    plan: TargetPlan,
    record: RecordFacts,
    facts: AccountFacts,
    found: Resolution,
    *,
    holds: tuple[str, ...],
    expired: bool,
    erasing: bool,
) -> tuple[Kind, str, str]:
    if holds:
        return Kind.HELD, "hold", "hold"
    if plan.data_class.minimum and not expired:
        return Kind.MINIMUM, "legal_minimum", found.rule
    if erasing and not plan.data_class.minimum:
        return Kind.ERASE, "account_erasure", "deletion_grace"
    if fault := unresolved(plan, record, facts, found):
        return Kind.UNRESOLVED, fault, found.rule
    if expired:
        return Kind.ERASE, "expired", found.rule
    if found.cutoff is None or (plan.counts_from_deletion and record.account is None):
        return Kind.KEEP, "forever", found.rule
    return Kind.KEEP, "within_term", found.rule


def unresolved(plan: TargetPlan, record: RecordFacts, facts: AccountFacts, found: Resolution) -> str | None:
    """Why a record can't be resolved and the safe reading is to keep it; None where it can."""
    if found.fault is not None:
        return found.fault
    if not plan.counts_from_deletion:
        return "the anchor is missing or infinite" if record.anchor is None else None
    if not plan.knows_account or not plan.has_directory:
        return "the term counts from the account's deletion, and the account is not known here"
    if record.account is not None and not facts.found and facts.deleted_at is None:
        return "the term counts from the account's deletion, and the directory does not have the account"
    return None


def _considered(
    plan: TargetPlan,
    facts: AccountFacts,
    found: Resolution,
    holds: tuple[str, ...],
    *,
    expired: bool,
    erasing: bool,
) -> tuple[str, ...]:
    lines = [f"hold {h.hold_id}: {'matches' if h.hold_id in holds else 'does not match'}" for h in plan.holds]
    if not plan.holds:
        lines.append("holds: none bears on this target")
    minimum = "is" if plan.data_class.minimum else "is no"
    lines.append(f"class {plan.data_class.name}: {minimum} legal minimum")
    if facts.deleted_at:
        since = rfc3339(facts.deleted_at)
        told = f"account deleted at {since}" if facts.found else f"account missing since {since}, which means deleted"
        lines.append(f"{told}: erasure {'is' if erasing else 'is not yet'} due (grace {plan.policy.deletion_grace})")
    elif plan.has_directory and plan.knows_account:
        lines.append("account not deleted" if facts.found else "account not in the directory")
    edge = rfc3339(found.cutoff) if found.cutoff else "never"
    lines.append(f"rule {found.rule}: tier {found.tier}, term {found.term or 'unknown'}, cutoff {edge}")
    if found.fault:
        lines.append(f"fault: {found.fault}")
    lines.append(f"expired: {'yes' if expired else 'no'}")
    return tuple(lines)
