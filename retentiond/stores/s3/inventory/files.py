"""Rows of an inventory's data files, as they come: CSV (gzip) and Parquet.

Keys are URL-encoded in CSV, a space as `+`, and as they are in Parquet
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html; that it is `+`:
https://github.com/cloud-custodian/cloud-custodian/issues/1997). Instants are in UTC.

Parquet is read by arro3, the Parquet reader of Apache Arrow's Rust implementation: it takes a fifth of the room of
pyarrow on disk, a quarter of its memory, and half of its time for the rows of a report.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final
from urllib.parse import unquote_to_bytes

from retentiond.errors import Blind
from retentiond.stores.s3.inventory.manifest import Manifest, plain, require_columns
from retentiond.stores.s3.items import NULL

Row = tuple[bytes, int, str, int, str, bool]
"""The bytes of a key, minus the microseconds since 1970 of when it was written, the id of its version (empty where the
bucket keeps none), size, ETag, and whether it is a delete marker."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_YES: Final = {"true": True, "false": False, "": False}


class _Odd(ValueError):
    """A value that can't be; its text is not shown, for it may be part of a key."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: of objects of this bucket whose keys begin with `head`; of all `versions`, or the current ones."""

    source: str
    head: bytes
    versions: bool


def require_reader(manifest: Manifest) -> None:
    """Raise Blind where the format needs what is not installed."""
    if manifest.format == "Parquet":
        _parquet_reader()


def rows_of(file: IO[bytes], name: str, manifest: Manifest, wanted: Wanted) -> Iterator[Row]:
    """The rows that are wanted of the data file of that name; raises Blind where it can't be read to its end."""
    where = f"inventory file {name}"
    try:
        if manifest.format == "CSV":
            yield from _of_csv(file, manifest.columns, wanted)
        else:
            yield from _of_parquet(file, where, wanted)
    except Blind:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _broken(where, "it ends early, or is no gzip") from error
    except (csv.Error, UnicodeError) as error:
        raise _broken(where, f"it is no CSV ({type(error).__name__})") from error
    except _Odd as error:
        raise _broken(where, str(error)) from error
    except BaseException as error:
        # The reader of Parquet raises errors of its own, for which there is no common name; and what it did not expect
        # of a damaged file ends in a panic of Rust, which is no Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise _broken(where, type(error).__name__) from error
        raise


def _broken(where: str, why: str) -> Blind:
    return Blind(
        f"{where} can't be read: {why}",
        remedy="the next report is taken when it is there; if that is no better, take `inventory` out of the target",
    )


def _of_csv(file: IO[bytes], columns: Sequence[str], wanted: Wanted) -> Iterator[Row]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        reader = csv.reader(text, strict=True)
        of, width = _Columns.of(columns, wanted), len(columns)
        for values in reader:
            if len(values) != width:
                raise _Odd(f"line {reader.line_num} has {len(values)} fields, and the manifest says {width}")
            raw = values[of.key]
            key = unquote_to_bytes(raw.replace("+", " ")) if "%" in raw or "+" in raw else raw.encode()
            row = of.row(values, key, reader.line_num, _micros_of_text, _YES.__getitem__)
            if row is not None:
                yield row


def _of_parquet(file: IO[bytes], where: str, wanted: Wanted) -> Iterator[Row]:
    reader = _parquet_reader()(file)
    columns = [plain(name) for name in reader.schema.names]
    require_columns(columns, versions=wanted.versions, where=where)
    of, at = _Columns.of(columns, wanted), 0
    for batch in reader:
        lists = [batch.column(i).to_pylist() if i in of.used else () for i in range(len(columns))]
        length = batch.num_rows
        filled = [each or [None] * length for each in lists]
        for values in zip(*filled, strict=True):
            at += 1
            key = values[of.key]
            if not isinstance(key, str):
                raise _Odd(f"row {at} has no key")
            row = of.row(values, key.encode(errors="surrogateescape"), at, _micros_of_value, bool)
            if row is not None:
                yield row


def _parquet_reader() -> Callable[[IO[bytes]], Any]:
    try:
        from arro3.io import read_parquet
    except ImportError as error:
        raise Blind(
            "the inventory is written as Parquet, and what reads that is not installed",
            remedy="install the extra `inventory` (pip install 'retentiond[inventory]'), or let it be written as CSV",
        ) from error
    return read_parquet


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where what is needed stands in a row; -1 where it is not there."""

    bucket: int
    key: int
    size: int
    modified: int
    etag: int
    version: int
    latest: int
    marker: int
    wanted: Wanted

    @classmethod
    def of(cls, columns: Sequence[str], wanted: Wanted) -> _Columns:
        """By the plain names of the columns."""
        names = ("bucket", "key", "size", "lastmodifieddate", "etag", "versionid", "islatest", "isdeletemarker")
        bucket, key, size, modified, etag, version, latest, marker = (
            columns.index(each) if each in columns else -1 for each in names
        )
        return cls(bucket, key, size, modified, etag, version, latest, marker, wanted)

    @property
    def used(self) -> frozenset[int]:
        """The columns that are read."""
        return frozenset(
            {self.bucket, self.key, self.size, self.modified, self.etag, self.version, self.latest, self.marker} - {-1}
        )

    def row(
        self, values: Sequence[Any], key: bytes, at: int, micros: Callable[[Any], int], yes: Callable[[Any], bool]
    ) -> Row | None:
        """The row, if it is wanted; raises _Odd for one that can't be one."""
        wanted = self.wanted
        if values[self.bucket] != wanted.source:
            raise _Odd(f"row {at} is of another bucket")
        if not key.startswith(wanted.head):
            return None
        try:
            marker = self.marker >= 0 and yes(values[self.marker])
            if not wanted.versions and (marker or (self.latest >= 0 and not yes(values[self.latest]))):
                return None
            newest = -micros(values[self.modified])
            size = int(values[self.size] or 0)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise _Odd(f"row {at} has a date, a size or a flag that is none") from error
        id_ = (values[self.version] or NULL) if wanted.versions else ""
        return key, newest, id_, size, (values[self.etag] or "").strip('"'), marker


def _micros_of_text(text: str) -> int:
    found = datetime.fromisoformat(text)
    return ((found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND


def _micros_of_value(value: Any) -> int:
    if isinstance(value, datetime):
        return ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND
    if isinstance(value, int):
        return value * 1000
    msg = "no instant"
    raise ValueError(msg)
