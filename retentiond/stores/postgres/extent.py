"""Which tables a target's records lie in, its partitions and heirs included: targets must not share any.

Names can't tell: a database has many addresses, and a partition's name says nothing of its root. Two targets over one
record would erase it by two terms, and a hold on the one would not reach the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.domain.permit import SAME_DATABASE
from retentiond.errors import Blind
from retentiond.stores.postgres.connection import Connection, one

_EXTENT = f"""
WITH RECURSIVE part AS (
    SELECT pg_catalog.to_regclass($1)::oid AS oid
    UNION SELECT i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid
)
SELECT ({SAME_DATABASE}) AS database, COALESCE(array_agg(c.oid::bigint), ARRAY[]::bigint[]) AS tables,
       array_agg(c.oid::regclass::text ORDER BY c.oid) FILTER (WHERE c.relkind = 'f') AS foreign_tables
FROM part JOIN pg_catalog.pg_class c ON c.oid = part.oid
"""


@dataclass(frozen=True, slots=True)
class Extent:
    """The oids of a table and of all that is below it, in a database; `foreign` names those that are elsewhere."""

    database: str
    tables: frozenset[int]
    foreign: tuple[str, ...] = ()

    def meets(self, other: object) -> bool:
        """Whether a record could be of both."""
        if not isinstance(other, Extent):
            return False
        return self.database == other.database and not self.tables.isdisjoint(other.tables)


async def read_extent(connection: Connection, table: str) -> Extent:
    """The extent of the table of that name; an empty one where there is none."""
    row = await one(connection, _EXTENT, table)
    return Extent(row["database"], frozenset(row["tables"]), tuple(row["foreign_tables"] or ()))


async def require_local(connection: Connection, table: str) -> None:
    """Raise Blind where a part of the table is a foreign table.

    What is deleted there is committed by another server, which our transaction's end is no fence for.
    """
    foreign = (await read_extent(connection, table)).foreign
    if foreign:
        raise Blind(
            f"{foreign[0]} is a part of table {table} and a foreign table: what is erased there is committed by "
            "another server, and a hold can't know when",
            remedy=f"ALTER TABLE … DETACH PARTITION {foreign[0]}; or make targets of the other parts; and a target of "
            "its table where that is",
        )
