"""The walks over a table that together reach every record that can be due, each record by one of them.

`missing`: no anchor, or an infinite one. `term`: anchors before the plan's horizon, in the order of the anchor where an
index leads with it, else of the key. `erasure`: finite anchors at or after the horizon that belong to accounts due for
erasure, a chunk of accounts at a time. Positions are texts, cast to the columns' own types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Window
from retentiond.stores.postgres.catalog import Column, quote
from retentiond.stores.postgres.queries import Params, Shape, Walk, is_epoch, raw_bound

MISSING, TERM, ERASURE = "missing", "term", "erasure"
BEYOND = "beyond"
"""No walk of a sweep: what is too young to be due, in the order of its anchors, for whoever asks how old it is."""


def names(shape: Shape, plan: TargetPlan) -> tuple[str, ...]:
    """The walks of a plan, in their order."""
    can_erase = plan.has_directory and shape.account is not None
    erasure = (ERASURE,) if can_erase else ()
    if plan.counts_from_deletion:
        return erasure
    term = (TERM,) if plan.horizon() else ()
    return (MISSING, *term, *erasure)


def missing(shape: Shape, params: Params, window: Window) -> Walk:
    """Records without a finite anchor, by key."""
    name = f"r.{quote(shape.anchor.name)}"
    endless = "" if is_epoch(shape.anchor) else f" OR {name} = 'infinity'"
    condition = f"({name} IS NULL{endless})"
    return _after(Walk(condition, "", window.size, leading=""), shape, params, window, ())


def term(shape: Shape, params: Params, window: Window, horizon: datetime) -> Walk:
    """Records whose anchor is before the horizon."""
    condition = f"r.{quote(shape.anchor.name)} < {raw_bound(shape, horizon, params)}"
    indexed = shape.anchor.name in shape.table.leading
    walk = Walk(condition, "", window.size, leading="raw" if indexed else "")
    return _after(walk, shape, params, window, (shape.anchor,) if indexed else ())


def erasure(shape: Shape, plan: TargetPlan, params: Params, window: Window, accounts: Sequence[str]) -> Walk:
    """Records of these accounts that no other walk reaches."""
    assert shape.account is not None
    column = f"r.{quote(shape.account.name)}"
    condition = (
        f"{column} = ANY({params.add(list(accounts), 'text[]')}::{shape.account.type}[]){outside(shape, plan, params)}"
    )
    walk = Walk(condition, "", window.size, leading="account")
    narrowed = window if window.after and len(window.after) > 1 else replace(window, after=None)
    return _after(walk, shape, params, narrowed, (shape.account,))


def beyond(shape: Shape, plan: TargetPlan, params: Params, window: Window) -> Walk:
    """Records at or after the horizon, or all where nothing expires by its anchor, the oldest first."""
    walk = Walk(f"true{outside(shape, plan, params)}", "", window.size)
    return _after(walk, shape, params, window, (shape.anchor,))


def outside(shape: Shape, plan: TargetPlan, params: Params) -> str:
    """The condition of what neither `missing` nor `term` reaches."""
    if plan.counts_from_deletion:
        return ""
    name = f"r.{quote(shape.anchor.name)}"
    finite = f" AND {name} IS NOT NULL" if is_epoch(shape.anchor) else f" AND {name} < 'infinity'"
    horizon = plan.horizon()
    return f"{finite} AND NOT {name} < {raw_bound(shape, horizon, params)}" if horizon else finite


def erasure_edge(plan: TargetPlan) -> datetime:
    """Accounts deleted before this instant may have records that are due."""
    edges = [plan.deletion_cutoff]
    if plan.counts_from_deletion:
        edges += [found.cutoff for found in (*plan.resolutions().values(), plan.of_unknown()) if found.cutoff]
    return max(edges)


def _after(walk: Walk, shape: Shape, params: Params, window: Window, leading: tuple[Column, ...]) -> Walk:
    columns = (*leading, *(shape.table.columns[name] for name in shape.table.key))
    row = ", ".join(f"r.{quote(column.name)}" for column in columns)
    condition = walk.condition
    if window.after is not None:
        position = ", ".join(
            f"{params.add(text, 'text')}::{column.type}" for text, column in zip(window.after, columns, strict=True)
        )
        condition += f" AND ({row}) > ({position})"
    return replace(walk, condition=condition, order=row)
