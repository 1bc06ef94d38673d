"""What is to go of a window as clauses: accounts or tiers, each with a range of time. Pure.

A store that erases by query can't judge record by record, so the verdict is put into the query: for each account (and
tier, where records name theirs) the ranges of anchors that are due, with those cut out that a hold covers or that were
asked for before. What differs in nothing but the account becomes one clause. The rules are those of `verdict.judge`,
and a property test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal

from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.stores.rulings import Ruling, Rulings, Subject

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_FIRST: Final = _NEVER
_LAST: Final = datetime.max.replace(tzinfo=UTC)

Kind = Literal["due", "held", "minimum", "unresolved", "requested"]


@dataclass(frozen=True, slots=True)
class Range:
    """Anchors from `since` (inclusive; None: the first) until `until` (exclusive; None: the last).

    `undated`: also records without an anchor.
    """

    since: datetime | None
    until: datetime | None
    undated: bool = False

    def meets(self, since: datetime | None, until: datetime | None) -> bool:
        """Whether an anchor can be in both."""
        return (self.since or _FIRST) < (until or _LAST) and (since or _FIRST) < (self.until or _LAST)


@dataclass(frozen=True, slots=True)
class Clause:
    """Records of some accounts with anchors in a range, which have one fate.

    `accounts` are as the records name them (None: those that name none), `ids` the same in the directory's canonical
    text, one for one. `tier` is what the records name as theirs, `by_tier` whether they name one at all. `edge` is the
    end of the term, and `late` how far in seconds the latest account's erasure is overdue.
    """

    kind: Kind
    label: str
    range: Range
    accounts: tuple[str | None, ...] = (None,)
    ids: tuple[str | None, ...] = (None,)
    tier: str | None = None
    by_tier: bool = False
    edge: datetime | None = None
    late: float = 0.0

    def document(self, count: int) -> dict[str, Any]:
        """As it is kept with a request, with how many records it was about."""
        return {
            "label": self.label,
            "since": rfc3339(self.range.since) if self.range.since else None,
            "until": rfc3339(self.range.until) if self.range.until else None,
            "undated": self.range.undated,
            "accounts": list(self.accounts),
            "ids": list(self.ids),
            "tier": self.tier,
            "by_tier": self.by_tier,
            "count": count,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Clause:
        """One that was kept."""
        since, until = document["since"], document["until"]
        return cls(
            kind="due",
            label=document["label"],
            range=Range(
                instant(since) if since else None, instant(until) if until else None, bool(document["undated"])
            ),
            accounts=tuple(document["accounts"]),
            ids=tuple(document["ids"]),
            tier=document["tier"],
            by_tier=document["by_tier"],
        )

    def may_be_held(self, hold: TargetHold, *, accounts: bool, anchors: bool) -> bool:
        """Whether a record of it can be under the hold; what single records it names can't be told here.

        `accounts`, `anchors`: whether those of the clause can be compared with the hold's; else they are any.
        """
        if accounts and hold.accounts is not None and hold.accounts.isdisjoint(i for i in self.ids if i is not None):
            return False
        return not anchors or self.range.undated or self.range.meets(hold.since, hold.until)


def clauses_of(
    rulings: Rulings, subjects: Iterable[Subject], *, by_tier: bool, requested: Sequence[Clause] = ()
) -> list[Clause]:
    """The clauses of these subjects, as records name them; `requested` are those of deletions that are under way."""
    found = rulings.of(subjects)
    groups: dict[tuple[object, ...], _Group] = {}
    asked = _by_account(requested)
    for subject in subjects:
        ruling = found[subject]
        account, tier = subject if isinstance(subject, tuple) else (subject, None)
        if account is not None and not isinstance(account, str):
            continue
        for kind, span in _spans(rulings.plan, ruling):
            before = asked.get((account, tier), ()) if kind == "due" else ()
            for fate, piece in _cut(kind, span, ruling.holds, before):
                key = (fate, ruling.label, piece, tier, ruling.edge)
                groups.setdefault(key, _Group(fate, ruling, piece, tier)).add(rulings, account, ruling)
    return [group.clause(by_tier=by_tier) for group in groups.values()]


@dataclass(slots=True)
class _Group:
    """A clause as it is filled."""

    kind: Kind
    ruling: Ruling
    range: Range
    tier: str | None
    accounts: list[str | None] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    late: float = 0.0

    def add(self, rulings: Rulings, account: str | None, ruling: Ruling) -> None:
        """One more account."""
        self.accounts.append(account)
        # The ruling of an account that is under no hold is shared by others, and has no account of its own.
        self.ids.append(rulings.facts(account)[0])
        self.late = max(self.late, rulings.past_term(ruling, None))

    def clause(self, *, by_tier: bool) -> Clause:
        """What it has come to."""
        edge = self.ruling.edge
        return Clause(
            kind=self.kind,
            label=self.ruling.label,
            range=self.range,
            accounts=tuple(self.accounts),
            ids=tuple(self.ids),
            tier=self.tier,
            by_tier=by_tier,
            edge=None if edge == _NEVER else edge,
            late=self.late,
        )


def _spans(plan: TargetPlan, ruling: Ruling) -> list[tuple[Kind, Range]]:
    """What becomes of the records of a subject by their anchors, holds aside; nothing of those that are just kept."""
    now, edge = plan.now, None if ruling.edge == _NEVER else ruling.edge
    whole = Range(None, now, undated=True)
    kept: Kind = "minimum" if plan.data_class.minimum else "due"
    if plan.counts_from_deletion:
        if ruling.deleted_at is not None and edge is not None and ruling.deleted_at < edge:
            return [("due", whole)]
        if ruling.erasing:
            return [(kept, whole)]
        return [("unresolved", whole)] if ruling.fault is not None else []
    if ruling.erasing and kept == "due":
        return [("due", whole)]
    found: list[tuple[Kind, Range]] = [("due", Range(None, edge))] if edge is not None else []
    if ruling.erasing:
        found.append(("minimum", Range(edge, now, undated=True)))
    else:
        # Of what can't be told, that counts which would be due by the shortest of all terms.
        horizon = plan.horizon() if ruling.fault is not None else None
        found.append(("unresolved", Range(None, horizon, undated=True) if horizon else Range(now, now, undated=True)))
    return found


def _cut(kind: Kind, span: Range, holds: Sequence[TargetHold], requested: Sequence[Range]) -> list[tuple[Kind, Range]]:
    """The range in pieces that have one fate each: held, asked for already, or what it was."""
    edges = {span.since or _FIRST, span.until or _LAST}
    bounds = [(hold.since, hold.until) for hold in holds] + [(each.since, each.until) for each in requested]
    for since, until in bounds:
        edges |= {e for e in (since, until) if e is not None and span.meets(e, None) and span.meets(None, e)}
    found: list[tuple[Kind, Range]] = []
    for low, high in pairwise(sorted(edges)):
        fate = kind
        if any(_within(low, high, hold.since, hold.until) for hold in holds):
            fate = "held"
        elif any(_within(low, high, each.since, each.until) for each in requested):
            fate = "requested"
        if found and found[-1][0] == fate:
            low = found.pop()[1].since or _FIRST  # noqa: PLW2901 - it goes on
        found.append((fate, Range(None if low == _FIRST else low, None if high == _LAST else high)))
    return _with_undated(found, kind, span, holds, requested)


def _with_undated(
    found: list[tuple[Kind, Range]],
    kind: Kind,
    span: Range,
    holds: Sequence[TargetHold],
    requested: Sequence[Range],
) -> list[tuple[Kind, Range]]:
    """The pieces, with records that have no anchor in one of them: such a record is inside the range of every hold."""
    if not span.undated:
        return found
    fate: Kind = "held" if holds else ("requested" if any(each.undated for each in requested) else kind)
    for at, (other, piece) in enumerate(found):
        if other == fate:
            return [*found[:at], (other, Range(piece.since, piece.until, undated=True)), *found[at + 1 :]]
    # A range of no instants: nothing but those.
    return [*found, (fate, Range(span.until, span.until, undated=True))]


def _within(low: datetime, high: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= low) and (until is None or high <= until)


def _by_account(requested: Sequence[Clause]) -> dict[tuple[str | None, str | None], list[Range]]:
    found: dict[tuple[str | None, str | None], list[Range]] = {}
    for clause in requested:
        for account in clause.accounts:
            found.setdefault((account, clause.tier), []).append(clause.range)
    return found
