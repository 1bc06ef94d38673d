"""Reports of S3 Inventory: the newest that is complete, and what its manifest says of it.

A report is a folder named by when it was begun, `YYYY-MM-DDTHH-MMZ/`, with `manifest.json` and `manifest.checksum`, the
MD5 of that, which is written last; the data files lie elsewhere and are named by key, size and MD5
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html). One without a checksum, or with
that of something else, is half there, and the one before it counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import orjson

from retentiond.errors import Blind
from retentiond.stores.s3 import listing
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import ABSENT

Format = Literal["CSV", "Parquet"]
COLUMNS: Final[Mapping[str, str]] = {
    name.lower(): name
    for name in (
        "Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag",
    )
}  # fmt: skip
"""The columns that are read, by how `plain` writes them."""
_OF_ALL: Final = ("bucket", "key", "size", "lastmodifieddate", "etag")
_OF_VERSIONS: Final = ("versionid", "isdeletemarker")
_FOLDER: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ/")
_FIELD: Final = re.compile(r"(?:required|optional)\s+\w+\s+(\w+)")
_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")
_TRIES: Final = 14
"""How many that are half there are passed over."""
_AHEAD: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows; `md5` in lower-case hexadecimal digits."""

    key: str
    size: int
    md5: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete report, begun `at` an instant (UTC); `columns` are plain names, in the order of a CSV row."""

    key: str
    at: datetime
    format: Format
    columns: tuple[str, ...]
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class Newest:
    """What was found: the newest complete report, and how many newer ones are half there."""

    manifest: Manifest | None
    half: int


def plain(column: str) -> str:
    """A column's name as both formats have it: `IsLatest` of CSV is `is_latest` of Parquet."""
    return column.replace("_", "").lower()


def require_columns(columns: Sequence[str], *, versions: bool, where: str) -> None:
    """Raise Blind, naming what these plain names lack of what a target needs; `versions`: the bucket keeps any."""
    lacking = [COLUMNS[each] for each in (*_OF_ALL, *(_OF_VERSIONS if versions else ())) if each not in columns]
    if not lacking:
        return
    of_versions = [each for each in lacking if plain(each) in _OF_VERSIONS]
    remedy = f"add {', '.join(each for each in lacking if each not in of_versions)} to its optional fields"
    if of_versions:
        remedy = "let the inventory include all versions (IncludedObjectVersions: All)" + (
            "" if of_versions == lacking else f", and {remedy}"
        )
    raise Blind(f"{where} lacks {', '.join(lacking)}", remedy=remedy)


async def newest(bucket: Bucket, location: str, source: str, *, now: datetime) -> Newest:
    """The newest complete report on the bucket `source` below a location; raises Blind where it can't be used."""
    half = 0
    for folder in await _folders(bucket, location):
        text = await _maybe(bucket, f"{folder}manifest.json")
        checksum = await _maybe(bucket, f"{folder}manifest.checksum")
        told = (checksum or b"").decode("ascii", "replace").strip().lower()
        if text is not None and hashlib.md5(text, usedforsecurity=False).hexdigest() == told:
            return Newest(_read(f"{folder}manifest.json", text, source, now), half)
        half += 1
        if half >= _TRIES:
            break
    return Newest(None, half)


async def _folders(bucket: Bucket, location: str) -> list[str]:
    """The reports' folders, newest first."""
    found: list[str] = []
    after: str | None = None
    while True:
        page = await listing.folders(bucket, location, after=after)
        found += [each for each in page if _FOLDER.fullmatch(each[len(location) :])]
        if len(page) < listing.MOST:
            return sorted(found, reverse=True)
        after = f"{page[-1][:-1]}0"  # `0` comes right after `/`


async def _maybe(bucket: Bucket, key: str) -> bytes | None:
    reply = await bucket.ask("GET", key)
    if reply.status == 404 and (reply.trouble is None or reply.trouble.code in ABSENT):
        return None
    return bucket.require(reply, "reading an inventory", "s3:GetObject").body


def _read(key: str, text: bytes, source: str, now: datetime) -> Manifest:
    where = f"inventory {key}"
    try:
        given = orjson.loads(text)
        said, schema = str(given["sourceBucket"]), str(given["fileSchema"])
        at = datetime.fromtimestamp(int(given["creationTimestamp"]) / 1000, UTC)
        files = tuple(_file(each) for each in given["files"])
        kind = str(given["fileFormat"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise Blind(
            f"{where} is no manifest of S3 Inventory: {type(error).__name__}",
            remedy="see who writes there; only the service itself should",
        ) from error
    if said != source:
        raise Blind(
            f"{where} is of another bucket than {source}",
            remedy="set inventory.prefix and inventory.id to those of an inventory of the target's own bucket",
        )
    if at > now + _AHEAD:
        raise Blind(f"{where} is of {at:%Y-%m-%d}, which is to come", remedy="see who writes there")
    if kind not in ("CSV", "Parquet"):
        raise Blind(
            f"{where} has the format {kind}, which can't be read",
            remedy="let the inventory be written as CSV or Parquet; one in another format can be kept beside it",
        )
    names = _FIELD.findall(schema) if kind == "Parquet" else schema.split(",")
    columns = tuple(plain(each.strip()) for each in names)
    return Manifest(key, at, "CSV" if kind == "CSV" else "Parquet", columns, files)


def _file(given: Mapping[str, Any]) -> DataFile:
    key, size, md5 = given["key"], int(given["size"]), str(given["MD5checksum"])
    if not isinstance(key, str) or size < 0 or not _MD5.fullmatch(md5):
        msg = "a file without a key, size or MD5"
        raise ValueError(msg)
    return DataFile(key, size, md5.lower())
