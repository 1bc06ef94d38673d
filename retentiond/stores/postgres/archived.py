"""Records of a table as lines of JSON, each value in a form that gives the same value again (docs/archive.md).

PostgreSQL says each value as text, for which it knows best how: numbers lose no digit, and any type of any extension
can be read back by a cast. Only what has a form of its own in JSON, or one that everybody reads, is told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import Table, quote
from retentiond.stores.postgres.connection import Connection

Encoding: TypeAlias = Literal["boolean", "integer", "base64", "rfc3339", "text"]

# As it is now, and not when the store was opened: a column that was added since is of the record as well.
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN COALESCE(bt.typnamespace, t.typnamespace) = 'pg_catalog'::regnamespace
            THEN COALESCE(bt.typname, t.typname) ELSE '' END AS base, a.attgenerated <> '' AS generated,
       EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
               WHERE c.oid = a.attrelid AND c.relkind <> 'p') AS has_heirs
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type bt ON bt.oid = t.typbasetype AND t.typtype = 'd'
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INSTANT = """'YYYY-MM-DD"T"HH24:MI:SS.US"""
_ENCODINGS: dict[str, Encoding] = {
    "bool": "boolean",
    "int2": "integer",
    "int4": "integer",
    "bytea": "base64",
    "timestamptz": "rfc3339",
    "timestamp": "rfc3339",
    "date": "rfc3339",
}


@dataclass(frozen=True, slots=True)
class ArchivedColumn:
    """A column as an archive has it: `type` as SQL writes it, `encoding` as docs/archive.md tells."""

    name: str
    type: str
    base: str
    generated: bool

    @property
    def encoding(self) -> Encoding:
        """How its values stand in JSON."""
        return _ENCODINGS.get(self.base, "text")

    def text(self) -> str:
        """The expression over `r` for a value as text."""
        name = f"r.{quote(self.name)}"
        if self.base == "bytea":
            return f"pg_catalog.translate(pg_catalog.encode({name}, 'base64'), E'\\n', '')"
        if self.base == "timestamptz":
            return _within(name, f"pg_catalog.to_char({name} AT TIME ZONE 'UTC', {_INSTANT}\"Z\"')", "timestamptz")
        if self.base == "timestamp":
            return _within(name, f"pg_catalog.to_char({name}, {_INSTANT}')", "timestamp")
        return f"{name}::text"

    def document(self) -> dict[str, str | bool]:
        """The column as the manifest has it."""
        return {"name": self.name, "type": self.type, "encoding": self.encoding, "generated": self.generated}


def _within(name: str, told: str, kind: str) -> str:
    """RFC 3339 knows the years 1 to 9999, and no infinity: what is beyond is told as PostgreSQL does."""
    first, last = (f"{kind} '{edge}'" for edge in ("0001-01-01 00:00", "9999-12-31 23:59:59.999999"))
    if kind == "timestamptz":
        first, last = (f"{kind} '{edge}+00'" for edge in ("0001-01-01 00:00", "9999-12-31 23:59:59.999999"))
    return f"CASE WHEN {name} BETWEEN {first} AND {last} THEN {told} ELSE {name}::text END"


async def read_columns(connection: Connection, table: Table) -> tuple[ArchivedColumn, ...]:
    """The table's columns as they are now; raises Blind where a record can have others as well."""
    rows = await connection.fetch(_COLUMNS, table.oid)
    if any(row["has_heirs"] for row in rows):
        raise Blind(
            f"tables inherit from {table.schema}.{table.name}, and what columns of their own hold would be lost to the "
            "archive",
            remedy="make them partitions, or targets of their own that inherit nothing; or set action: delete",
        )
    return tuple(ArchivedColumn(row["name"], row["type"], row["base"], row["generated"]) for row in rows)


def record_sql(columns: Sequence[ArchivedColumn]) -> str:
    """The expression over `r` for all of a record: its values as texts, in the order of the columns."""
    return f"ARRAY[{', '.join(column.text() for column in columns)}]::text[]"


class Lines:
    """Makes lines of records that were told by `record_sql`."""

    def __init__(self, columns: Sequence[ArchivedColumn]) -> None:
        self._names = [column.name for column in columns]
        self._booleans = [at for at, column in enumerate(columns) if column.encoding == "boolean"]
        self._integers = [at for at, column in enumerate(columns) if column.encoding == "integer"]

    def of(self, records: Iterable[Sequence[str | None]]) -> bytes:
        """A line of JSON for each."""
        return b"".join([self._line(list(record)) for record in records])

    def _line(self, values: list[object]) -> bytes:
        for at in self._booleans:
            values[at] = None if values[at] is None else values[at] == "true"
        for at in self._integers:
            values[at] = None if values[at] is None else int(str(values[at]))
        return orjson.dumps(dict(zip(self._names, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
