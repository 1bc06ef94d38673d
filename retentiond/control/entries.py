"""The ledger's tables: rows in, rows out, in the caller's transaction. What they mean is the ledger's business.

Appends are put in order by the row lock on the head, which a transaction holds from `lock_head` to its end. So
there is one sequence without gaps, and who appends should do so last. Pages are read without a snapshot held over
them: entries never change, so all up to a size read once are the same however long the reading takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from retentiond.domain.evidence import TreeHead
from retentiond.errors import LedgerError, quoted

if TYPE_CHECKING:
    from datetime import date

    from retentiond.control.database import Database, Tx

    _Record: TypeAlias = asyncpg.Record

PAGE = 2_000
"""Entries read at once: about two megabytes."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the ledger: its tree, and the leaf hash of the last entry (empty before the first one)."""

    tree: TreeHead
    last: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is stored: `at` in UTC, `month` the first day of its month (`month_of`)."""

    seq: int
    month: date
    kind: str
    at: datetime
    leaf: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A signed note of ours, with the tree that it is about."""

    note: str
    tree: TreeHead


def month_of(moment: datetime) -> date:
    """The first day of the month, in UTC."""
    return _utc(moment).date().replace(day=1)


async def lock_head(tx: Tx) -> tuple[Head, datetime]:
    """The head, locked until the transaction ends, and the control clock after the lock was granted."""
    record = await tx.fetchrow(
        "WITH head AS MATERIALIZED (SELECT size, frontier, last FROM retentiond.ledger_head FOR UPDATE)"
        " SELECT head.*, clock_timestamp() AS now FROM head"
    )
    return _head(record), _utc(_there(record)["now"])


async def head(tx: Tx) -> Head:
    """The head as the transaction sees it."""
    return _head(await tx.fetchrow("SELECT size, frontier, last FROM retentiond.ledger_head"))


async def extent(tx: Tx) -> tuple[Head, int]:
    """The head and the largest seq there is, as of one instant: they differ only when somebody tampered."""
    record = await tx.fetchrow(
        "SELECT size, frontier, last, (SELECT coalesce(max(seq), 0) FROM retentiond.ledger_entries) AS newest"
        " FROM retentiond.ledger_head"
    )
    return _head(record), _there(record)["newest"]


async def insert(tx: Tx, rows: Sequence[Row], new_head: Head) -> None:
    """Add the rows, in one statement, and move the locked head to `new_head`."""
    await tx.execute(
        "WITH moved AS (UPDATE retentiond.ledger_head SET size = $1, frontier = $2, last = $3)"
        " INSERT INTO retentiond.ledger_entries (seq, month, kind, at, leaf, hash)"
        " SELECT * FROM unnest($4::bigint[], $5::date[], $6::text[], $7::timestamptz[], $8::bytea[], $9::bytea[])",
        new_head.tree.size,
        list(new_head.tree.frontier),
        new_head.last,
        [row.seq for row in rows],
        [row.month for row in rows],
        [row.kind for row in rows],
        [row.at for row in rows],
        [row.leaf for row in rows],
        [row.hash for row in rows],
    )


async def read(tx: Tx, after: int, limit: int, kinds: Collection[str] | None = None) -> list[Row]:
    """The entries that follow number `after`, in order, at most `limit`; of these kinds only, where given."""
    records = await tx.fetch(
        "SELECT seq, month, kind, at, leaf, hash FROM retentiond.ledger_entries"
        " WHERE seq > $1 AND ($3::text[] IS NULL OR kind = ANY($3::text[])) ORDER BY seq LIMIT $2",
        after,
        limit,
        None if kinds is None else sorted(kinds),
    )
    return [Row(r["seq"], r["month"], r["kind"], _utc(r["at"]), r["leaf"], r["hash"]) for r in records]


async def batches_told(tx: Tx, batches: Collection[str]) -> set[str]:
    """Those of the batches that have an outcome in the ledger, or whose fate nobody knows.

    All outcomes are read: for a command, not for a sweep.
    """
    records = await tx.fetch(
        "SELECT DISTINCT e.entry->>'batch' AS batch FROM (SELECT kind, convert_from(leaf, 'UTF8')::jsonb AS entry"
        " FROM retentiond.ledger_entries WHERE kind IN ('outcome', 'in_doubt')) e"
        " WHERE e.entry->>'batch' = ANY($1::text[]) AND (kind = 'outcome' OR e.entry->>'found' <> 'nothing')",
        sorted(batches),
    )
    return {record["batch"] for record in records}


async def read_to(tx: Tx, after: int, until: int) -> AsyncIterator[list[Row]]:
    """All entries after one number up to and with another, in pages, in the caller's transaction."""
    while after < until:
        page = await read(tx, after, min(PAGE, until - after))
        if not page:
            return
        yield page
        after = page[-1].seq


async def pages(db: Database, after: int, until: int) -> AsyncIterator[list[Row]]:
    """The same with a short transaction for each page: a long reading holds back neither VACUUM nor a pooler."""
    while after < until:
        async with db.transaction(read_only=True) as tx:
            page = await read(tx, after, min(PAGE, until - after))
        if not page:
            return
        yield page
        after = page[-1].seq


async def has_written(tx: Tx) -> bool:
    """Whether the transaction has changed or locked anything: what it sees may then be undone."""
    return bool(await tx.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL"))


async def save_checkpoint(tx: Tx, key_id: str, saved: SavedCheckpoint) -> None:
    """Keep a signed note; one of the same key and size is there already when two processes signed the same head."""
    await tx.execute(
        "INSERT INTO retentiond.ledger_checkpoints (size, key_id, note, frontier) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (key_id, size) DO NOTHING",
        saved.tree.size,
        key_id,
        saved.note,
        list(saved.tree.frontier),
    )


async def latest_checkpoint(tx: Tx, key_id: str) -> SavedCheckpoint | None:
    """The largest checkpoint that the key has signed."""
    record = await tx.fetchrow(
        "SELECT size, note, frontier FROM retentiond.ledger_checkpoints WHERE key_id = $1 ORDER BY size DESC LIMIT 1",
        key_id,
    )
    return _saved(record) if record else None


async def checkpoints(tx: Tx, key_id: str, after: int, until: int) -> list[tuple[int, str]]:
    """Size and note of the key's checkpoints over more than `after` entries and at most `until`, smallest first."""
    records = await tx.fetch(
        "SELECT size, note FROM retentiond.ledger_checkpoints"
        " WHERE key_id = $1 AND size > $2 AND size <= $3 ORDER BY size",
        key_id,
        after,
        until,
    )
    return [(r["size"], r["note"]) for r in records]


@contextmanager
def ledger_refusals() -> Iterator[None]:
    """What Postgres refuses of the ledger's tables is a LedgerError; what it refuses of others stays what it is."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError) as error:
        if "ledger_" not in str(error) and not isinstance(error, asyncpg.InvalidSchemaNameError):
            raise
        raise LedgerError(
            f"the ledger can't be written: {quoted(error)}",
            remedy="start retentiond with the role that owns its schema",
        ) from error


LEDGER_WRITABLE = """
(current_setting('transaction_read_only') = 'off'
 AND has_table_privilege('retentiond.ledger_entries', 'INSERT')
 AND has_table_privilege('retentiond.ledger_head', 'SELECT') AND has_table_privilege('retentiond.ledger_head', 'UPDATE')
 AND (SELECT count(*) FROM retentiond.ledger_head) = 1)
"""
"""What `ledger_writable` asks, as an expression that is true where it has nothing to say."""


async def ledger_writable(tx: Tx) -> None:
    """Raise LedgerError unless an entry could be added in this transaction; takes no lock."""
    with ledger_refusals():
        record = await tx.fetchrow(
            "SELECT current_setting('transaction_read_only') = 'on' AS read_only,"
            " has_table_privilege('retentiond.ledger_entries', 'INSERT')"
            " AND has_table_privilege('retentiond.ledger_head', 'SELECT')"
            " AND has_table_privilege('retentiond.ledger_head', 'UPDATE') AS granted,"
            " (SELECT count(*) FROM retentiond.ledger_head) AS heads"
        )
    if record is None or record["heads"] != 1:
        raise LedgerError(
            "the ledger can't be written: its head is missing",
            remedy="run `retentiond ledger verify`, and restore the control database",
        )
    if record["read_only"]:
        raise LedgerError(
            "the ledger can't be written: the control database is read only",
            remedy="point control.dsn at the primary, and see why it takes no writes",
        )
    if not record["granted"]:
        raise LedgerError(
            "the ledger can't be written: the role lacks INSERT on the entries or UPDATE on the head",
            remedy="GRANT INSERT ON retentiond.ledger_entries, SELECT, UPDATE ON retentiond.ledger_head to it",
        )


def _head(record: _Record | None) -> Head:
    found = _there(record)
    return Head(TreeHead(found["size"], tuple(found["frontier"])), found["last"])


def _there(record: _Record | None) -> _Record:
    if record is None:
        raise LedgerError(
            "the head of the ledger is missing",
            remedy="run `retentiond ledger verify`, and restore the control database",
        )
    return record


def _saved(record: _Record) -> SavedCheckpoint:
    return SavedCheckpoint(record["note"], TreeHead(record["size"], tuple(record["frontier"])))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
