"""What a verdict rests on, as SQL conditions over a record `r` and its account `a`; the same for counting and erasing.

Each mirrors a step of `verdict.judge`. Where one can't be told it is false or null, so that the record stays.
"""

from __future__ import annotations

from collections.abc import Collection

from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.stores.postgres.catalog import Child, Column, quote
from retentiond.stores.postgres.shape import Context, Params, Shape, anchor_expression, before, same_as_any


def expired(shape: Shape, plan: TargetPlan, cutoff: str, deleted: str = "a.deleted_at") -> str:
    """Whether the term is over; `deleted` is when the account was deleted."""
    if plan.counts_from_deletion:
        return f"COALESCE(isfinite({deleted}) AND {deleted} < {cutoff}, false)"
    return f"COALESCE({before(shape, cutoff)}, false)"


def erasing(plan: TargetPlan, params: Params, deleted: str = "a.deleted_at") -> str:
    """Whether the erasure of the account, deleted at `deleted`, is due."""
    return f"COALESCE(isfinite({deleted}) AND {deleted} < {params.moment(plan.deletion_cutoff)}, false)"


def held(shape: Shape, plan: TargetPlan, params: Params) -> str:
    """Whether any hold of the plan covers the record."""
    return f"({' OR '.join(covers(shape, hold, params) for hold in plan.holds) or 'false'})"


def covers(shape: Shape, hold: TargetHold, params: Params, alias: str = "r") -> str:
    """Whether this hold covers the record."""
    parts = []
    if hold.accounts is not None and shape.account is not None:
        parts.append(same_as_any(shape.account, f"{alias}.{quote(shape.account.name)}", hold.accounts, params))
    if hold.by_item:
        key = shape.key_of(alias)
        named = f"{key} = ANY({params.add(sorted(hold.records or ()), 'text[]')})"
        starts = [f"pg_catalog.starts_with({key}, {params.add(prefix, 'text')})" for prefix in hold.prefixes]
        parts.append(f"({' OR '.join([named, *starts])})")
    anchor = anchor_expression(shape, alias)
    if hold.since is not None:
        parts.append(f"COALESCE({anchor} >= {params.moment(hold.since)}, true)")
    if hold.until is not None:
        parts.append(f"COALESCE({anchor} < {params.moment(hold.until)}, true)")
    return f"({' AND '.join(parts) or 'true'})"


def can_be_blocked(shape: Shape) -> bool:
    """Whether anything can keep a record that is due and under no hold."""
    return bool(shape.table.children) or shape.pair is not None


def blocked(shape: Shape, context: Context, params: Params) -> str:
    """Whether a child still refers to the record: a cascade would ignore the child's own term and holds.

    Or its object may still be there, which goes first.
    """
    told = [refers(child) for child in shape.table.children]
    if shape.pair is not None:
        told.append(waits(shape.pair, context.gone, params))
    return f"({' OR '.join(told) or 'false'})"


def waits(pair: Column, gone: Collection[str] | None, params: Params) -> str:
    """Whether the record's object may still be there: it is not among those that are gone."""
    column = f"r.{quote(pair.name)}"
    there = f"{column}::text <> ALL({params.add(list(gone), 'text[]')})" if gone else "true"
    return f"({column} IS NOT NULL AND {there})"


def refers(child: Child) -> str:
    """Whether a row of this child refers to the record."""
    joined = " AND ".join(
        f"c.{quote(mine)} = r.{quote(theirs)}" for mine, theirs in zip(child.columns, child.parent_columns, strict=True)
    )
    return f"EXISTS (SELECT 1 FROM {child.table} c WHERE {joined})"
