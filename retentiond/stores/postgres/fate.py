"""What became of a transaction whose COMMIT nobody heard the answer to, by the server's own record of it.

A number alone does not name a transaction for good. After a failover the new primary may have given it to another; and
so may the same server after a crash, where the number had not come to its disk. So a number vouches for something only
on the line of servers that it was given on, and that it was committed only before the next crash.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import asyncpg

from retentiond.stores.postgres.connection import SAME_SERVER, TargetDatabase, one

Kind: TypeAlias = Literal["committed", "aborted", "in progress", "unknown"]

RUN_SQL = "COALESCE(extract(epoch FROM (SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter))::text, '')"
"""Another value after each crash of the server: it forgets its statistics then, and keeps them over a clean restart."""


def name(number: str, line: str, run: str) -> str:
    """What a transaction is called in the control database."""
    return f"{number}@{line}@{run}"


async def fate(database: TargetDatabase, transaction: str) -> Kind:
    """What became of a transaction by its name: `committed`, `aborted`, `in progress`, or `unknown`.

    Unknown is one that is too old, or that ran on another line of servers; and one whose number is committed, on a
    server that has crashed since: it may be somebody else's. One that a crash undid is `aborted` either way.
    """
    number, _, rest = transaction.partition("@")
    line, _, run = rest.rpartition("@")
    sql = (
        # Whoever can read no better line names it by the start of the server, which tells enough while that runs.
        f"SELECT CASE WHEN $2 IN ({await database.line_sql()}, {SAME_SERVER})"
        " THEN pg_xact_status($1::text::xid8) END AS fate,"
        f" {RUN_SQL} = $3 AS same_run"
    )
    async with database.transaction() as connection:
        try:
            found = await one(connection, sql, number, line, run)
        except asyncpg.InvalidParameterValueError:
            # "transaction ID is in the future": this is not the database that the batch ran in.
            return "unknown"
    if found["fate"] == "committed" and not found["same_run"]:
        return "unknown"
    return found["fate"] or "unknown"
