"""One transaction against a table: the fence of one permit, and all that destroys in this store.

It is opened, and takes the advisory lock of the permit's number, before the permit is asked for; whoever activates a
hold asks for the same lock and gets it only when the transaction is over (4-safety).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import asyncpg

from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Locked, Refused, Unreachable, quoted
from retentiond.stores.base import Tally, Window
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection, committing, one, open_with, roll_back, settings
from retentiond.stores.postgres.erase import Erasing, Places
from retentiond.stores.postgres.fate import RUN_SQL, name
from retentiond.stores.postgres.pieces import Piece, measured
from retentiond.stores.postgres.shape import Params

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

# Each is a fraction of the permit's 30 s of life; they keep a hold's wait short, and are no part of the fence.
STATEMENT_MS, IDLE_MS, _TRANSACTION_MS = 15_000, 8_000, 20_000
LOCK_MS, _PATIENT_LOCK_MS, _SETTLE_LOCK_MS = 150, 3_000, 5_000
# A commit that the outcome speaks of must survive a crash of the server, whatever the database's default is.
_BEGIN = f"""
SELECT {{lock}}($1), set_config('lock_timeout', $2, true),
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END,
       CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN set_config('transaction_timeout', $3, true) END,
       pg_current_xact_id()::text AS xid, {{line}} AS line, {RUN_SQL} AS run,
       {{snapshot}} AS snapshot{{more}}
"""


@contextmanager
def refused(what: str) -> Iterator[None]:
    """What the server refuses of the deleting statement itself is Refused: fewer records may go."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refused(f"{what}: {quoted(error)}", remedy="see the table's triggers and the grants they need") from error


def together(gone: Tally, left: Tally) -> Tally:
    """What a batch erased, with what the rest of its piece came to."""
    return replace(
        gone,
        scanned=gone.scanned + left.scanned,
        selected=gone.selected + left.selected,
        held=left.held,
        minimum=left.minimum,
        unresolved=left.unresolved,
        blocked=left.blocked,
        overdue_seconds=left.overdue_seconds if left.blocked else 0.0,
    )


@asynccontextmanager
async def settling(connection: Connection, what: str) -> AsyncIterator[None]:
    """While the control state is written in a batch's own transaction: what goes wrong is no record's fault.

    It shares the ledger's head with every other unit, so it waits for locks as the control database's own
    transactions do; what is left of the batch has its short patience again.
    """
    try:
        row = await one(
            connection,
            "SELECT current_setting('lock_timeout') AS was, set_config('lock_timeout', $1, true)",
            str(_SETTLE_LOCK_MS),
        )
        yield
        await connection.fetchval("SELECT set_config('lock_timeout', $1, true)", row["was"])
    except asyncpg.PostgresError as error:
        remedy = "see pg_locks for who holds the control state; the next sweep takes the batch again"
        raise Unreachable(f"{what}: the outcome can't be written: {quoted(error)}", remedy=remedy) from error


class PostgresBatch:
    """One transaction against the table; rolled back unless `commit` is called."""

    isolation: ClassVar[Literal["read_committed", "repeatable_read"]] = "read_committed"
    lock_sql: ClassVar[str] = "pg_advisory_xact_lock"
    snapshot_sql: ClassVar[str] = "NULL::text"
    idle_ms: ClassVar[int] = IDLE_MS
    transaction_ms: ClassVar[int] = _TRANSACTION_MS

    def __init__(
        self,
        store: PostgresStore,
        connection: Connection,
        plan: TargetPlan,
        number: int,
        *,
        patient: bool = False,
    ) -> None:
        self.connection = connection
        self.over = False
        self.transaction_id = ""
        self.snapshot = ""
        self._mark = ""
        self._record: str | None = None
        self._store, self._plan, self._number = store, plan, number
        self._transaction = connection.transaction(isolation=self.isolation)
        self._patient = patient

    async def begin(self) -> None:
        """Open the transaction and take the lock that is the fence, first of all."""
        open_with(self.connection, settings(statement_ms=STATEMENT_MS, idle_ms=self.idle_ms))
        await self._transaction.start()
        await self._fence()

    async def _fence(self, more: str = "", *values: object) -> asyncpg.Record:
        """Take it, and see which transaction this is; `more` columns have placeholders from number 4 on."""
        limits = (str(_PATIENT_LOCK_MS if self._patient else LOCK_MS), str(self.transaction_ms))
        line = await self._store.line_sql()
        begin = _BEGIN.format(lock=self.lock_sql, line=line, snapshot=self.snapshot_sql, more=more)
        row = await one(self.connection, begin, self._store.lock_key(self._number), *limits, *values)
        self.transaction_id, self.snapshot = name(row["xid"], row["line"], row["run"]), row["snapshot"]
        return row

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Destroy what is due in the window, under the permit whose number this transaction is the fence of.

        What is still due afterwards is in `locked` where other transactions hold rows, else in `failed`.
        """
        if permit.number != self._number or permit.epoch != self._plan.epoch:
            raise Blind("the permit is not of this transaction and these holds")
        self._require_rights()
        await self._require_unchanged()
        piece = await self._store.piece(self.connection, self._plan, window)
        if piece is None:
            return Tally(transaction=self.transaction_id)
        with refused(f"target {self._store.name}"):
            found = await self._erased(piece, salt)
        return replace(found, after=piece.after, transaction=self.transaction_id)

    async def _erased(self, piece: Piece, salt: str) -> Tally:
        gone, skipped = await self._act(piece, salt)
        left = await self._left(piece, gone.changed)
        # What nothing can have vetoed became due only now, or is held by others: a later pass takes it.
        later = skipped or not self._store.may_veto
        both = together(gone, left)
        return replace(both, locked=left.selected) if later else replace(both, failed=left.selected)

    async def _left(self, piece: Piece, gone: int) -> Tally:
        """The piece judged as it is now, when so many records of it have gone."""
        # A window of so many records from which as many went has none left to be judged.
        # But one that was measured before may have more by now.
        whole = gone == piece.window.size and piece.until is not None and piece.window.end is None
        return Tally() if whole else await self._store.judge(self.connection, piece)

    async def _require_unchanged(self) -> None:
        """Keep the table as it is until the end of the batch, and see that it is what the SQL was made for."""
        await self._keep_schema()
        await self._require_same_schema()

    async def _keep_schema(self) -> None:
        """The lock is the delete's own, taken early.

        It lets the application read and write, but no foreign key be added and no column changed.
        """
        table = self._store.shape.table
        try:
            await self.connection.execute(f"LOCK TABLE {table.sql} IN ROW EXCLUSIVE MODE")
        except asyncpg.LockNotAvailableError as error:
            raise Unreachable(
                f"target {self._store.name}: another session has {table.schema}.{table.name} locked as a whole",
                remedy="see pg_locks for which; the sweep is tried again",
            ) from error

    async def _require_same_schema(self) -> None:
        if not self._store.is_mark(self._mark or await self._store.read_mark(self.connection), self._plan):
            raise Blind(
                f"the schema of target {self._store.name} was changed in the middle of a sweep",
                remedy="run `retentiond check`; the next sweep takes the new schema over where it fits",
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
        patient = True
        if not self._store.locks_first:
            try:
                if (found := await self._at_once(piece, salt)) is not None:
                    return found, False
            except asyncpg.LockNotAvailableError:
                patient = False
            if not piece.shape.table.can_update:
                raise Locked("records that are due are in use by other transactions")
        return await self._locking(piece, salt, patient=patient)

    async def _at_once(self, piece: Piece, salt: str) -> Tally | None:
        """Erase by one statement; None, and nothing done, where it waited for rows that were changed meanwhile.

        PostgreSQL judges such a row again, but by the account as the statement's snapshot has it, which the same
        transaction may have changed as well.
        """
        erasing = self._erasing(piece)
        if not erasing.kinds:
            return Tally()
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            row = await self._carried_out(erasing.erase_sql(salt, None), erasing.params.values)
        except asyncpg.LockNotAvailableError:
            await savepoint.rollback()
            raise
        if row["newer"]:
            await savepoint.rollback()
            return None
        await savepoint.commit()
        return erasing.tally(row)

    async def _locking(self, piece: Piece, salt: str, *, patient: bool) -> tuple[Tally, bool]:
        """Lock what is due, then judge it again by a later snapshot and erase; rows of others are left out at last."""
        if patient:
            savepoint = self.connection.transaction()
            await savepoint.start()
            try:
                places = await self._lock(piece, skip_locked=False)
            except asyncpg.LockNotAvailableError:
                await savepoint.rollback()
            else:
                await savepoint.commit()
                return await self._erase(piece, salt, places), False
        return await self._erase(piece, salt, await self._lock(piece, skip_locked=True)), True

    async def _erase(self, piece: Piece, salt: str, places: Places) -> Tally:
        erasing = self._erasing(piece)
        if not erasing.kinds:
            return Tally()
        sql = erasing.erase_sql(salt, places)
        return erasing.tally(await self._carried_out(sql, erasing.params.values))

    async def _carried_out(self, sql: str, values: Sequence[object]) -> asyncpg.Record:
        """Carry out the statement that erases: its first row."""
        return await one(self.connection, sql, *values)

    async def _lock(self, piece: Piece, *, skip_locked: bool) -> Places:
        erasing = self._erasing(piece)
        if not erasing.kinds:
            return Places((), ())
        row = await one(self.connection, erasing.lock_sql(skip_locked=skip_locked), *erasing.params.values)
        return Places(tuple(row["parts"]), tuple(row["places"]))

    def _erasing(self, piece: Piece) -> Erasing:
        params = Params()
        walk = piece.walk(params)
        return Erasing(piece.shape, piece.plan, params, walk, piece.context, self._store.change, record=self._record)

    async def measured(self, window: Window) -> Window:
        """See `stores.base.Batch`."""
        return await measured(self.connection, self._store.shape, self._plan, window)

    async def commit(self) -> None:
        """Make it so; raises Unreachable when the answer never came, or tells nothing for sure."""
        self.over = True
        with committing(f"target {self._store.name}"):
            await self._transaction.commit()

    async def roll_back(self) -> None:
        """Undo it, unless it is over."""
        if not self.over:
            self.over = True
            await roll_back(self._transaction)
