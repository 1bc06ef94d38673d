"""Every change of the tables in the order of its commit, as the server's own log has it (logical decoding, pgoutput).

It is the oracle's eye: it sees what was committed and nothing else, whoever did it, and costs the product no trigger.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg

SLOT = "campaign"
OWN = "campaign"
"""The prefix of the message that the campaign writes into each transaction of its own."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
Row = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that came (`old` None), changed, or went (`new` None)."""

    table: str
    old: Row | None
    new: Row | None


@dataclass(slots=True)
class Transaction:
    """A committed transaction: `at` is its commit's time by the server's clock, `own` what the campaign calls it."""

    database: str
    xid: int
    lsn: int
    at: datetime
    own: str | None = None
    changes: list[Change] = field(default_factory=list)


async def begin(connection: asyncpg.Connection, tables: Iterable[str]) -> None:
    """Watch these tables from now on."""
    for table in tables:
        await connection.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    await connection.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE {', '.join(tables)}")
    # A slot's name is one of the whole server.
    await connection.execute(
        "SELECT pg_create_logical_replication_slot($1 || '_' || current_database(), 'pgoutput')", SLOT
    )


class Stream:
    """What has been read so far, each transaction once: after a crash the server may tell some again."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.transactions: list[Transaction] = []
        self._last = 0

    async def read(self, connection: asyncpg.Connection) -> None:
        """Read what has been committed since the last time."""
        rows = await connection.fetch(
            "SELECT data FROM pg_logical_slot_get_binary_changes($1 || '_' || current_database(), NULL, NULL,"
            " 'proto_version', '1', 'publication_names', $1, 'messages', 'true')",
            SLOT,
        )
        for transaction in decode(self.database, (row["data"] for row in rows)):
            if transaction.lsn > self._last:
                self._last = transaction.lsn
                self.transactions.append(transaction)


def decode(database: str, messages: Iterable[bytes]) -> list[Transaction]:
    """The transactions of a stream of pgoutput's messages (protocol version 1)."""
    found: list[Transaction] = []
    relations: dict[int, tuple[str, list[str]]] = {}
    for message in messages:
        read = _Reader(message)
        kind = read.byte()
        if kind == b"B":
            lsn, at, xid = read.take(">qqI")
            found.append(Transaction(database, xid, lsn, _EPOCH + timedelta(microseconds=at)))
        elif kind == b"R":
            relation = read.take(">I")[0]
            _, table, _ = read.text(), read.text(), read.byte()
            relations[relation] = (table, [read.column() for _ in range(read.take(">h")[0])])
        elif kind == b"M":
            read.take(">bq")
            prefix, (size,) = read.text(), read.take(">I")
            if prefix == OWN:
                found[-1].own = read.bytes(size).decode()
        elif kind in (b"I", b"U", b"D"):
            table, columns = relations[read.take(">I")[0]]
            found[-1].changes.append(_change(read, table, columns))
        elif kind not in (b"C", b"O", b"Y"):
            raise ValueError(f"the log has a message of the unforeseen kind {kind!r}")
    return found


def _change(read: _Reader, table: str, columns: list[str]) -> Change:
    rows: dict[bytes, Row] = {}
    while read.left:
        mark = read.byte()
        rows[mark] = read.row(columns)
    return Change(table, rows.get(b"O"), rows.get(b"N"))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> bytes:
        return self.bytes(1)

    def take(self, format_: str) -> tuple[int, ...]:
        return struct.unpack(format_, self.bytes(struct.calcsize(format_)))

    def text(self) -> str:
        end = self._data.index(b"\0", self._at)
        found = self._data[self._at : end].decode()
        self._at = end + 1
        return found

    def column(self) -> str:
        self.byte()
        name = self.text()
        self.take(">II")
        return name

    def row(self, columns: list[str]) -> Row:
        found: Row = {}
        count = self.take(">h")[0]
        for name in columns[:count]:
            kind = self.byte()
            if kind == b"t":
                found[name] = self.bytes(self.take(">I")[0]).decode()
            elif kind == b"n":
                found[name] = None
            else:
                raise ValueError(f"a value of {name} is not in the log (kind {kind!r})")
        return found
