"""Where a large table is cut into shards: by the planner's statistics of the walk's first column, counting nothing."""

from __future__ import annotations

from itertools import pairwise

import orjson

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Window
from retentiond.stores.postgres import walks
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Params, Shape, raw_bound

# The histogram of a parent is the one of all its partitions.
_HISTOGRAM = """
SELECT u.bound::text FROM (
    SELECT s.histogram_bounds::text FROM pg_catalog.pg_stats s
    WHERE s.schemaname = $1 AND s.tablename = $2 AND s.attname = $3 AND s.histogram_bounds IS NOT NULL
    ORDER BY s.inherited DESC LIMIT 1
) h(bounds) CROSS JOIN LATERAL unnest(h.bounds::{type}[]) WITH ORDINALITY u(bound, place){where} ORDER BY u.place
"""


async def shards(connection: Connection, shape: Shape, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:
    """The shards of the walk of the terms, in its order; see `stores.base.Store`."""
    if walks.TERM not in walks.names(shape, plan):
        return ()
    count = min(most, await _expected(connection, shape, plan) // each) if each else most
    if count < 2:
        return ()
    inner = (await _bounds(connection, shape, plan))[1:-1]
    count = min(count, len(inner) + 1)
    cuts = list(dict.fromkeys(inner[len(inner) * i // count] for i in range(1, count)))
    edges: list[tuple[str, ...] | None] = [None, *((cut,) for cut in cuts), None]
    return tuple(Window(walks.TERM, after, 0, until) for after, until in pairwise(edges)) if cuts else ()


async def _expected(connection: Connection, shape: Shape, plan: TargetPlan) -> int:
    """How many records the walk has, by the planner's reckoning."""
    params = Params()
    walk = walks.walk_of(shape, plan, params, Window(walks.TERM, None, 1), ())
    explained = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {shape.table.sql} r WHERE {walk.condition}"
    told = await connection.fetchval(explained, *params.values)
    return int(orjson.loads(told)[0]["Plan"]["Plan Rows"])


async def _bounds(connection: Connection, shape: Shape, plan: TargetPlan) -> list[str]:
    horizon = plan.horizon()
    assert horizon is not None  # there is a walk of the terms
    params = Params()
    first = walks.walk_of(shape, plan, params, Window(walks.TERM, None, 1), ()).columns[0]
    params = Params()
    for value in (shape.table.schema, shape.table.name, first.name):
        params.add(value, "text")
    where = f" WHERE u.bound < {raw_bound(shape, horizon, params)}" if first == shape.anchor else ""
    sql = _HISTOGRAM.format(type=first.type, where=where)
    return [row["bound"] for row in await connection.fetch(sql, *params.values)]
