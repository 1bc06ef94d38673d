"""Rows that own objects of another store: the object goes first, then the row.

A row that is due stays as long as its object is there: it is `blocked`, as by a row of another table that refers to it.
Whether the object is there is asked of its store for each row that is due, when the batch has found its window; what
was not asked about counts as there. The other way round the rows say whose an object is, of which tier, and since when.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from retentiond.errors import Blind
from retentiond.stores.accounts import AccountDirectory
from retentiond.stores.postgres.catalog import Column, Table, quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.pieces import Piece
from retentiond.stores.postgres.queries import DUE, judged
from retentiond.stores.postgres.shape import Params, Shape, anchor_expression, canonical, sayable

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

MOST: Final = 500
"""Rows of a window at most: each that is due costs a question, while the batch's transaction is open."""
_TEXTS: Final = ("text", "varchar", "bpchar", "name")
_ORPHANS: Final = 1000


class Objects(Protocol):
    """The store whose objects the rows own."""

    records: tuple[str, ...]

    async def absent(self, keys: Collection[str]) -> frozenset[str]:
        """Which of these keys have surely no object, version or marker any more; raises Blind, Unreachable."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The column with the objects' keys, by which setting it is named, and where the objects are."""

    column: str
    setting: str
    objects: Objects


@dataclass(frozen=True, slots=True)
class RowOwner:
    """What a row says of its object; `anchor` is None where it can't be told."""

    account: str | None
    tier: str | None
    anchor: datetime | None


def column_of(table: Table, pair: Pair) -> Column:
    """The column, which must be of texts; raises Blind."""
    column = table.column(pair.column, pair.setting)
    if column.base not in _TEXTS:
        raise Blind(
            f"the column {pair.column!r} ({pair.setting}) is of type {column.type}, and keys of objects are texts",
            remedy="name a column of type text that has the whole key",
        )
    return column


async def with_gone(connection: Connection, piece: Piece, objects: Objects) -> Piece:
    """The piece with the keys of its due rows whose objects are gone; raises Blind, Unreachable."""
    params, pair = Params(), piece.shape.pair
    assert pair is not None
    free = replace(piece.shape, pair=None)
    base = judged(free, piece.plan, params, piece.walk(params), piece.context, None, more=f", {_key(pair)} AS pair")
    sql = f"SELECT DISTINCT q.pair FROM ({base}) q WHERE q.state = {DUE} AND q.pair IS NOT NULL"
    keys = [row["pair"] for row in await connection.fetch(sql, *params.values)]
    gone = await objects.absent(keys) if keys else frozenset[str]()
    return replace(piece, context=replace(piece.context, gone=tuple(sorted(gone))))


class PairedRows:
    """The rows of a target as the owners of objects; opened by the store of the objects."""

    def __init__(self, store: PostgresStore, pair: Pair) -> None:
        self._store, self._pair = store, pair
        self._shape: Shape | None = None

    @property
    def names_account(self) -> bool:
        """Whether the rows say whose they are."""
        return self._store.config.account is not None

    @property
    def names_tier(self) -> bool:
        """Whether the rows say their tier."""
        return self._store.config.tier_column is not None

    async def open(self, accounts: AccountDirectory | None) -> None:
        """Read the catalogue; raises Blind, Unreachable."""
        twin = copy.copy(self._store)  # a sweep may be using the other one
        await twin.open(accounts)
        self._shape = twin.shape

    async def owners(self, keys: Collection[str]) -> Mapping[str, RowOwner]:
        """The owners of the objects of these keys; absent where no row has the key, or several that don't agree."""
        shape = self._opened()
        assert shape.pair is not None
        account = canonical(shape.account, f"r.{quote(shape.account.name)}") if shape.account else "NULL::text"
        tier = f"r.{quote(shape.tier.name)}::text" if shape.tier else "NULL::text"
        sql = (
            f"SELECT {_key(shape.pair)} AS pair, count(*) AS rows, count(DISTINCT ROW({account}, {tier})) AS different,"
            f" min({account}) AS account, min({tier}) AS tier, max({sayable(anchor_expression(shape))}) AS anchor,"
            f" bool_and({anchor_expression(shape)} IS NOT NULL) AS told FROM {shape.table.sql} r"
            f" WHERE r.{quote(shape.pair.name)} = ANY($1::text[]::{shape.pair.type}[]) GROUP BY 1"
        )
        async with self._store.transaction() as connection:
            rows = await connection.fetch(sql, sorted(filter(_sayable, keys)))
        return {
            row["pair"]: RowOwner(row["account"], row["tier"], row["anchor"] if row["told"] else None)
            for row in rows
            if row["different"] == 1
        }

    async def orphans(self) -> tuple[int, int]:
        """Of the newest rows with a key how many were looked at, and how many have no object; Blind, Unreachable."""
        shape = self._opened()
        assert shape.pair is not None
        sql = (
            f"SELECT {_key(shape.pair)} AS pair FROM {shape.table.sql} r WHERE r.{quote(shape.pair.name)} IS NOT NULL"
            f" ORDER BY r.{quote(shape.anchor.name)} DESC NULLS LAST LIMIT {_ORPHANS}"
        )
        async with self._store.transaction() as connection:
            keys = [row["pair"] for row in await connection.fetch(sql)]
        return len(keys), len(await self._pair.objects.absent(keys))

    def _opened(self) -> Shape:
        if self._shape is None or self._shape.pair is None:
            raise Blind(f"the rows of target {self._store.name} have not been opened")
        return self._shape


def _key(pair: Column) -> str:
    return f"r.{quote(pair.name)}::text"


def _sayable(key: str) -> bool:
    """Whether Postgres can have the text at all."""
    return "\0" not in key and not any("\ud800" <= each <= "\udfff" for each in key)
