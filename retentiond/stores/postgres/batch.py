"""One transaction against a table: the fence of one permit, and all that destroys in this store.

It is opened, and takes the advisory lock of the permit's number, before the permit is asked for; whoever activates a
hold asks for the same lock and gets it only when the transaction is over (4-safety).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Locked, Refused, quoted
from retentiond.stores.base import Tally, Window
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import TEXT_SETTINGS, Connection, one, translated
from retentiond.stores.postgres.erase import Erasing, Places
from retentiond.stores.postgres.pieces import Piece
from retentiond.stores.postgres.shape import Params

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

# Each is a fraction of the permit's 30 s of life; they keep a hold's wait short, and are no part of the fence.
_STATEMENT_MS, _IDLE_MS, _TRANSACTION_MS = 15_000, 8_000, 20_000
_LOCK_MS, _PATIENT_LOCK_MS = 150, 3_000
# A commit that the outcome speaks of must survive a crash of the server, whatever the database's default is.
_BEGIN = f"""
SELECT pg_advisory_xact_lock($1), {TEXT_SETTINGS},
       set_config('row_security', 'off', true), set_config('statement_timeout', $2, true),
       set_config('lock_timeout', $3, true), set_config('idle_in_transaction_session_timeout', $4, true),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN set_config('transaction_timeout', $5, true) END,
       pg_current_xact_id()::text AS xid
"""


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """What the server refuses of the deleting statement itself is Refused: fewer records may go."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refused(f"{what}: {quoted(error)}", remedy="see the table's triggers and the grants they need") from error


class PostgresBatch:
    """One transaction against the table; rolled back unless `commit` is called."""

    def __init__(
        self,
        store: PostgresStore,
        connection: Connection,
        transaction: asyncpg.transaction.Transaction,
        plan: TargetPlan,
        number: int,
        *,
        patient: bool,
    ) -> None:
        self.connection = connection
        self.over = False
        self.transaction_id = ""
        self._store, self._transaction, self._plan, self._number = store, transaction, plan, number
        self._patient = patient

    async def begin(self) -> None:
        """Take the lock that is the fence, first of all; then the settings."""
        lock_ms = _PATIENT_LOCK_MS if self._patient else _LOCK_MS
        limits = [str(limit) for limit in (_STATEMENT_MS, lock_ms, _IDLE_MS, _TRANSACTION_MS)]
        row = await one(self.connection, _BEGIN, self._store.lock_key(self._number), *limits)
        self.transaction_id = row["xid"]

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Destroy what is due in the window, under the permit whose number this transaction is the fence of.

        What is still due afterwards is in `locked` where other transactions hold rows, else in `failed`.
        """
        if permit.number != self._number or permit.epoch != self._plan.epoch:
            raise Blind("the permit is not of this transaction and these holds")
        self._require_rights()
        piece = await self._store.piece(self.connection, self._plan, window)
        if piece is None:
            return Tally(transaction=self.transaction_id)
        with _refused(f"target {self._store.name}"):
            gone, skipped = await self._act(piece, salt)
        # A window of so many records from which as many went has none left to be judged.
        whole = gone.changed == window.size and piece.until is not None
        left = Tally() if whole else await self._store.judge(self.connection, piece)
        locked = left.selected if skipped else 0
        failed = 0 if skipped or not left.selected else max(left.selected - await self._late(piece, salt), 0)
        return replace(
            gone,
            scanned=gone.scanned + left.scanned,
            selected=gone.selected + left.selected,
            held=left.held,
            minimum=left.minimum,
            unresolved=left.unresolved,
            blocked=left.blocked,
            locked=locked,
            failed=failed,
            after=piece.after,
            transaction=self.transaction_id,
        )

    def _require_rights(self) -> None:
        """What is refused from here on is refused for a record, by a trigger or a constraint."""
        table, changes = self._store.shape.table, self._store.change is not None
        missing = [] if table.can_select else ["SELECT"]
        missing += ["UPDATE"] if changes and not table.can_update else []
        missing += ["DELETE"] if not changes and not table.can_delete else []
        # Parents are locked by SELECT … FOR UPDATE, which needs the right on one column at least.
        missing += [f"UPDATE ({quote(table.key[0])})"] if self._store.locks_first and not table.can_update else []
        if missing:
            rights = ", ".join(missing)
            raise Blind(
                f"the role of target {self._store.name} lacks {rights} on {table.schema}.{table.name}",
                remedy=f"GRANT {rights} ON {table.sql} TO the role of the dsn; see `retentiond check`",
            )

    async def _act(self, piece: Piece, salt: str) -> tuple[Tally, bool]:
        """Erase; the tally, and whether rows that others hold were left out."""
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            locked = await self._lock(piece, skip_locked=False) if self._store.locks_first else None
            found = await self._erase(piece, salt, locked)
        except asyncpg.LockNotAvailableError as error:
            if not piece.shape.table.can_update:
                raise Locked("records that are due are locked by other transactions") from error
            await savepoint.rollback()
            return await self._erase(piece, salt, await self._lock(piece, skip_locked=True)), True
        await savepoint.commit()
        return found, False

    async def _erase(self, piece: Piece, salt: str, locked: Places | None) -> Tally:
        erasing = self._erasing(piece)
        if not erasing.possible:
            return Tally()
        sql = erasing.erase_sql(salt, locked)
        return erasing.tally(await one(self.connection, sql, *erasing.params.values))

    async def _lock(self, piece: Piece, *, skip_locked: bool) -> Places:
        erasing = self._erasing(piece)
        if not erasing.possible:
            return Places((), ())
        row = await one(self.connection, erasing.lock_sql(skip_locked=skip_locked), *erasing.params.values)
        return Places(tuple(row["parts"]), tuple(row["places"]))

    async def _late(self, piece: Piece, salt: str) -> int:
        """How many records of those still due only became so after the statement: a second try would take them.

        The try is undone; they are the next sweep's. What it can't take either has failed.
        """
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            return (await self._erase(piece, salt, None)).changed
        except asyncpg.LockNotAvailableError:
            return 0
        finally:
            await savepoint.rollback()

    def _erasing(self, piece: Piece) -> Erasing:
        params = Params()
        walk = piece.walk(params)
        return Erasing(piece.shape, piece.plan, params, walk, piece.context, self._store.change)

    async def commit(self) -> None:
        """Make it so; raises Unreachable when the answer never came."""
        self.over = True
        with translated(f"target {self._store.name}"):
            await self._transaction.commit()

    async def roll_back(self) -> None:
        """Undo it, unless it is over."""
        if self.over:
            return
        self.over = True
        try:
            await self._transaction.rollback()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            # The connection is gone, and the server has rolled back by itself; the pool discards the connection.
            return
