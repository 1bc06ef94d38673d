"""What the catalogues say of a table's partitions: which may go as a whole, and why the others go by rows.

The unit is a direct child of a table that is partitioned by RANGE with its anchor first, also one that has partitions
of its own. Dropping one must destroy nothing that deleting its rows would not have, and leave undone nothing that it
would have done: so none goes as a whole to which rows may refer, whose deletes a trigger would see or a rule change,
that a replica is told of row by row, or that something else rests on.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Part, PartState
from retentiond.stores.postgres.catalog import NATIVE_SCHEMA
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Params, Shape, raw_bound

_OLDEST_VERSION = 140_000
_UPPER = re.compile(r"\bTO \((?:'((?:[^']|'')*)'|([^,)]+))")
# Who has rights is asked of pg_has_role: a superuser has those of every owner.
_TABLE = """
SELECT p.partstrat = 'r' AND a.attname = $2 AND o.opcdefault AS by_anchor, p.partdefid <> 0 AS has_default,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS mine, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       pg_catalog.current_setting('server_version_num')::int AS version,
       EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_type = 'logical' AND s.plugin <> 'pgoutput'
               AND s.database = pg_catalog.current_database()) AS decoded
FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_class c ON c.oid = p.partrelid
JOIN pg_catalog.pg_opclass o ON o.oid = p.partclass[0]
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
WHERE p.partrelid = $1::bigint::oid
"""
STATE_SQL = """CASE WHEN i.inhparent IS NULL THEN 'detached' WHEN i.inhparent <> $1::bigint::oid THEN 'gone'
            WHEN i.inhdetachpending THEN 'detach pending' ELSE 'attached' END"""
"""A `PartState` of the class `c` by its row `i` of pg_inherits; $1 is the table."""
HELD = "a hold is in force on it in the database itself (native_holds)"
"""The obstacle of a native hold: one may be in force that the control database has lost, and no proof would mind it."""
# `part` are the table's partitions (the default one is not by range), or those with the given numbers, wherever they
# are by now. `seen` has the ancestors too: what is said of them holds for a partition.
_PARTS = f"""
WITH RECURSIVE part (oid) AS (
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1::bigint::oid AND $2::bigint[] IS NULL
    UNION SELECT u.oid::oid FROM pg_catalog.unnest($2::bigint[]) u (oid)
), below (top, oid) AS (
    SELECT oid, oid FROM part
    UNION SELECT b.top, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
), above (oid) AS (
    SELECT relid::oid FROM pg_catalog.pg_partition_ancestors($1::bigint::oid::regclass)
), published (oid) AS MATERIALIZED (
    SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', t.schemaname, t.tablename))::oid
    FROM pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname WHERE p.pubdelete
), family (top, oid) AS (
    SELECT top, oid FROM below UNION SELECT p.oid, a.oid FROM part p CROSS JOIN above a
), deleting (top, ours) AS (
    SELECT f.top, p.pronamespace IS NOT DISTINCT FROM pg_catalog.to_regnamespace('{NATIVE_SCHEMA}')::oid
    FROM family f JOIN pg_catalog.pg_trigger t ON t.tgrelid = f.oid JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 8) <> 0
)
SELECT c.oid::bigint AS number, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bounds,
       (SELECT COALESCE(sum(CASE WHEN x.reltuples < 0 THEN pg_catalog.pg_relation_size(x.oid) / 100
                                 ELSE x.reltuples END), 0)::bigint
        FROM below b JOIN pg_catalog.pg_class x ON x.oid = b.oid WHERE b.top = c.oid AND x.relkind = 'r') AS records,
       ARRAY(SELECT k.conname FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c')::text[]
       AS checks,
       {STATE_SQL} AS state,
       CASE
           WHEN NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') THEN 'its owner is another role'
           WHEN EXISTS (SELECT FROM below b JOIN pg_catalog.pg_class x ON x.oid = b.oid
                        WHERE b.top = c.oid AND x.relkind NOT IN ('r', 'p')) THEN 'a part of it is a foreign table'
           WHEN EXISTS (SELECT FROM below b JOIN pg_catalog.pg_class x ON x.oid = b.oid
                        WHERE b.top = c.oid AND x.relrowsecurity) THEN 'it has row level security'
           WHEN EXISTS (SELECT FROM family f JOIN pg_catalog.pg_class x ON x.oid = f.oid
                        WHERE f.top = c.oid AND x.relhasrules) THEN 'it has rules'
           WHEN EXISTS (SELECT FROM deleting d WHERE d.top = c.oid AND NOT d.ours) THEN 'it has a trigger on deletes'
           WHEN EXISTS (SELECT FROM deleting d WHERE d.top = c.oid) THEN '{HELD}'
           WHEN EXISTS (SELECT FROM family f JOIN pg_catalog.pg_constraint k ON k.confrelid = f.oid
                        WHERE f.top = c.oid AND k.contype = 'f') THEN 'a foreign key refers to it'
           WHEN EXISTS (SELECT FROM family f JOIN published p ON p.oid = f.oid WHERE f.top = c.oid)
               THEN 'a publication tells of its deletes'
           WHEN EXISTS (SELECT FROM below b JOIN pg_catalog.pg_depend d ON d.refobjid = b.oid
                        WHERE b.top = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'n'
                        AND d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_proc'::regclass))
               THEN 'a view or function rests on it'
           WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attribute m
                        ON m.attrelid = c.oid AND m.attname = a.attname AND m.atttypid = a.atttypid
                        AND m.atttypmod = a.atttypmod AND NOT m.attisdropped
                        WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
                        AND m.attrelid IS NULL) THEN 'its columns are not those of the whole'
       END AS obstacle
FROM part JOIN pg_catalog.pg_class c ON c.oid = part.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A partition as it is now; `obstacle` says why it can't go as a whole."""

    part: Part
    state: PartState
    obstacle: str | None


@dataclass(frozen=True, slots=True)
class Parted:
    """How a table is partitioned. `obstacle`: why none goes as a whole, though it is by its anchor."""

    by_anchor: bool = False
    has_default: bool = False
    obstacle: str | None = None

    @property
    def droppable(self) -> bool:
        """Whether whole partitions may go."""
        return self.by_anchor and self.obstacle is None


async def read_parted(connection: Connection, shape: Shape) -> Parted:
    """How the target's table is partitioned."""
    row = await connection.fetchrow(_TABLE, shape.table.oid, shape.anchor.name)
    return Parted() if row is None else Parted(bool(row["by_anchor"]), row["has_default"], _obstacle(row, shape))


def _obstacle(row: asyncpg.Record, shape: Shape) -> str | None:
    if row["version"] < _OLDEST_VERSION:
        return "the server is older than Postgres 14, and can't detach without a lock on the whole table"
    if not row["mine"]:
        return f"detaching takes the rights of its owner, {row['owner']}"
    if shape.table.children:
        return "rows of other tables refer to it"
    return "a replication slot is told of its deletes row by row" if row["decoded"] else None


async def read_parts(connection: Connection, shape: Shape, numbers: Collection[int] | None = None) -> list[Found]:
    """The table's partitions, or those with the numbers, wherever they are now."""
    only = None if numbers is None else sorted(numbers)
    return [
        Found(
            Part(row["number"], row["name"], row["bounds"] or "", row["records"], tuple(row["checks"])),
            PartState(row["state"]),
            row["obstacle"],
        )
        for row in await connection.fetch(_PARTS, shape.table.oid, only)
    ]


async def old_parts(connection: Connection, shape: Shape, plan: TargetPlan) -> list[Found]:
    """The partitions that end before the plan's horizon, oldest first; never the newest, nor the default one.

    None while one is half detached, by whomever: PostgreSQL takes no other meanwhile.
    """
    horizon = plan.horizon()
    found = await read_parts(connection, shape)
    if horizon is None or any(each.state is PartState.PENDING for each in found):
        return []
    ends = {each.part.number: end for each in found if (end := upper(each.part.bounds)) is not None}
    bounded = {number: end for number, end in ends.items() if end != "MAXVALUE"}
    params = Params()
    numbers, uppers = params.add(list(bounded), "int8[]"), params.add(list(bounded.values()), "text[]")
    # Where one has no upper bound that is the newest; else the one with the last.
    newest = "true" if len(bounded) < len(ends) else "rank > 1"
    rows = await connection.fetch(
        f"SELECT number FROM (SELECT u.number, u.upper::{shape.anchor.type} AS upper,"
        f" rank() OVER (ORDER BY u.upper::{shape.anchor.type} DESC) AS rank"
        f" FROM unnest({numbers}, {uppers}) u (number, upper)) u"
        f" WHERE {newest} AND upper <= {raw_bound(shape, horizon, params)} ORDER BY upper",
        *params.values,
    )
    by_number = {each.part.number: each for each in found}
    return [by_number[row["number"]] for row in rows]


def upper(bounds: str) -> str | None:
    """The upper bound of the first column as text; None for the default partition."""
    match = _UPPER.search(bounds)
    if match is None:
        return None
    quoted, bare = match.groups()
    return bare if quoted is None else quoted.replace("''", "'")
