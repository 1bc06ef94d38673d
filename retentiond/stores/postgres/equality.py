"""Whether a record's account and an account of the directory are told alike on both sides.

A join compares them by one operator, and everything else (which accounts a table has, which of them the directory
lacks, what was looked up of them) by the column's own equality or by texts. Where those differ, as between `citext` and
`text`, one record would be of two accounts, or be judged by another's: it could go before it is due. So the two columns
must tell values apart in the same way; with a directory that is asked by texts, equal values must have equal texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection

_COLUMN = """
SELECT a.atttypid::bigint AS type, a.atttypmod AS modifier, a.attcollation::bigint AS collation
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
"""
# A domain is what it is made of, with that one's modifier.
_TYPE = """
WITH RECURSIVE made (oid, modifier, depth) AS (
    SELECT $1::bigint::oid, $2::int, 0
    UNION ALL SELECT t.typbasetype, t.typtypmod, depth + 1
    FROM pg_catalog.pg_type t JOIN made ON made.oid = t.oid WHERE t.typtype = 'd'
)
SELECT t.typname AS name, n.nspname = 'pg_catalog' AS built_in, t.typtype = 'e' AS listed, made.modifier AS modifier,
       pg_catalog.format_type($1::bigint::oid, $2::int) AS shown,
       (SELECT CASE WHEN NOT c.collisdeterministic THEN c.oid::regcollation::text END
        FROM pg_catalog.pg_collation c WHERE c.oid = $3::bigint::oid) AS loose
FROM made JOIN pg_catalog.pg_type t ON t.oid = made.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
ORDER BY made.depth DESC LIMIT 1
"""
_NUMBERS = frozenset({"int2", "int4", "int8", "oid", "numeric"})
_TEXTS = frozenset({"text", "varchar", "name"})
_PADDED = "bpchar"
# Values of these are equal just where their texts are, with the settings of our transactions. Not floats (-0 is 0) or
# intervals (a day is 24 hours), nor a numeric with decimals (1.0 is 1).
_TOLD_BY_TEXT = frozenset(
    {"uuid", "bool", "date", "timestamp", "timestamptz", "bytea", "inet", "cidr", "macaddr", _PADDED}
)


@dataclass(frozen=True, slots=True)
class Equality:
    """How the values of a column are told apart: in the same way as those of another with the same `kind`.

    `shown` is the type as SQL writes it, and `by_text` whether two values are equal just where their texts are.
    """

    kind: str
    shown: str
    by_text: bool


def has_canonical_text(base: str, *, built_in: bool, listed: bool, loose: bool) -> bool:
    """Whether equal values of a type have one text (`shape.canonical`), so that who compares texts tells them alike.

    By the name of its base type, whether that is an enumeration, and whether its collation calls unlike texts equal.
    """
    if loose:
        return False
    if not built_in:
        return listed or base == "citext"
    return base in _TEXTS | _NUMBERS | _TOLD_BY_TEXT


async def of_column(connection: Connection, relation: str, column: str) -> Equality | None:
    """That of a column of a table or view, by its quoted name; None where there is none."""
    row = await connection.fetchrow(_COLUMN, relation, column)
    return None if row is None else await _of(connection, row["type"], row["modifier"], row["collation"])


async def of_query(connection: Connection, relation: str, column: str) -> Equality:
    """That of a column of a query in parentheses; a numeric's decimals can't be told of one."""
    value = f"(SELECT d.{quote(column)} FROM {relation} d LIMIT 0)"
    type_ = await connection.fetchval(f"SELECT pg_catalog.pg_typeof({value})::oid::bigint")
    collation = None
    if await connection.fetchval("SELECT typcollation <> 0 FROM pg_catalog.pg_type WHERE oid = $1::bigint::oid", type_):
        sql = f"SELECT pg_catalog.pg_collation_for({value})::regcollation::oid::bigint"
        collation = await connection.fetchval(sql)
    return await _of(connection, type_, -1, collation)


async def require_same(
    connection: Connection, target: str, column: tuple[str, str], ids: Equality, *, joined: bool
) -> None:
    """Raise Blind unless the account column of a target (its table, its name) and the directory's ids are told alike.

    `joined`: a statement of the target's database compares them. Types that no operator compares are left to that.
    """
    table, name = column
    mine = await of_column(connection, table, name)
    if mine is None:
        return  # The table is being changed, which its mark will show.
    if joined:
        await _require_one_kind(connection, f"target {target}: {name!r}", mine, ids)
        return
    for what, each in ((repr(name), mine), ("accounts.id", ids)):
        if not each.by_text:
            raise Blind(
                f"target {target}: {what} is of type {each.shown}, of which values can be equal whose texts differ, "
                "and this account directory is asked by texts: a record could be judged by another account's term",
                remedy="give both columns an integer type, uuid or text; or let accounts.table be a table of the "
                f"target's own database, with an id of type {mine.shown}",
            )


async def _require_one_kind(connection: Connection, what: str, mine: Equality, ids: Equality) -> None:
    if mine.kind == ids.kind or not await _comparable(connection, mine, ids):
        return
    raise Blind(
        f"{what} is of type {mine.shown} and accounts.id of type {ids.shown}, which tell values apart in different "
        "ways: a record could be judged by another account's term",
        remedy=f"give both one type: ALTER TABLE … ALTER COLUMN … TYPE {mine.shown}; or cast the id in accounts.query, "
        "and set accounts.tier_changed_at",
    )


async def _of(connection: Connection, type_: int, modifier: int, collation: int | None) -> Equality:
    row = await connection.fetchrow(_TYPE, type_, modifier, collation)
    if row is None:
        raise Blind(f"there is no type {type_} any more", remedy="the schema is being changed; try again")
    return _equality(row)


def _equality(row: asyncpg.Record) -> Equality:
    name, shown = str(row["name"]), str(row["shown"])
    if row["loose"] is not None:
        return Equality(f"{name} {row['loose']}", f"{shown} COLLATE {row['loose']}", by_text=False)
    if not row["built_in"]:
        return Equality(name if name == "citext" else shown, shown, by_text=bool(row["listed"]))
    if name in _TEXTS:
        return Equality("text", shown, by_text=True)
    if name in _NUMBERS:
        whole = name != "numeric" or _is_whole(row["modifier"])
        return Equality("number", shown, by_text=whole)
    return Equality(name, shown, by_text=name in _TOLD_BY_TEXT)


def _is_whole(modifier: int) -> bool:
    """Whether a numeric's modifier, which holds precision and scale, leaves it no decimals."""
    return modifier >= 0 and (modifier - 4) & 0x7FF == 0


async def _comparable(connection: Connection, one: Equality, other: Equality) -> bool:
    try:
        async with connection.transaction():
            await connection.fetchval(f"SELECT NULL::{one.shown} = NULL::{other.shown}")
    except asyncpg.UndefinedFunctionError:
        return False
    except asyncpg.PostgresError:
        return True  # By two collations, for one: nothing of it is to be relied on.
    return True
