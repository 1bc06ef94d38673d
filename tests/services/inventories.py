"""Reports of S3 Inventory as the service writes them: made of what a bucket has, or of rows that a test makes up.

The layout is AWS's: PREFIX/SOURCE/ID/YYYY-MM-DDTHH-MMZ/manifest.json and manifest.checksum, the data files beside.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_plus

ID = "daily"
PREFIX = "reports"
CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
CURRENT_SCHEMA = "Bucket, Key, Size, LastModifiedDate, ETag, StorageClass"
_PARQUET_SCHEMA = (
    "message s3.inventory {  required binary bucket (UTF8);  required binary key (UTF8);  optional binary version_id (UTF8);"
    "  optional boolean is_latest;  optional boolean is_delete_marker;  optional int64 size;"
    "  optional int64 last_modified_date (TIMESTAMP_MILLIS);  optional binary e_tag (UTF8);"
    "  optional binary storage_class (UTF8);}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One version, marker, or object of a bucket that keeps none (then `version` is empty)."""

    key: str
    modified: datetime
    etag: str = "9dd4e461268c8034f5c8564e155c67a6"
    size: int = 1
    version: str = ""
    latest: bool = True
    marker: bool = False


async def rows_of(ground, *, versions: bool = False) -> list[Row]:
    """Every row that there is, as the service would find it."""
    found = []
    if not versions:
        async for page in ground.client.get_paginator("list_objects_v2").paginate(Bucket=ground.name):
            found += [
                Row(o["Key"], o["LastModified"], o["ETag"].strip('"'), o["Size"]) for o in page.get("Contents", ())
            ]
        return found
    async for page in ground.client.get_paginator("list_object_versions").paginate(Bucket=ground.name):
        for kind in ("Versions", "DeleteMarkers"):
            found += [
                Row(o["Key"], o["LastModified"], o.get("ETag", "").strip('"'), o.get("Size", 0), o["VersionId"], o["IsLatest"], kind != "Versions")
                for o in page.get(kind, ())
            ]  # fmt: skip
    return found


@dataclass
class Report:
    """One report on the bucket of `source`; `at` is when it was begun. What is set to be wrong is written so."""

    ground: object
    rows: Sequence[Row]
    at: datetime
    format: str = "CSV"
    files: int = 3
    schema: str = CSV_SCHEMA
    source: str | None = None
    checksum: str | None = ""
    says_source: str | None = None
    says_format: str | None = None
    id: str = ID

    @property
    def folder(self) -> str:
        """Where its manifest is."""
        return f"{PREFIX}/{self.source or self.ground.name}/{self.id}/{self.at:%Y-%m-%dT%H-%MZ}/"

    def parts(self) -> list[bytes]:
        """The data files: rows in no order, in several files."""
        rows = list(self.rows)
        random.Random(len(rows)).shuffle(rows)
        make = _parquet if self.format == "Parquet" else self._csv
        return [make(rows[i :: self.files], self.source or self.ground.name) for i in range(self.files)]

    def _csv(self, rows: Sequence[Row], bucket: str) -> bytes:
        names = [each.strip() for each in self.schema.split(",")]
        into = io.StringIO()
        writer = csv.writer(into, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for row in rows:
            told = {
                "Bucket": bucket,
                "Key": quote_plus(row.key, safe="/", errors="surrogateescape"),
                "VersionId": row.version,
                "IsLatest": str(row.latest).lower(),
                "IsDeleteMarker": str(row.marker).lower(),
                "Size": "" if row.marker else str(row.size),
                "LastModifiedDate": f"{row.modified.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000Z",
                "ETag": row.etag,
                "StorageClass": "STANDARD",
            }
            writer.writerow([told[name] for name in names])
        return gzip.compress(into.getvalue().encode(), mtime=0)

    async def write(self, *, damage=None, after=None) -> None:
        """Put it into the source bucket; `damage` changes data file 1 before its MD5 is taken, `after` after that."""
        listed = []
        for i, part in enumerate(self.parts()):
            data = damage(part) if damage is not None and i == 1 else part
            key = f"{PREFIX}/{self.source or self.ground.name}/{self.id}/data/{self.at:%Y%m%d%H%M}-{i}"
            listed.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
            await self._put(key, after(data) if after is not None and i == 1 else data)
        manifest = json.dumps(
            {
                "sourceBucket": self.says_source or self.source or self.ground.name,
                "destinationBucket": f"arn:aws:s3:::{self.ground.name}",
                "version": "2016-11-30",
                "creationTimestamp": str(int(self.at.timestamp() * 1000)),
                "fileFormat": self.says_format or self.format,
                "fileSchema": _PARQUET_SCHEMA if self.format == "Parquet" else self.schema,
                "files": listed,
            }
        ).encode()
        await self._put(f"{self.folder}manifest.json", manifest)
        if self.checksum is not None:
            told = self.checksum or hashlib.md5(manifest).hexdigest()
            await self._put(f"{self.folder}manifest.checksum", told.encode())

    async def _put(self, key: str, body: bytes) -> None:
        await self.ground.client.put_object(Bucket=self.ground.name, Key=key, Body=body)


async def report(ground, *, hours: float = 6, versions: bool = False, rows=None, **other) -> Report:
    """A report of so many hours ago, of what there is now unless `rows` says otherwise; written by `write`."""
    found = await rows_of(ground, versions=versions) if rows is None else rows
    found = [each for each in found if not each.key.startswith(f"{PREFIX}/")]
    return Report(ground, found, datetime.now(UTC) - timedelta(hours=hours), **other)


def older(row: Row, days: float) -> Row:
    """The same, written so many days ago."""
    return replace(row, modified=datetime.now(UTC) - timedelta(days=days))


def _parquet(rows: Sequence[Row], bucket: str) -> bytes:
    from arro3.core import Array, DataType, Field, Schema, Table
    from arro3.io import write_parquet

    text, flag, number, instant = DataType.utf8(), DataType.bool(), DataType.int64(), DataType.timestamp("ms")
    columns = {
        "bucket": (text, [bucket for _ in rows]),
        "key": (text, [row.key for row in rows]),
        "version_id": (text, [row.version or None for row in rows]),
        "is_latest": (flag, [row.latest for row in rows]),
        "is_delete_marker": (flag, [row.marker for row in rows]),
        "size": (number, [None if row.marker else row.size for row in rows]),
        "last_modified_date": (number, [int(row.modified.timestamp()) * 1000 for row in rows]),
        "e_tag": (text, [row.etag or None for row in rows]),
        "storage_class": (text, ["STANDARD" for _ in rows]),
    }
    arrays = {name: Array(values, kind) for name, (kind, values) in columns.items()}
    arrays["last_modified_date"] = arrays["last_modified_date"].cast(instant)
    schema = Schema([Field(name, each.type, nullable=True) for name, each in arrays.items()])
    into = io.BytesIO()
    write_parquet(Table.from_pydict(arrays, schema=schema), into)
    return into.getvalue()
