"""A batch that archives: what the deleting statement itself returns is written, read back, and only then committed.

So the archive has exactly the records that go, as they were when they went, whatever was changed meanwhile: there is
no second statement that could see others. PostgreSQL keeps what is returned (in memory, then in files of its own) and
gives it out piece by piece, so that neither side has the whole in memory. Until the COMMIT the records are only locked;
where the archive fails, or the process stops, the server undoes the deletion, and what was written is removed, or left
over under a name that no outcome knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import asyncpg

from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Late
from retentiond.stores.archive import Attempt, Label
from retentiond.stores.base import Tally, Window
from retentiond.stores.postgres.archived import ArchivedColumn, Lines, read_columns, record_sql
from retentiond.stores.postgres.batch import PostgresBatch
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.pieces import Piece

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

FORMAT: Final = "retentiond-archive-1"
WRITE_SECONDS: Final = 12.0
"""For all that is written and read back of one batch: a fraction of the permit's 30 s, as the other limits are."""
_USUAL_BYTES, _MOST_BYTES = 32 * 2**20, 256 * 2**20
_AT_ONCE_BYTES, _MOST_AT_ONCE = 2**20, 1000


@dataclass(slots=True)
class Volume:
    """How many bytes a record of the target came to of late, as JSON: what bounds the records of one object."""

    each: float = 0.0

    def fits(self, size: int) -> int:
        """So many records of those are what one object should have."""
        return max(1, min(size, int(_USUAL_BYTES / self.each))) if self.each else size

    def at_once(self) -> int:
        """So many are asked for at a time."""
        return max(1, min(_MOST_AT_ONCE, int(_AT_ONCE_BYTES / self.each))) if self.each else 1

    def learn(self, records: int, size: int) -> None:
        """So many came to so many bytes."""
        self.each = size / records


class ArchiveBatch(PostgresBatch):
    """As PostgresBatch; `erase` has archived what goes when it returns."""

    # Between two statements a part of the archive is written.
    idle_ms: ClassVar[int] = 15_000
    transaction_ms: ClassVar[int] = 25_000

    def __init__(
        self,
        store: PostgresStore,
        connection: Connection,
        plan: TargetPlan,
        number: int,
        attempt: Attempt,
        volume: Volume,
        *,
        patient: bool,
    ) -> None:
        super().__init__(store, connection, plan, number, patient=patient)
        self._attempt, self._volume = attempt, volume
        self._columns: tuple[ArchivedColumn, ...] = ()
        self._permit: Permit | None = None
        self._records: Any = None

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """As PostgresBatch; also raises NotArchived, and Late where the archive takes too long for so many records."""
        self._permit = permit
        fitting = replace(window, size=self._volume.fits(window.size), end=None)
        return await super().erase(permit, fitting, salt=salt)

    async def measured(self, window: Window) -> Window:
        """Not ahead of time: how many records the next object has is known only then."""
        return window

    async def commit(self) -> None:
        """Make it so; from here on the archive stays, unless it surely was rolled back."""
        with self._attempt.committing():
            await super().commit()

    async def _require_unchanged(self) -> None:
        await super()._require_unchanged()
        # Under the lock by which no column can be added any more.
        self._columns = await read_columns(self.connection, self._store.shape.table)
        self._record = record_sql(self._columns)

    async def _carried_out(self, sql: str, values: Sequence[object]) -> asyncpg.Record:
        """Carry it out, all of it, and leave at the server what it returns after the first row."""
        # Without a name: one of a statement would stay with a pooler's server.
        statement = await self.connection.prepare(sql, name="")
        self._records = await statement.cursor(*values)
        row: asyncpg.Record = await self._records.fetchrow()
        return row

    async def _erased(self, piece: Piece, salt: str) -> Tally:
        found = await super()._erased(piece, salt)
        if not found.changed:
            return found
        if await read_columns(self.connection, self._store.shape.table) != self._columns:
            raise Blind(f"the columns of target {self._store.name} were changed under a lock that forbids it")
        assert self._permit is not None
        label = Label(self._store.name, self._permit.batch, self._permit.issued_at)
        try:
            async with asyncio.timeout(WRITE_SECONDS), aclosing(self._lines(found.changed)) as lines:
                archived = await self._attempt.write(label, self._about(found), lines)
        except TimeoutError as error:
            raise Late(
                f"target {self._store.name}: archiving {found.changed} records took longer than {WRITE_SECONDS:.0f} s",
                remedy="it is tried with fewer; if that does not help, see how fast the archive's endpoint is",
            ) from error
        return replace(found, archived=archived, verified="returning, archive read back")

    async def _lines(self, expected: int) -> AsyncGenerator[bytes, None]:
        """The records that went, as lines in chunks; raises Late where they are too large together."""
        lines, seen, size = Lines(self._columns), 0, 0
        while rows := await self._records.fetch(self._volume.at_once()):
            chunk = lines.of(row["record"] for row in rows)
            seen, size = seen + len(rows), size + len(chunk)
            self._volume.learn(seen, size)
            if size > _MOST_BYTES and expected > 1:
                raise Late(
                    f"target {self._store.name}: {expected} records are more than {_MOST_BYTES >> 20} MiB",
                    remedy="nothing to do: it is tried with fewer",
                )
            yield chunk
        if seen != expected:
            raise Blind(f"target {self._store.name}: {seen} records were returned of {expected} that were deleted")

    def _about(self, found: Tally) -> dict[str, Any]:
        """What the manifest says of the batch; no record and no account is named in it."""
        plan, permit, table = self._plan, self._permit, self._store.shape.table
        assert permit is not None
        return {
            "format": FORMAT,
            "target": plan.target,
            "class": plan.data_class.name,
            "table": f"{table.schema}.{table.name}",
            "key": list(table.key),
            "columns": [column.document() for column in self._columns],
            "records": found.changed,
            "oldest": found.oldest,
            "newest": found.newest,
            "tiers": dict(found.by_tier),
            "batch": permit.batch,
            "permit": permit.number,
            "policy": plan.digest,
            "hold_epoch": permit.epoch,
            "ids_digest": found.ids_digest,
            "issued_at": permit.issued_at.isoformat(),
        }
