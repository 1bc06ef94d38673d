"""Looking single things up in a table: one record by its key, and when the next one can become due."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg
import orjson

from retentiond.domain.duration import expires_at
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import NotFound
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.conditions import refers
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Params, Shape, anchor_expression, canonical, raw_bound, sayable


async def read_record(connection: Connection, target: str, shape: Shape, key: str, *, plan: TargetPlan) -> RecordFacts:
    """One record by its key (a JSON array for a composite one); raises NotFound."""
    params = Params()
    names = shape.table.key
    match = " AND ".join(
        f"r.{quote(name)} = {params.add(part, 'text')}::{shape.table.columns[name].type}"
        for name, part in zip(names, key_parts(key, len(names)), strict=True)
    )
    account = canonical(shape.account, f"r.{quote(shape.account.name)}") if shape.account else "NULL::text"
    tier = f"r.{quote(shape.tier.name)}::text" if shape.tier else "NULL::text"
    children = shape.table.children if plan.action != "anonymise" else ()
    named = (f"CASE WHEN {refers(child)} THEN {params.add(child.table, 'text')} END" for child in children)
    sql = (
        f"SELECT ARRAY[{', '.join(named)}]::text[] AS referring,"
        f" {shape.key_of('r')} AS key, {sayable(anchor_expression(shape))} AS anchor,"
        f" {account} AS account, {tier} AS tier FROM {shape.table.sql} r WHERE {match}"
    )
    try:
        row = await connection.fetchrow(sql, *params.values)
    except asyncpg.DataError:
        row = None
    if row is None:
        raise NotFound(
            f"target {target} has no record {key}",
            remedy=f"give the {', '.join(names)}; a composite key as a JSON array",
        )
    referring = tuple(sorted({table for table in row["referring"] if table is not None}))
    return RecordFacts(row["key"], row["anchor"], row["account"], row["tier"] or plan.tier, referring)


def key_parts(key: str, count: int) -> list[str]:
    """The texts of a key's columns; raises NotFound where it is no key of so many."""
    if count == 1:
        return [key]
    try:
        parts = orjson.loads(key)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or len(parts) != count:
        raise NotFound(f"{key!r} is not a key of {count} columns", remedy='write a JSON array, such as ["2026", "17"]')
    return [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]


async def next_expiry(connection: Connection, shape: Shape, plan: TargetPlan) -> datetime | None:
    """When the oldest record whose anchor is not before the horizon reaches the horizon's term.

    Without an index that leads with the anchor the question would cost a whole scan: then `now`, which is soon enough.
    """
    horizon = plan.horizon()
    if horizon is None:
        return None
    if shape.anchor.name not in shape.table.leading:
        return plan.now
    params = Params()
    raw = f"r.{quote(shape.anchor.name)}"
    # The bound is at or after the horizon, by days for a naive column: it is taken from so much earlier.
    early = raw_bound(shape, horizon - timedelta(days=5), params)
    anchor_of = anchor_expression(shape)
    sql = (
        f"SELECT {sayable(anchor_of)} AS anchor FROM {shape.table.sql} r"
        f" WHERE {raw} >= {early} AND {anchor_of} >= {params.moment(horizon)} ORDER BY {raw} LIMIT 1"
    )
    anchor = await connection.fetchval(sql, *params.values)
    terms = [
        found.term for found in (*plan.resolutions().values(), plan.of_nobody(), plan.of_unknown())
        if found.cutoff == horizon
    ]  # fmt: skip
    return expires_at(anchor, terms[0]) if anchor and terms and terms[0] else None
