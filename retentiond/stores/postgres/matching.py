"""How many records a hold covers in all, due or not: what counsel is told when it is placed.

It is counted by the condition that the sweeps hold by.
"""

from __future__ import annotations

import asyncpg
import orjson

from retentiond.domain.holds import TargetHold
from retentiond.stores.base import Matches
from retentiond.stores.postgres.conditions import covers
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Params, Shape


async def count(connection: Connection, shape: Shape, hold: TargetHold) -> Matches:
    """The number of records under the hold; an estimate where the transaction's statement timeout cuts counting short.

    Raises Blind and Unreachable, as the connection's owner translates them.
    """
    params = Params()
    source = f"FROM {shape.table.sql} r WHERE {covers(shape, hold, params)}"
    try:
        async with connection.transaction():
            found: int = await connection.fetchval(f"SELECT count(*) {source}", *params.values)
            return Matches(found, exact=True)
    except asyncpg.QueryCanceledError:
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT 1 {source}", *params.values)
        return Matches(int(orjson.loads(plan)[0]["Plan"]["Plan Rows"]), exact=False)
