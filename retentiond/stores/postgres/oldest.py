"""The oldest anchor of a table, for the metric that says how old data gets: cheap, or not told.

By an index that leads with the anchor it is the first entry that is finite. Without one it is counted only where the
planner believes the table small; a wrong belief ends at the statement's timeout. What can't be told stops no sweep.
"""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import orjson

from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Shape, anchor_expression, sayable

STATEMENT_MS = 5_000
"""Milliseconds that finding it may take."""

_FEW_ROWS = 200_000


async def oldest(connection: Connection, shape: Shape) -> datetime | None:
    """The oldest finite anchor (UTC), in the caller's transaction."""
    raw, anchor = f"r.{quote(shape.anchor.name)}", anchor_expression(shape)
    if shape.anchor.name in shape.table.leading:
        sql = f"SELECT {anchor} AS anchor FROM {shape.table.sql} r WHERE {anchor} IS NOT NULL ORDER BY {raw} LIMIT 1"
    elif await _is_small(connection, shape):
        sql = f"SELECT min({anchor}) AS anchor FROM {shape.table.sql} r"
    else:
        return None
    try:
        found: datetime | None = await connection.fetchval(f"SELECT {sayable('o.anchor')} FROM ({sql}) o")
    except (asyncpg.QueryCanceledError, asyncpg.DataError):
        return None
    return found.astimezone(UTC) if found else None


async def _is_small(connection: Connection, shape: Shape) -> bool:
    plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {shape.table.sql}")
    return int(orjson.loads(plan)[0]["Plan"]["Plan Rows"]) < _FEW_ROWS
