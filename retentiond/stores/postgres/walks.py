"""The walks over a table that together reach every record that can be due, each record by one of them.

`missing`: no anchor, or an infinite one. `term`: anchors before the plan's horizon, in the order of the anchor where an
index leads with it, else of the key. `erasure`: finite anchors at or after the horizon that belong to accounts due for
erasure, a chunk of accounts at a time. Positions are texts, cast to the columns' own types.

A window is a stretch of a walk: from after one position up to and with another, which is found first. So a statement's
cost is bounded whatever the verdicts, and it needs no LIMIT that a concurrent change could make it exceed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Window
from retentiond.stores.postgres.catalog import Column, quote
from retentiond.stores.postgres.shape import Params, Shape, beyond_time, raw_bound

MISSING, TERM, ERASURE = "missing", "term", "erasure"
BEYOND = "beyond"
"""No walk of a sweep: what is too young to be due, in the order of its anchors, for whoever asks how old it is."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk's condition over `r`, and the columns that it is ordered by.

    `low` and `high` are values of the first column, as text: the condition lets none pass that is before or after.
    """

    condition: str
    columns: tuple[Column, ...]
    low: str | None = None
    high: str | None = None

    @property
    def order(self) -> str:
        """The columns as a list."""
        return ", ".join(f"r.{quote(column.name)}" for column in self.columns)

    def leading(self, params: Params, size: int, table: str) -> str:
        """The statement for the first column, as text, of the `size`-th record and of the one that follows it.

        An index on that column alone answers it. Where the two differ, it is a position by itself.
        """
        first = f"r.{quote(self.columns[0].name)}"
        return (
            f"SELECT p.first::text FROM (SELECT {first} AS first FROM {table} r WHERE {self.condition}"
            f" ORDER BY {first} OFFSET {params.add(size - 1, 'int8')} LIMIT 2) p"
        )

    def position(self, params: Params, size: int, table: str) -> str:
        """The statement for the position of the `size`-th record."""
        texts = ", ".join(f"p.{quote(column.name)}::text" for column in self.columns)
        # The texts are made outside: a target list is worked out for the skipped rows as well.
        return (
            f"SELECT ARRAY[{texts}] FROM (SELECT {self.order} FROM {table} r WHERE {self.condition}"
            f" ORDER BY {self.order} OFFSET {params.add(size - 1, 'int8')} LIMIT 1) p"
        )

    def after(self, position: Sequence[str], params: Params) -> Walk:
        """The walk after a position, which may be of the first columns only."""
        return replace(self._cut(">", position, params), low=position[0])

    def until(self, position: Sequence[str] | None, params: Params) -> Walk:
        """The walk up to and with a position; to its end for None."""
        return self if position is None else replace(self._cut("<=", position, params), high=position[0])

    def _cut(self, sign: str, position: Sequence[str], params: Params) -> Walk:
        columns = self.columns[: len(position)]
        names = ", ".join(f"r.{quote(column.name)}" for column in columns)
        values = ", ".join(params.typed(text, column) for text, column in zip(position, columns, strict=True))
        return replace(self, condition=f"{self.condition} AND ({names}) {sign} ({values})")


def names(shape: Shape, plan: TargetPlan) -> tuple[str, ...]:
    """The walks of a plan, in their order."""
    can_erase = plan.has_directory and shape.account is not None
    erasure = (ERASURE,) if can_erase else ()
    if plan.counts_from_deletion:
        return erasure
    term = (TERM,) if plan.horizon() else ()
    return (MISSING, *term, *erasure)


def walk_of(shape: Shape, plan: TargetPlan, params: Params, window: Window, accounts: Sequence[str]) -> Walk:
    """The walk that the window lies in, after the window's position; `accounts` are those of an erasure walk."""
    if window.walk == MISSING:
        walk, after = missing(shape), window.after
    elif window.walk == ERASURE:
        # A position of an account alone is where a chunk of accounts begins; within one there is the key as well.
        after = window.after if window.after and len(window.after) > 1 else None
        walk = erasure(shape, plan, params, accounts)
    elif window.walk == BEYOND:
        walk, after = beyond(shape, plan, params), window.after
    else:
        horizon = plan.horizon()
        assert horizon is not None
        walk, after = term(shape, params, horizon), window.after
    walk = walk.until(window.until, params)
    return walk if after is None else walk.after(after, params)


def missing(shape: Shape) -> Walk:
    """Records without a finite anchor, by key. (What is `-infinity` lies in the walk of the terms.)"""
    name = f"r.{quote(shape.anchor.name)}"
    nothing = [] if shape.anchor.not_null else [f"{name} IS NULL"]
    return Walk(f"({' OR '.join([*nothing, beyond_time(shape)])})", _ordered(shape))


def term(shape: Shape, params: Params, horizon: datetime) -> Walk:
    """Records whose anchor is before the horizon."""
    condition = f"r.{quote(shape.anchor.name)} < {raw_bound(shape, horizon, params)}"
    indexed = shape.anchor.name in shape.table.leading
    return Walk(condition, _ordered(shape, shape.anchor) if indexed else _ordered(shape))


def erasure(shape: Shape, plan: TargetPlan, params: Params, accounts: Sequence[str]) -> Walk:
    """Records of these accounts that no other walk reaches."""
    assert shape.account is not None
    column = f"r.{quote(shape.account.name)}"
    listed = f"{column} = ANY({params.add(list(accounts), 'text[]')}::{shape.account.type}[])"
    return Walk(f"{listed}{outside(shape, plan, params)}", _ordered(shape, shape.account))


def beyond(shape: Shape, plan: TargetPlan, params: Params) -> Walk:
    """Records at or after the horizon, or all where nothing expires by its anchor, the oldest first."""
    return Walk(f"true{outside(shape, plan, params)}", _ordered(shape, shape.anchor))


def outside(shape: Shape, plan: TargetPlan, params: Params) -> str:
    """The condition of what neither `missing` nor `term` reaches."""
    if plan.counts_from_deletion:
        return ""
    name = f"r.{quote(shape.anchor.name)}"
    finite = f" AND {name} IS NOT NULL AND NOT {beyond_time(shape)}"
    horizon = plan.horizon()
    return f"{finite} AND NOT {name} < {raw_bound(shape, horizon, params)}" if horizon else finite


def erasure_edge(plan: TargetPlan) -> datetime:
    """Accounts deleted before this instant may have records that are due."""
    edges = [plan.deletion_cutoff]
    if plan.counts_from_deletion:
        edges += [found.cutoff for found in (*plan.resolutions().values(), plan.of_unknown()) if found.cutoff]
    return max(edges)


def _ordered(shape: Shape, *first: Column) -> tuple[Column, ...]:
    """These columns, then those of the key that are not among them: together they tell records apart."""
    return tuple(dict.fromkeys((*first, *(shape.table.columns[name] for name in shape.table.key))))
