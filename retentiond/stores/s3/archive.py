"""Archives in a bucket: the records of a batch as JSON lines in Zstandard, and its manifest (docs/archive.md).

The order is what counts: the records, read back and compared by checksums; then the manifest, read back as well. Nobody
deletes anything before `write` has returned. What no batch has deleted is removed again by its name alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import orjson
from pydantic import SecretStr

from retentiond import __version__
from retentiond.errors import Blind, NotArchived, Refused, Unreachable
from retentiond.stores.archive import ArchivePlace, Kept, Label
from retentiond.stores.base import Archived, Finding
from retentiond.stores.s3 import archive_check, listing, multipart, objects
from retentiond.stores.s3.endpoint import Access, Bucket, Endpoint
from retentiond.stores.s3.packing import Packer, Sums, Unpacker

RECORDS, MANIFEST = ".jsonl.zst", ".manifest.json"
_NAME: Final = re.compile(
    rf"/\d{{4}}/\d\d/\d\d/(?P<batch>[^/.]+)(?:{re.escape(RECORDS)}|{re.escape(MANIFEST)})$", re.ASCII
)
_CONNECT_SECONDS: Final = 3.0
# A request that nobody answers has ended before a batch's time has: so it is told from one that is slow.
_ANSWER_SECONDS: Final = 5.0
_TRIES: Final = 2
_TYPES: Final = {RECORDS: "application/zstd", MANIFEST: "application/json"}
T = TypeVar("T")


class S3Archive:
    """A sink (`stores.archive.Sink`) in one bucket; the endpoint is looked for when it is first needed."""

    def __init__(self, place: ArchivePlace) -> None:
        self.place = place
        self._prefix = place.prefix if not place.prefix or place.prefix.endswith("/") else f"{place.prefix}/"
        self._endpoint: Endpoint | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Give up all connections."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    async def write(self, label: Label, about: Mapping[str, Any], lines: AsyncIterator[bytes]) -> Archived:
        """See `stores.archive.Sink`."""
        bucket = await self._told(self._bucket())
        key = self._key(label, RECORDS)
        packer, upload = Packer(), multipart.Upload(bucket, key, content_type=_TYPES[RECORDS])
        async for chunk in lines:
            await self._told(upload.write(await packer.feed(chunk)))
        await self._told(upload.write(await packer.finish()))
        version = await self._told(upload.finish())
        sums = packer.sums
        await self._told(self._compared(bucket, key, version, sums))
        manifest = self._manifest(about, key, version, sums)
        await self._told(self._write_manifest(bucket, self._key(label, MANIFEST), manifest))
        return Archived(bucket.name, key, version, sums.bytes, sums.sha256, hashlib.sha256(manifest).hexdigest())

    async def remove(self, label: Label) -> None:
        """See `stores.archive.Sink`; the manifest first, without which the records are no archive."""
        bucket = await self._bucket()
        stem = f"{self._prefix}{label.stem}."
        for upload in (await listing.uploads(bucket, stem)).items():
            await multipart.abort(bucket, upload.key, str(upload.upload_id))
        try:
            page = await listing.versions(bucket, stem)
        except (Blind, Refused):
            # Not every endpoint has versions, nor everybody the right to list them.
            found: list[tuple[str, str | None]] = [(self._key(label, each), None) for each in (MANIFEST, RECORDS)]
        else:
            found = [*zip(page.keys, page.version_ids, strict=True)]
        for key, version in sorted(found, key=lambda each: not each[0].endswith(MANIFEST)):
            await objects.remove(bucket, key, version)

    async def kept(self, target: str) -> AsyncIterator[Kept]:
        """See `stores.archive.Sink`."""
        bucket, head, after = await self._bucket(), f"{self._prefix}{target}/", None
        while True:
            page = await listing.objects(bucket, head, after=after)
            for key, size in zip(page.keys, page.sizes, strict=True):
                if (found := _NAME.search(key)) is not None:
                    yield Kept(found["batch"], key, size)
            if (after := page.after) is None:
                return

    async def findings(self, target: str) -> list[Finding]:
        """See `stores.archive.Sink`."""
        try:
            bucket = await self._bucket()
        except (Blind, Refused, Unreachable) as error:
            return [Finding("error", target, f"archive: {error.message}", error.remedy or "")]
        return await archive_check.findings(bucket, self.place, target, f"{self._prefix}{target}/")

    async def _compared(self, bucket: Bucket, key: str, version: str | None, sums: Sums) -> None:
        """Read it back; raises NotArchived where it is not what was written."""
        unpacker = Unpacker()
        async for piece in objects.pieces(bucket, key, sums.bytes, version):
            if not await unpacker.feed(piece):
                break
        if not unpacker.ended or unpacker.sums != sums:
            raise self._damaged()

    async def _write_manifest(self, bucket: Bucket, key: str, manifest: bytes) -> None:
        version = await objects.put(bucket, key, manifest, content_type=_TYPES[MANIFEST])
        if await objects.get(bucket, key, version) != manifest:
            raise self._damaged()

    def _manifest(self, about: Mapping[str, Any], key: str, version: str | None, sums: Sums) -> bytes:
        if sums.lines != about["records"]:
            raise self._damaged()
        data = {
            "key": key,
            "version": version,
            "bytes": sums.bytes,
            "sha256": sums.sha256,
            "uncompressed_bytes": sums.plain_bytes,
            "uncompressed_sha256": sums.plain_sha256,
        }
        whole = {**about, "data": data, "written_at": datetime.now(UTC).isoformat(), "software": __version__}
        return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def _damaged(self) -> NotArchived:
        return NotArchived(
            f"archive in bucket {self.place.bucket}: what is read back is not what was written",
            remedy="nothing was deleted, and the next sweep tries again; see what is between here and the endpoint",
        )

    async def _told(self, work: Awaitable[T]) -> T:
        """What the work comes to; that the endpoint refuses or does not answer is not the fault of any record."""
        try:
            return await work
        except (Refused, Unreachable) as error:
            if isinstance(error, NotArchived):
                raise
            raise NotArchived(f"archive: {error.message}", remedy=error.remedy) from error

    def _key(self, label: Label, ending: str) -> str:
        return f"{self._prefix}{label.stem}{ending}"

    async def _bucket(self) -> Bucket:
        async with self._opening:
            if self._endpoint is None:
                self._endpoint = await Endpoint.open(_access(self.place))
        return await self._endpoint.locate(self.place.bucket)


def _access(place: ArchivePlace) -> Access:
    return Access(
        endpoint_url=place.endpoint_url,
        region=place.region,
        access_key_id=_bare(place.access_key_id),
        secret_access_key=_bare(place.secret_access_key),
        session_token=_bare(place.session_token),
        addressing=place.addressing,
        connect_seconds=_CONNECT_SECONDS,
        answer_seconds=_ANSWER_SECONDS,
        tries=_TRIES,
    )


def _bare(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
