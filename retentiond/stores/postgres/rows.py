"""The statements that count a window and that destroy what is due in it, with the evidence computed where the rows are.

The deleting statement repeats, on the row's own columns, everything that its verdict rested on: a row refreshed after
the window was read no longer fits and stays (4-safety, "Postgres, what bites" 2). It joins by `ctid` (by key and
partition where ctids are not unique), so it never exceeds the window (3, 4), and skips locked rows only when asked to.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.queries import (
    BLOCKED,
    DUE,
    HELD,
    MINIMUM,
    UNRESOLVED,
    Context,
    Params,
    Shape,
    Walk,
    anchor_expression,
    held_condition,
    judged,
)

_STATES = {"held": HELD, "minimum": MINIMUM, "selected": DUE, "unresolved": UNRESOLVED, "blocked": BLOCKED}
_INSTANT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def count_sql(
    shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, change: Change | None
) -> str:
    """One row: how many records of the window are in each state, and where the walk goes on."""
    window = _window(shape, plan, params, walk, context, change)
    return (
        f"WITH j AS MATERIALIZED ({window})"
        f" SELECT w.*, NULL::text AS ids_digest, NULL::bigint AS bytes, 0::bigint AS changed, 0::bigint AS locked,"
        f" {_range()},"
        f" (SELECT jsonb_object_agg(label, c) FROM"
        f" (SELECT label, count(*) AS c FROM j WHERE state = {DUE} GROUP BY 1) t)::text AS by_tier,"
        f" {_position(shape, walk)} AS after FROM (SELECT {_counts()} FROM j) w,"
        f" (SELECT min(anchor) FILTER (WHERE state = {DUE}) AS first, max(anchor) FILTER (WHERE state = {DUE}) AS last"
        " FROM j) g"
    )


def erase_sql(
    shape: Shape,
    plan: TargetPlan,
    params: Params,
    walk: Walk,
    context: Context,
    change: Change | None,
    *,
    salt: str,
    skip_locked: bool,
) -> str:
    """One row as `count_sql`, after deleting (or anonymising) what is due in the window."""
    window = _window(shape, plan, params, walk, context, change)
    same = _same_row(shape, "p")
    due = f"SELECT * FROM j WHERE state = {DUE}"
    picked, skipped = f"picked AS NOT MATERIALIZED ({due})", "0::bigint"
    if skip_locked:
        joined = f"({due}) j JOIN {shape.table.sql} r ON {_same_row(shape, 'j')}"
        picked = f"picked AS MATERIALIZED (SELECT j.* FROM {joined} FOR UPDATE OF r SKIP LOCKED)"
        skipped = f"(SELECT count(*) FROM j WHERE state = {DUE}) - (SELECT count(*) FROM picked)"
    own = _still_due(shape, plan, params)
    keys = ", ".join(f"p.k{i}" for i in range(1, len(shape.table.key) + 1))
    verb, assignments = "DELETE FROM", ""
    relation = f"{shape.table.sql} r USING picked p"
    if change is not None:
        verb, assignments = "UPDATE", f" SET {change.assignments(params)}"
        relation = f"{shape.table.sql} r"
    source = " FROM picked p" if change is not None else ""
    sizes = "pg_column_size(r.*) AS size"
    order = ", ".join(f"k{i}" for i in range(1, len(shape.table.key) + 1))
    salted = params.add(salt, "text")
    digest = (
        f"encode(sha256(convert_to({salted} || string_agg({shape.key_text}, E'\\n' ORDER BY {order}), 'UTF8')), 'hex')"
    )
    return (
        f"WITH j AS MATERIALIZED ({window}), {picked},"
        f" gone AS ({verb} {relation}{assignments}{source} WHERE {same} AND {own}"
        f" RETURNING {keys}, p.anchor, p.label, {sizes})"
        f" SELECT w.*, g.ids_digest, g.bytes, g.changed, {skipped} AS locked, {_range()},"
        f" (SELECT jsonb_object_agg(label, c)"
        " FROM (SELECT label, count(*) AS c FROM gone GROUP BY 1) t)::text AS by_tier,"
        f" {_position(shape, walk)} AS after FROM (SELECT {_counts()} FROM j) w,"
        f" (SELECT min(anchor) AS first, max(anchor) AS last, {digest} AS ids_digest, sum(size)::bigint AS bytes,"
        " count(*) AS changed FROM gone) g"
    )


def tally(row: asyncpg.Record, walk: Walk, by_tier: Mapping[str, int]) -> Tally:
    """The row of either statement as a Tally."""
    after = tuple(row["after"]) if row["after"] is not None and row["scanned"] >= walk.size else None
    return Tally(
        scanned=row["scanned"],
        selected=row["selected"],
        changed=row["changed"],
        held=row["held"],
        minimum=row["minimum"],
        unresolved=row["unresolved"],
        blocked=row["blocked"],
        locked=row["locked"],
        bytes=row["bytes"] or 0,
        oldest=row["oldest"],
        newest=row["newest"],
        ids_digest=row["ids_digest"],
        by_tier=by_tier,
        after=after,
    )


def _window(shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, change: Change | None) -> str:
    base = judged(shape, plan, params, walk, context, change.done(params) if change else "false")
    keys = ", ".join(f"k{i}" for i in range(1, len(shape.table.key) + 1))
    return f"SELECT tid, part, {keys}, raw, account, anchor, cutoff, label, state FROM ({base}) q"


def _same_row(shape: Shape, window: str) -> str:
    if not shape.table.partitioned:
        return f"r.ctid = {window}.tid"
    keys = " AND ".join(f"r.{quote(name)} = {window}.k{i}" for i, name in enumerate(shape.table.key, 1))
    return f"{keys} AND r.tableoid = {window}.part"


def _still_due(shape: Shape, plan: TargetPlan, params: Params) -> str:
    """The row's own columns still say what its verdict rested on, and no hold covers it."""
    keys = " AND ".join(f"r.{quote(name)} = p.k{i}" for i, name in enumerate(shape.table.key, 1))
    same = [keys, f"r.{quote(shape.anchor.name)} IS NOT DISTINCT FROM p.raw"]
    account = "NULL::text"
    if shape.account is not None:
        account = f"r.{quote(shape.account.name)}"
        same.append(f"{account} IS NOT DISTINCT FROM p.account")
    key = shape.key_of(*(f"r.{quote(name)}" for name in shape.table.key))
    held = held_condition(shape, plan, params, account=account, key=key, anchor=anchor_expression(shape))
    return " AND ".join([*same, f"NOT ({held})"])


def _counts() -> str:
    states = ", ".join(f"count(*) FILTER (WHERE state = {number}) AS {name}" for name, number in _STATES.items())
    return f"count(*) AS scanned, {states}"


def _range() -> str:
    shown = f"to_char(g.{{}} AT TIME ZONE 'UTC', {_INSTANT})"
    return f"{shown.format('first')} AS oldest, {shown.format('last')} AS newest"


def _position(shape: Shape, walk: Walk) -> str:
    columns = walk.position(len(shape.table.key))
    shown = ", ".join(f"{name}::text" for name in columns)
    order = ", ".join(f"{name} DESC" for name in columns)
    return f"(SELECT ARRAY[{shown}] FROM j ORDER BY {order} LIMIT 1)"
