"""A batch by a plain DELETE, and beside it, on a second connection with the same snapshot, the evidence of it.

Under REPEATABLE READ a DELETE takes exactly the rows that its snapshot shows as due, or fails: a row that another
transaction has changed or deleted since is an error, never judged by half. So a SELECT of the same condition with the
same snapshot tells of the same rows. What RETURNING would cost is then spent by another backend, at the same time.
Where anything is in the way, nothing stands, and the sweeper takes the window again carefully.

The snapshot has to be younger than the permit, else an account upgraded while it was asked for would not be seen; and
whoever deletes has to be fenced from before the permit on (4-safety). So the fence is handed over: the second
connection takes the lock of the permit's number, shared, before the permit is asked for; the deleting transaction,
begun afterwards, takes it as well; and the first is asked whether it is still the transaction that it was. If so, the
lock was never free in between, and whoever activates a hold could not get it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

from retentiond.beside import beside
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Conflict, quoted
from retentiond.stores.base import Tally
from retentiond.stores.postgres.batch import IDLE_MS, LOCK_MS, STATEMENT_MS, PostgresBatch, together
from retentiond.stores.postgres.catalog import fingerprint_sql
from retentiond.stores.postgres.connection import Connection, one, open_with, roll_back, same_snapshot, settings
from retentiond.stores.postgres.erase import Erasing
from retentiond.stores.postgres.pieces import Piece
from retentiond.stores.postgres.shape import Params

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

_IN_THE_WAY = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
_XID = "pg_current_xact_id()::text"
_BEGIN = f"SELECT pg_advisory_xact_lock_shared($1), {_XID} AS xid"


@contextmanager
def _unless_in_the_way(target: str) -> Iterator[None]:
    try:
        yield
    except _IN_THE_WAY as error:
        raise Conflict(f"target {target}: {quoted(error)}") from error


class QuickBatch(PostgresBatch):
    """As PostgresBatch; `erase` raises Conflict where other transactions are in the way."""

    isolation = "repeatable_read"
    lock_sql = "pg_advisory_xact_lock_shared"
    snapshot_sql = "pg_export_snapshot()"

    def __init__(
        self, store: PostgresStore, connection: Connection, plan: TargetPlan, number: int, aside: Connection
    ) -> None:
        super().__init__(store, connection, plan, number)
        self._aside = aside
        self._first = aside.transaction(isolation="read_committed")
        self._first_id = ""

    async def begin(self) -> None:
        """Take the fence, on the second connection."""
        open_with(self._aside, settings(statement_ms=STATEMENT_MS, idle_ms=IDLE_MS))
        await self._first.start()
        self._first_id = (await one(self._aside, _BEGIN, self._store.lock_key(self._number)))["xid"]

    async def roll_back(self) -> None:
        """Undo both."""
        await super().roll_back()
        if self._first_id:
            await roll_back(self._first)

    async def _require_unchanged(self) -> None:
        """Lock the schema, and only then take the snapshot and the fence over."""
        open_with(self.connection, settings(statement_ms=STATEMENT_MS, idle_ms=IDLE_MS, lock_ms=LOCK_MS))
        await self._transaction.start()
        await self._keep_schema()
        with _unless_in_the_way(self._store.name):
            row = await self._fence(f", {fingerprint_sql(4)} AS mark", *self._store.marked)
        self._mark = row["mark"]
        await self._hand_over()
        await self._require_same_schema()

    async def _hand_over(self) -> None:
        """Raise Conflict unless the first transaction has held the fence until this one had it too; then end it."""
        lost = Conflict(f"target {self._store.name}: the fence was lost while a permit was asked for")
        try:
            xid = (await one(self._aside, f"SELECT {_XID} AS xid"))["xid"]
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise lost from error
        if xid != self._first_id:
            raise lost
        self._first_id = ""
        await self._first.rollback()

    async def _erased(self, piece: Piece, salt: str) -> Tally:
        with _unless_in_the_way(self._store.name):
            async with beside(self._evidence(piece, salt)) as evidence:
                changed, left = await self._deleted(piece)
                told = await evidence
        if told.changed != changed or left.selected:
            raise Conflict(f"target {self._store.name}: {changed} records of {told.changed} that are due went")
        return replace(together(told, left), verified="same snapshot")

    async def _deleted(self, piece: Piece) -> tuple[int, Tally]:
        changed = 0
        for kind in self._erasing(piece).kinds:
            erasing = self._erasing(piece, only=kind)
            status = await self.connection.execute(erasing.delete_sql(), *erasing.params.values)
            changed += int(status.rpartition(" ")[2])
        return changed, await self._left(piece, changed)

    async def _evidence(self, piece: Piece, salt: str) -> Tally:
        erasing = self._erasing(piece)
        if not erasing.kinds:
            return Tally()
        async with same_snapshot(self._aside, self.snapshot, statement_ms=STATEMENT_MS, idle_ms=IDLE_MS):
            row = await one(self._aside, erasing.evidence_sql(salt), *erasing.params.values)
        return erasing.tally(row)

    def _erasing(self, piece: Piece, only: str | None = None) -> Erasing:
        params = Params()
        walk = piece.walk(params)
        return Erasing(piece.shape, piece.plan, params, walk, piece.context, None, only=only)
