"""The statements that count a window and that destroy what is due in it, with the evidence computed where the rows are.

The deleting statement repeats, on the row's own columns, everything that its verdict rested on: a row refreshed after
the window was read no longer fits and stays (4-safety, "Postgres, what bites" 2). It joins by `ctid` (by key and
partition where ctids are not unique), so it never exceeds the window (3, 4), and skips locked rows only when asked to.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import orjson

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally, TierTally
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import Table, quote
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
_MOST_ARGUMENTS = 90
_INSTANT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def count_sql(
    shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, change: Change | None
) -> str:
    """One row: what the window's records come to by tier and in all, and where the walk goes on."""
    done = change.done(params) if change else "false"
    base = judged(shape, plan, params, walk, context, done, also=f", {stored_bytes(shape.table)} AS size")
    keys = ", ".join(f"k{i}" for i in range(1, len(shape.table.key) + 1))
    past = past_term(plan, params)
    window = f"SELECT {keys}, raw, account, anchor, label, state, size, {past} AS past FROM ({base}) q"
    due = f"FILTER (WHERE state = {DUE})"
    sums = ", ".join(f"COALESCE(sum({name}), 0)::bigint AS {name}" for name in ("scanned", *_STATES, "bytes"))
    figures = ", ".join(f"'{name}', {name}" for name in _STATES if name != "selected")
    moments = ", ".join(f"'{name}', {_moment(name)}" for name in ("oldest", "newest", "first"))
    return (
        f"WITH j AS MATERIALIZED ({window}), t AS MATERIALIZED (SELECT label, {_counts()},"
        f" COALESCE(sum(size) {due}, 0)::bigint AS bytes, min(anchor) {due} AS oldest, max(anchor) {due} AS newest,"
        f" min(anchor) AS first, COALESCE(max(past) {due}, 0) AS overdue_seconds FROM j GROUP BY label)"
        f" SELECT {sums}, NULL::text AS ids_digest, 0::bigint AS changed, 0::bigint AS locked,"
        f" {_moment('min(oldest)')} AS oldest, {_moment('max(newest)')} AS newest,"
        " COALESCE(max(overdue_seconds), 0)::float8 AS overdue_seconds,"
        " (jsonb_object_agg(label, selected) FILTER (WHERE selected > 0))::text AS by_tier,"
        f" jsonb_object_agg(label, jsonb_build_object('due', selected, {figures}, 'bytes', bytes, {moments},"
        " 'overdue_seconds', overdue_seconds))::text AS tiers,"
        f" {_position(shape, walk)} AS after FROM t"
    )


def stored_bytes(table: Table) -> str:
    """The bytes of a record's values over `r`, as they are stored: nothing is fetched from TOAST, a null takes none."""
    varying = [f"COALESCE(pg_column_size(r.{quote(name)}), 0)" for name, c in table.columns.items() if c.width < 0]
    fixed: dict[int, list[str]] = {}
    for name, column in table.columns.items():
        if column.width > 0:
            fixed.setdefault(column.width, []).append(f"r.{quote(name)}")
    # `num_nonnulls` takes at most 100 arguments.
    counted = [
        f"{width} * num_nonnulls({', '.join(names[start : start + _MOST_ARGUMENTS])})"
        for width, names in fixed.items()
        for start in range(0, len(names), _MOST_ARGUMENTS)
    ]
    return f"({' + '.join([*varying, *counted]) or '0'})::bigint"


def past_term(plan: TargetPlan, params: Params) -> str:
    """How many seconds a due record is past its term, or its account past the grace of its deletion: the larger."""
    parts = []
    if plan.counts_from_deletion:
        parts.append("CASE WHEN isfinite(deleted_at) THEN cutoff - deleted_at END")
    else:
        parts.append("cutoff - anchor")
    if plan.knows_account and plan.has_directory and not plan.data_class.minimum:
        grace = params.moment(plan.deletion_cutoff)
        parts.append(f"CASE WHEN account IS NOT NULL AND isfinite(deleted_at) THEN {grace} - deleted_at END")
    # A term that is not over gives a negative number, which is never the larger of a due record's.
    return f"EXTRACT(epoch FROM GREATEST({', '.join(parts)}))"


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
        tiers={label: TierTally(**figures) for label, figures in orjson.loads(row.get("tiers") or "{}").items()},
        overdue_seconds=row.get("overdue_seconds") or 0.0,
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


def _moment(moment: str) -> str:
    """RFC 3339 in UTC; an instant outside of the years 1 to 9999, which that can't say, becomes the nearest one."""
    within = f"LEAST(GREATEST({moment}, timestamptz '0001-01-01 00:00+00'), timestamptz '9999-12-31 23:59+00')"
    return f"CASE WHEN {moment} IS NOT NULL THEN to_char({within} AT TIME ZONE 'UTC', {_INSTANT}) END"


def _range() -> str:
    shown = f"to_char(g.{{}} AT TIME ZONE 'UTC', {_INSTANT})"
    return f"{shown.format('first')} AS oldest, {shown.format('last')} AS newest"


def _position(shape: Shape, walk: Walk) -> str:
    columns = walk.position(len(shape.table.key))
    shown = ", ".join(f"{name}::text" for name in columns)
    order = ", ".join(f"{name} DESC" for name in columns)
    return f"(SELECT ARRAY[{shown}] FROM j ORDER BY {order} LIMIT 1)"
