"""How many records a hold covers in all, due or not: what counsel is told when it is placed.

It is counted by the condition that the sweeps hold by. The account is asked for in the type of its column as well, so
that its index serves; equal texts are equal values, so that leaves nothing out.
"""

from __future__ import annotations

import asyncpg
import orjson

from retentiond.domain.holds import TargetHold
from retentiond.stores.base import Matches
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.queries import Params, Shape, anchor_expression, hold_condition


async def count(connection: Connection, shape: Shape, hold: TargetHold) -> Matches:
    """The number of records under the hold; an estimate where the transaction's statement timeout cuts counting short.

    Raises Blind and Unreachable, as the connection's owner translates them.
    """
    params = Params()
    source = f"FROM {shape.table.sql} r WHERE {_condition(shape, hold, params)}"
    try:
        async with connection.transaction():
            found: int = await connection.fetchval(f"SELECT count(*) {source}", *params.values)
            return Matches(found, exact=True)
    except asyncpg.QueryCanceledError:
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT 1 {source}", *params.values)
        return Matches(int(orjson.loads(plan)[0]["Plan"]["Plan Rows"]), exact=False)


def _condition(shape: Shape, hold: TargetHold, params: Params) -> str:
    account = f"r.{quote(shape.account.name)}" if shape.account else "NULL::text"
    key = shape.key_of(*(f"r.{quote(name)}" for name in shape.table.key))
    held = hold_condition(shape, hold, params, account=account, key=key, anchor=anchor_expression(shape))
    if hold.accounts is None or shape.account is None or shape.account.base == "citext":
        return held
    ids = params.add(sorted(hold.accounts), "text[]")
    return f"{account} = ANY({ids}::{shape.account.type}[]) AND {held}"
