"""Texts that came from elsewhere (part of an object's key) as values of a column's type, where they can be such.

Which can is for the server to say: it knows all types and their spellings.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import asyncpg

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import Column
from retentiond.stores.postgres.connection import Connection, one
from retentiond.stores.postgres.equality import has_canonical_text

_TYPE = """
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(b.typname) AS type, b.typname AS base,
       n.nspname = 'pg_catalog' AS built_in, b.typtype = 'e' AS listed,
       CASE WHEN t.typcollation <> 0 THEN EXISTS (SELECT FROM pg_catalog.pg_collation c
           WHERE c.oid = pg_catalog.pg_collation_for(x.v)::regcollation AND NOT c.collisdeterministic)
       ELSE false END AS loose
FROM (SELECT 1) o LEFT JOIN (SELECT d.{column} AS v FROM {relation} d LIMIT 0) x ON true
JOIN pg_catalog.pg_type t ON t.oid = pg_catalog.pg_typeof(x.v)::oid
JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
JOIN pg_catalog.pg_namespace n ON n.oid = b.typnamespace
"""


async def type_of(connection: Connection, relation: str, column: str) -> Column:
    """A relation's column with its type: of a domain the one below it.

    A cast to it cuts nothing off a text, as one to `varchar(5)`, a domain of that, or `name` would: then the text would
    be taken for another's id. Raises Blind where equal ids of its type can have different texts, which nobody who
    compares texts would see.
    """
    row = await one(connection, _TYPE.format(column=column, relation=relation))
    told = {name: bool(row[name]) for name in ("built_in", "listed", "loose")}
    if not has_canonical_text(row["base"], **told):
        shown = row["type"] + (" with a loose collation" if told["loose"] else "")
        raise Blind(
            f"accounts.id is of type {shown}: values of it can be equal whose texts differ, and records of this target "
            "could be judged by another account's term",
            remedy="give accounts.id an integer type, uuid or text",
        )
    name = "pg_catalog.text" if row["base"] == "name" else row["type"]
    return Column(column, name, row["base"])


async def valid(connection: Connection, type_name: str, texts: Collection[str]) -> Sequence[str]:
    """Those of the texts that can be a value of that type, each once."""
    wanted = [text for text in dict.fromkeys(texts) if _is_text(text)]
    if await connection.fetchval("SELECT current_setting('server_version_num')::int") >= 160_000:
        rows = await connection.fetch(
            "SELECT v FROM unnest($1::text[]) AS v WHERE pg_catalog.pg_input_is_valid(v, $2)", wanted, type_name
        )
        return [row["v"] for row in rows]
    return await _tried(connection, type_name, wanted)


async def _tried(connection: Connection, type_name: str, texts: Sequence[str]) -> Sequence[str]:
    """Older servers can only be tried: all at once, and where that fails each half."""
    if not texts:
        return ()
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT v::{type_name} FROM unnest($1::text[]) AS v", texts)
    except asyncpg.PostgresError as error:
        if not str(error.sqlstate).startswith("22"):
            raise
        half = len(texts) // 2
        if not half:
            return ()
        return [
            *await _tried(connection, type_name, texts[:half]),
            *await _tried(connection, type_name, texts[half:]),
        ]
    return texts


def _is_text(text: str) -> bool:
    """Whether it can be a text in Postgres at all."""
    try:
        return "\x00" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False
