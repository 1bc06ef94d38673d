"""The account directory asked about the accounts of a page, for stores that can't join it (`base.AccountDirectory`).

Ids come as the records write them and are compared as the directory's own type does: an upper-case UUID, `007` for an
integer. Text that can't be of that type is no account of it, and must not keep the others from being found: a statement
that fails for one of many ids is asked again for halves of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import asyncpg

from retentiond.domain.accounts import AccountFacts
from retentiond.errors import Blind
from retentiond.stores.base import Known
from retentiond.stores.postgres.catalog import Column
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import DirectorySource, Params, canonical, sayable
from retentiond.stores.postgres.terms import override_expression


async def id_column(connection: Connection, source: DirectorySource) -> Column:
    """The directory's id with its type."""
    row = await connection.fetchrow(
        "SELECT t.oid::regtype::text AS type, COALESCE(b.typname, t.typname)::text AS base FROM pg_catalog.pg_type t"
        " LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'"
        f" WHERE t.oid = (SELECT pg_catalog.pg_typeof((SELECT d.{source.id} FROM {source.relation} d LIMIT 1)))"
    )
    assert row is not None  # every type is in pg_type
    return Column("id", row["type"], row["base"])


async def canonical_texts(connection: Connection, column: Column, ids: Collection[str]) -> dict[str, str]:
    """The ids in the canonical text of the column's type; those that can't be of it are absent."""
    sql = f"SELECT v AS id, {canonical(column, f'v::{column.type}')} AS text FROM unnest($1::text[]) v"

    async def told(some: Sequence[str]) -> dict[str, str]:
        try:
            async with connection.transaction():
                rows = await connection.fetch(sql, list(some))
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):  # no such value; not of the domain
            if len(some) == 1:
                return {}
            half = len(some) // 2
            return await told(some[:half]) | await told(some[half:])
        return {row["id"]: row["text"] for row in rows}

    sendable = [each for each in ids if _is_text(each)]
    return await told(sendable) if sendable else {}


async def read_known(
    connection: Connection, source: DirectorySource, class_name: str, ids: Collection[str]
) -> dict[str, Known]:
    """What the directory says of these accounts, by the ids as given; raises Blind where it has one twice."""
    column = await id_column(connection, source)
    texts = await canonical_texts(connection, column, ids)
    if not texts:
        return {}
    params = Params()
    asked = params.add(list(texts), "text[]")
    override = override_expression(source, class_name, params)
    deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
    changed = f"d.{source.changed_at}::timestamptz" if source.changed_at else "NULL::timestamptz"
    rows = await connection.fetch(
        f"SELECT v AS asked, {canonical(column, f'd.{source.id}')} AS id, d.{source.id}::text AS written,"
        f" d.{source.tier}::text AS tier, {override} AS override,"
        f" CASE WHEN isfinite({deleted}) THEN {sayable(deleted)} END AS deleted_at,"
        f" {sayable(changed)} AS changed_at"
        f" FROM unnest({asked}) v JOIN {source.relation} d ON d.{source.id} = v::{column.type}",
        *params.values,
    )
    found = {row["asked"]: _known(row) for row in rows}
    if len(found) < len(rows):
        raise Blind(
            "the account directory has an account whose id stands twice",
            remedy="make accounts.table or accounts.query give each account once",
        )
    return found


def _known(row: asyncpg.Record) -> Known:
    facts = AccountFacts(True, row["tier"], row["override"], row["deleted_at"])
    return Known(row["id"], facts, row["written"], row["changed_at"])


def _is_text(text: str) -> bool:
    """Whether Postgres can have the text at all: keys of objects may have what it can't."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
