"""A hold's scope in the canonical text of a target's own columns.

An id that the column's type can't take is of another id space: the dimension can't be evaluated, and then it matches
every record (2-semantics, "Holds").
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import orjson

from retentiond.domain.holds import Hold, TargetHold
from retentiond.stores.postgres.catalog import Column
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Shape, canonical


async def target_hold(connection: Connection, target: str, shape: Shape, hold: Hold) -> TargetHold:
    """The hold as it bears on this target."""
    scope = hold.scope
    accounts = None
    if scope.accounts and shape.account is not None:
        accounts = await _all_canonical(connection, shape.account, scope.accounts)
    given = scope.records.get(target)
    records = await _records(connection, shape, given) if given else None
    by_item = records is not None or not given
    prefixes = scope.prefixes.get(target, ()) if by_item else ()
    return TargetHold(hold.id, accounts, records, tuple(prefixes), scope.since, scope.until)


async def _records(connection: Connection, shape: Shape, given: Sequence[str]) -> frozenset[str] | None:
    columns = [shape.table.columns[name] for name in shape.table.key]
    if len(columns) == 1:
        return await _all_canonical(connection, columns[0], given)
    found = set()
    for text in given:
        try:
            parts = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(parts, list) or len(parts) != len(columns):
            return None
        texts = [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]
        shown = ", ".join(canonical(column, f"${n}::text::{column.type}") for n, column in enumerate(columns, start=1))
        try:
            async with connection.transaction():
                key = await connection.fetchval(f"SELECT pg_catalog.jsonb_build_array({shown})::text", *texts)
        except asyncpg.DataError:
            return None
        found.add(key)
    return frozenset(found)


async def _all_canonical(connection: Connection, column: Column, texts: Sequence[str]) -> frozenset[str] | None:
    sql = f"SELECT {canonical(column, f'v::{column.type}')} AS text FROM unnest($1::text[]) v"
    try:
        async with connection.transaction():
            rows = await connection.fetch(sql, list(texts))
    except asyncpg.DataError:
        return None
    return frozenset(row["text"] for row in rows)
