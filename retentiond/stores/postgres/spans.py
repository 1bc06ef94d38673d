"""What a walk's condition says of the anchors in it, and so which terms are over for all of them, or for none.

A batch is a narrow stretch of time: as a rule every term is over for the whole of it, or not yet for any of it. Then
what is due hangs on the account alone, and is told once an account instead of once a record. The walk's condition is
on the record's own columns and part of the same WHERE: a record that was refreshed meanwhile does not fulfil it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from retentiond.domain.plan import TargetPlan
from retentiond.stores.postgres.conditions import expired
from retentiond.stores.postgres.queries import cutoff_sql
from retentiond.stores.postgres.shape import Params, Shape
from retentiond.stores.postgres.terms import UNTOLD, Terms
from retentiond.stores.postgres.walks import Walk

_NO_NUMBER = -1


@dataclass(frozen=True, slots=True)
class Span:
    """Every anchor is a finite instant from `low` to `high`, both included."""

    low: datetime
    high: datetime

    def is_over(self, cutoff: datetime | None) -> bool | None:
        """Whether all anchors are before the cutoff (None: the term never ends); None: some may be, others not."""
        if cutoff is None or cutoff <= self.low:
            return False
        return True if self.high < cutoff else None


def span_of(shape: Shape, walk: Walk) -> Span | None:
    """The span of a walk in the order of anchors that has a beginning and an end; None for any other."""
    if shape.anchor.base != "timestamptz" or walk.columns[:1] != (shape.anchor,):
        return None
    if walk.low is None or walk.high is None:
        return None
    try:
        return Span(datetime.fromisoformat(walk.low), datetime.fromisoformat(walk.high))
    except ValueError:  # infinite, or before the year 1
        return None


def is_over(
    shape: Shape,
    plan: TargetPlan,
    terms: Terms,
    walk: Walk,
    params: Params,
    *,
    number: str,
    of: Collection[int],
    grace: bool = False,
) -> str:
    """Whether a record's term is over, as SQL, by its number: one of these, or the one of what can't be told.

    With `grace` that of an account `a` in its downgrade grace is the longest there is.
    """
    grace = grace and plan.tier_source == "directory" and plan.grace_cutoff is not None
    span = None if plan.counts_from_deletion else span_of(shape, walk)
    if span is not None:
        told = {n: span.is_over(terms.resolutions[n - 1].cutoff) for n in of if n != UNTOLD}
        graced = span.is_over(plan.in_grace().cutoff) if grace else False
        if graced is not None and None not in told.values():
            return _by_account(number, sorted(n for n, over in told.items() if over), grace=grace, graced=graced)
    return expired(shape, plan, (cutoff_sql(plan, terms, number, params) if grace else terms.cutoff(number, params)))


def _by_account(number: str, over: Sequence[int], *, grace: bool, graced: bool) -> str:
    # The number is named also where none is over: its placeholders are the statement's.
    told = f"({number}) IN ({', '.join(map(str, over or [_NO_NUMBER]))})"
    if not grace:
        return told
    return f"CASE WHEN a.in_grace AND ({number}) <> {UNTOLD} THEN {str(graced).lower()} ELSE {told} END"
