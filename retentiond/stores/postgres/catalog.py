"""What the system catalogues say of a target's table: columns, key, indexes, children, RLS, grants.

Read once when the store is opened and again for `check`; a table that has changed since is found by its fingerprint.
Every name that enters SQL comes from here, quoted, never from configuration text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import asyncpg

from retentiond.errors import Blind
from retentiond.stores.postgres.connection import Connection

_RELATION = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relrowsecurity AS rls,
       c.relhasrules AS rules,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AS can_select,
       pg_catalog.has_table_privilege(c.oid, 'DELETE') AS can_delete,
       pg_catalog.has_any_column_privilege(c.oid, 'UPDATE') AS can_update
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1)
"""
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       t.typname AS base, bt.typname AS domain_base, a.attnotnull OR t.typnotnull AS not_null,
       CASE WHEN a.attgenerated = 'v' THEN 0 ELSE a.attlen END::int AS width
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type bt ON bt.oid = t.typbasetype
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# An expression has no column's name, and keeps its place as a null. Only a btree gives its columns in their order.
_INDEXES = """
SELECT i.indisprimary AS is_primary, i.indisunique AND i.indpred IS NULL AND i.indimmediate AS is_unique,
       i.indpred IS NOT NULL AS partial,
       ARRAY(SELECT a.attname FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(num, pos)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
             WHERE k.pos <= i.indnkeyatts ORDER BY k.pos)::text[] AS columns
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE i.indrelid = $1::bigint::oid AND i.indisvalid AND m.amname = 'btree' ORDER BY i.indisprimary DESC
"""
# A foreign key may refer to a table above or below the target: a partition, its root, a table that inherits. A row of
# the target is that table's too, and takes its children along.
_FAMILY = """
WITH RECURSIVE below (oid) AS (
    SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid
), family (oid) AS (
    SELECT oid FROM below UNION SELECT relid::oid FROM pg_catalog.pg_partition_ancestors($1::bigint::oid::regclass)
)"""
_CHILDREN = f"""{_FAMILY}
SELECT f.conname AS name, n.nspname AS schema, c.relname AS child, c.relkind = 'p' AS partitioned,
       f.confdeltype::text AS on_delete, f.confupdtype::text AS on_update,
       ARRAY(SELECT a.attname FROM unnest(f.conkey) WITH ORDINALITY k(num, pos) JOIN pg_catalog.pg_attribute a
             ON a.attrelid = f.conrelid AND a.attnum = k.num ORDER BY k.pos)::text[] AS columns,
       ARRAY(SELECT a.attname FROM unnest(f.confkey) WITH ORDINALITY k(num, pos) JOIN pg_catalog.pg_attribute a
             ON a.attrelid = f.confrelid AND a.attnum = k.num ORDER BY k.pos)::text[] AS parent_columns,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = f.conrelid AND i.indisvalid
               AND i.indkey[0] = f.conkey[1]) AS indexed
FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE f.confrelid IN (SELECT oid FROM family) AND f.contype = 'f' AND f.conparentid = 0 ORDER BY f.conname, c.oid
"""
# All that the SQL was made for, as one text: it is compared in each batch, under a lock that keeps it as it is. A new
# partition, with its copies of keys and triggers, changes nothing of it, nor does a column that no
# verdict rests on, nor a trigger: what one vetoes is seen by what is left.
_FINGERPRINT = f"""{_FAMILY}
SELECT pg_catalog.md5(pg_catalog.concat_ws(E'\\n',
    (SELECT pg_catalog.concat_ws(' ', c.oid, c.relkind, c.relrowsecurity, c.relhasrules)
     FROM pg_catalog.pg_class c WHERE c.oid = $1::bigint::oid),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
            a.attcollation, a.attgenerated), ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = $1::bigint::oid AND a.attname = ANY($2::text[])),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', f.oid, f.conrelid, f.confdeltype, f.confupdtype), ','
            ORDER BY f.oid) FROM pg_catalog.pg_constraint f
     WHERE f.contype = 'f' AND f.conparentid = 0 AND f.confrelid IN (SELECT oid FROM family))))
"""
NATIVE_SCHEMA = "retentiond_holds"
"""Where native holds have their functions and tables, in the database of the target (`native`)."""

# Not our own, which refuse only what no statement of ours asks for.
_TRIGGERS = f"""{_FAMILY}
SELECT DISTINCT t.tgname AS name FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid IN (SELECT oid FROM family) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 24) <> 0
  AND n.nspname <> '{NATIVE_SCHEMA}'
ORDER BY 1
"""


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `type` as SQL writes it, `base` the name of its (domain's) base type.

    `width` is what a value takes in bytes: below 0 where that differs from row to row, 0 where nothing is stored.
    """

    name: str
    type: str
    base: str
    not_null: bool = False
    width: int = -1


@dataclass(frozen=True, slots=True)
class Child:
    """A foreign key that refers to the table: `table` is the child's quoted name, `place` its schema and name."""

    name: str
    table: str
    place: tuple[str, str]
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    on_delete: str
    indexed: bool
    on_update: str = "a"
    partitioned: bool = False

    @property
    def changes_children(self) -> bool:
        """Whether deleting a parent would delete or change its children (cascade, set null, set default)."""
        return self.on_delete in "cnd"


@dataclass(frozen=True, slots=True)
class Table:
    """A target's table as the catalogues have it."""

    oid: int
    schema: str
    name: str
    kind: str
    rls: bool
    owner: str
    can_select: bool
    can_delete: bool
    can_update: bool
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    leading: frozenset[str]
    children: tuple[Child, ...]
    triggers: tuple[str, ...]
    rules: bool = False

    @property
    def sql(self) -> str:
        """The quoted name."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def partitioned(self) -> bool:
        """Whether it is a partitioned table, whose `ctid`s are not unique."""
        return self.kind == "p"

    def column(self, name: str, setting: str) -> Column:
        """A column by name; raises Blind naming the setting that asked for it."""
        if name not in self.columns:
            raise Blind(
                f"table {self.schema}.{self.name} has no column {name!r} ({setting})",
                remedy=f"set `{setting}` to one of: {', '.join(self.columns)}",
            )
        return self.columns[name]


async def read_table(connection: Connection, table: str, key: tuple[str, ...] | None) -> Table:
    """The table of that name, with the configured key or its primary key; raises Blind where it can't be used."""
    row = await connection.fetchrow(_RELATION, table)
    if row is None:
        raise Blind(
            f"there is no table {table!r}, or this role may not see its schema",
            remedy="set `table` to schema.name, or GRANT USAGE ON SCHEMA to the role of the dsn",
        )
    if row["kind"] not in ("r", "p"):
        raise Blind(f"{table!r} is not a table", remedy="name a plain or partitioned table")
    oid = row["oid"]
    columns = {
        c["name"]: Column(c["name"], c["type"], c["domain_base"] or c["base"], c["not_null"], c["width"])
        for c in await connection.fetch(_COLUMNS, oid)
    }
    indexes = await connection.fetch(_INDEXES, oid)
    found = Table(
        oid=oid,
        schema=row["schema"],
        name=row["name"],
        kind=row["kind"],
        rls=row["rls"],
        owner=row["owner"],
        can_select=row["can_select"],
        can_delete=row["can_delete"],
        can_update=row["can_update"],
        columns=columns,
        key=key or _key(indexes),
        leading=frozenset(i["columns"][0] for i in indexes if i["columns"][0] and not i["partial"]),
        children=tuple(_child(c) for c in await connection.fetch(_CHILDREN, oid)),
        triggers=tuple(t["name"] for t in await connection.fetch(_TRIGGERS, oid)),
        rules=row["rules"],
    )
    if not found.key:
        raise Blind(
            f"table {found.schema}.{found.name} has no primary key or unique index, so its records can't be told apart",
            remedy="add a primary key, or set `key` to columns that are unique together",
        )
    for name in found.key:
        if not found.column(name, "key").not_null:
            raise Blind(
                f"column {name!r} of the key of table {found.schema}.{found.name} may be null, and nulls have no order",
                remedy=f"ALTER TABLE {found.sql} ALTER COLUMN {quote(name)} SET NOT NULL; or name others in `key`",
            )
    return found


def fingerprint_sql(first: int) -> str:
    """The expression for `fingerprint`, whose placeholders (an oid, names of columns) begin with number `first`."""
    return f"({_FINGERPRINT.replace('$2', f'${first + 1}').replace('$1', f'${first}')})"


async def fingerprint(connection: Connection, oid: int, columns: Collection[str]) -> str:
    """What a table, these columns and its family's foreign keys are now: another text where one changed."""
    return str(await connection.fetchval(_FINGERPRINT, oid, sorted(columns)))


def _key(indexes: list[asyncpg.Record]) -> tuple[str, ...]:
    for index in indexes:
        if index["is_primary"]:
            return tuple(index["columns"])
    return next((tuple(i["columns"]) for i in indexes if i["is_unique"] and None not in i["columns"]), ())


def _child(row: asyncpg.Record) -> Child:
    return Child(
        name=row["name"],
        table=f"{quote(row['schema'])}.{quote(row['child'])}",
        place=(row["schema"], row["child"]),
        columns=tuple(row["columns"]),
        parent_columns=tuple(row["parent_columns"]),
        on_delete=row["on_delete"],
        indexed=row["indexed"],
        on_update=row["on_update"],
        partitioned=row["partitioned"],
    )
