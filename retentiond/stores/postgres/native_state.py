"""What there is of native holds in a target's database: our own small tables, and what the catalogues say of triggers.

`retentiond_holds.installed` has a row for each target of each control database (`space`), `retentiond_holds.held` one
for each hold in force there. They say what was installed; what is in force are function and triggers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from retentiond.stores.postgres import native_covers
from retentiond.stores.postgres.catalog import NATIVE_SCHEMA, quote
from retentiond.stores.postgres.connection import Connection, one
from retentiond.stores.postgres.native_sql import KINDS, Held, Names

CREATE = (
    f"CREATE SCHEMA {NATIVE_SCHEMA};"
    f" COMMENT ON SCHEMA {NATIVE_SCHEMA} IS 'Legal holds that retentiond keeps in force here; changed by it alone'"
)
TABLES = (
    f"CREATE TABLE {NATIVE_SCHEMA}.installed (space text NOT NULL, target text NOT NULL, relation text NOT NULL,"
    f" digest text NOT NULL, mark text NOT NULL, PRIMARY KEY (space, target));"
    f"CREATE TABLE {NATIVE_SCHEMA}.held (space text NOT NULL, target text NOT NULL, hold_id text NOT NULL,"
    " matter text NOT NULL, covers jsonb NOT NULL, PRIMARY KEY (space, target, hold_id))"
)
_EXISTS = f"""
SELECT current_user::text AS role, n.oid IS NOT NULL AS has_schema, count(t.oid) = 2 AS has_tables,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create_schema,
       COALESCE(pg_catalog.has_schema_privilege(n.oid, 'CREATE') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
         AND bool_and(t.oid IS NULL OR pg_catalog.has_table_privilege(t.oid, 'SELECT')
                      AND pg_catalog.has_table_privilege(t.oid, 'INSERT')
                      AND pg_catalog.has_table_privilege(t.oid, 'UPDATE')
                      AND pg_catalog.has_table_privilege(t.oid, 'DELETE')), false) AS may_use
FROM (SELECT) nothing LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = '{NATIVE_SCHEMA}'
LEFT JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid AND t.relname IN ('installed', 'held') GROUP BY n.oid
"""
_MEMBERS = """
WITH RECURSIVE below (oid) AS (
    SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid
)
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name,
       c.relispartition AND c.oid <> $1::bigint::oid AS inherits_triggers,
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER') AS may_trigger,
       ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND t.tgfoid = f.oid AND t.tgenabled IN ('O', 'A')
               AND (t.tgname NOT LIKE '%\\_truncate' OR (t.tgtype & 32) <> 0 AND t.tgqual IS NULL)) AS triggers,
       ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND t.tgfoid = f.oid AND t.tgenabled NOT IN ('O', 'A')) AS disabled
FROM below JOIN pg_catalog.pg_class c ON c.oid = below.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_proc f ON f.proname = $2 AND f.pronamespace = pg_catalog.to_regnamespace($3)
ORDER BY c.oid
"""
# What the function is and, on the target and each of its heirs, when its triggers fire: another text where somebody
# changed one. Partitions have copies, which nobody can change; and of TRUNCATE, which has no condition, see `_MEMBERS`.
_MARKS = """
WITH RECURSIVE below (oid) AS (
    SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid
), f AS (
    SELECT oid FROM pg_catalog.pg_proc WHERE proname = $2 AND pronamespace = pg_catalog.to_regnamespace($3)
)
SELECT 'function' AS what, pg_catalog.md5(pg_catalog.pg_get_functiondef(f.oid)) AS mark FROM f
UNION ALL SELECT c.oid::bigint::text, pg_catalog.md5((
    SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.tgname, t.tgtype, t.tgqual::text), ' ' ORDER BY t.tgname)
    FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = f.oid))
FROM f, below JOIN pg_catalog.pg_class c ON c.oid = below.oid
WHERE c.oid = $1::bigint::oid OR NOT c.relispartition
"""
_SCHEMAS = """
SELECT DISTINCT n.nspname::text AS name FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
JOIN pg_catalog.pg_namespace n ON n.oid IN (t.typnamespace, b.typnamespace)
WHERE a.attrelid = $1::bigint::oid AND a.attname = ANY($2::text[]) AND n.nspname <> 'pg_catalog' ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A table that records of the target lie in: itself, a partition, an heir."""

    oid: int
    schema: str
    name: str
    inherits_triggers: bool
    may_trigger: bool
    triggers: frozenset[str]
    disabled: frozenset[str]

    @property
    def sql(self) -> str:
        """The quoted name."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def shown(self) -> str:
        """The name for people."""
        return f"{self.schema}.{self.name}"

    def lacks(self, names: Names) -> tuple[str, ...]:
        """The kinds of triggers that are not in force on it."""
        return tuple(kind for kind in KINDS if names.trigger_of(kind) not in self.triggers)


@dataclass(frozen=True, slots=True)
class State:
    """What is installed for a target: `digest` is of the definitions asked for, `marks` of what came of them.

    `marked` is what the catalogues say now, by `function` and by the number of each table that has triggers of its own;
    empty: there is no function. `unreadable` has the rows that say nothing of what a hold covers.
    """

    role: str
    has_schema: bool
    has_tables: bool
    may_create_schema: bool
    may_use: bool
    digest: str
    marks: Mapping[str, str]
    marked: Mapping[str, str]
    holds: Mapping[str, Held]
    unreadable: Mapping[str, str]
    members: tuple[Member, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """What is not as it was made: `function`, or a table's number."""
        return tuple(what for what, mark in self.marked.items() if self.marks.get(what) != mark)

    def stands(self, names: Names, digest: str) -> bool:
        """Whether all that was asked for is in force as it was made."""
        if not self.holds:
            return not self.marked
        whole = bool(self.marked) and not any(member.lacks(names) for member in self.members)
        return whole and self.digest == digest and not self.changed


async def read_state(connection: Connection, space: str, target: str, oid: int) -> State:
    """The state of a target's table; where our schema is not there, or not ours to read, as of nothing installed."""
    names = Names.of(space, target)
    exists = await one(connection, _EXISTS)
    installed, holds, unreadable = None, dict[str, Held](), dict[str, str]()
    if exists["has_tables"] and exists["may_use"]:
        installed = await connection.fetchrow(
            f"SELECT digest, mark FROM {NATIVE_SCHEMA}.installed WHERE space = $1 AND target = $2", space, target
        )
        rows = await connection.fetch(
            f"SELECT hold_id, matter, covers::text FROM {NATIVE_SCHEMA}.held WHERE space = $1 AND target = $2",
            space,
            target,
        )
        for row in rows:
            try:
                holds[row["hold_id"]] = Held(row["matter"], native_covers.read(row["hold_id"], row["covers"]))
            except ValueError as error:
                unreadable[row["hold_id"]] = str(error)
    members = await connection.fetch(_MEMBERS, oid, names.function, NATIVE_SCHEMA)
    return State(
        **dict(exists),
        digest=installed["digest"] if installed else "",
        marks=_marks(installed["mark"]) if installed else {},
        marked=await read_marks(connection, names, oid),
        holds=holds,
        unreadable=unreadable,
        members=tuple(
            Member(**{**dict(row), "triggers": frozenset(row["triggers"]), "disabled": frozenset(row["disabled"])})
            for row in members
        ),
    )


async def read_marks(connection: Connection, names: Names, oid: int) -> dict[str, str]:
    """What function and triggers are now, as marks; nothing: there is no function."""
    return {
        row["what"]: row["mark"] or "" for row in await connection.fetch(_MARKS, oid, names.function, NATIVE_SCHEMA)
    }


def _marks(text: str) -> Mapping[str, str]:
    """The marks as they were written; of anything else nothing, so that it is drift."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def type_schemas(connection: Connection, oid: int, columns: list[str]) -> list[str]:
    """The schemas, beside `pg_catalog`, of the types of these columns: an extension's operators are there."""
    return [row["name"] for row in await connection.fetch(_SCHEMAS, oid, columns)]


async def write_state(
    connection: Connection,
    place: tuple[str, str, str],
    *,
    digest: str,
    marks: Mapping[str, str],
    holds: Mapping[str, Held],
) -> None:
    """Note what is in force from now on, in the `place`: space, target, and the table's name for people to read."""
    space, target, _ = place
    await connection.execute(
        f"INSERT INTO {NATIVE_SCHEMA}.installed (space, target, relation, digest, mark)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (space, target) DO UPDATE"
        " SET relation = excluded.relation, digest = excluded.digest, mark = excluded.mark",
        *place,
        digest,
        json.dumps(marks, sort_keys=True),
    )
    await connection.execute(f"DELETE FROM {NATIVE_SCHEMA}.held WHERE space = $1 AND target = $2", space, target)
    await connection.executemany(
        f"INSERT INTO {NATIVE_SCHEMA}.held (space, target, hold_id, matter, covers)"
        " VALUES ($1, $2, $3, $4, $5::text::jsonb)",
        [
            (space, target, hold_id, held.matter, native_covers.document(held.covers))
            for hold_id, held in sorted(holds.items())
        ],
    )
