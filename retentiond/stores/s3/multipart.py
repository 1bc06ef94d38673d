"""Writing an object whose size is known only at its end, with no more than one part of it in memory.

What fits into one part is written by a single request. Each part has its MD5, and the server refuses what came damaged.
"""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from retentiond.stores.s3.bodies import checksum
from retentiond.stores.s3.documents import XMLNS, Malformed, child, name_of, parse
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import ABSENT, error_of
from retentiond.stores.s3.objects import put

PART_BYTES: Final = 5 * 2**20
"""The least that S3 takes of a part that is not the last, and at most there are 10,000; each is hashed on the way."""
_RIGHT: Final = "s3:PutObject"


class Upload:
    """An object that is being written; nothing is there under its key before `finish`."""

    def __init__(self, bucket: Bucket, key: str, *, content_type: str = "", part_bytes: int = PART_BYTES) -> None:
        self._bucket, self._key, self._type, self._part_bytes = bucket, key, content_type, part_bytes
        self._waiting = bytearray()
        self._id: str | None = None
        self._etags: list[str] = []

    async def write(self, data: bytes) -> None:
        """Add these bytes; raises Blind without the right, Refused, Unreachable."""
        self._waiting += data
        # One byte more than a part has: the last one is not sent before `finish`, and is never empty.
        while len(self._waiting) > self._part_bytes:
            part, self._waiting = bytes(self._waiting[: self._part_bytes]), self._waiting[self._part_bytes :]
            await self._send(part)

    async def finish(self) -> str | None:
        """Make it an object; its version id, None in a bucket without versions. Raises as `write`."""
        if self._id is None:
            return await put(self._bucket, self._key, bytes(self._waiting), content_type=self._type)
        await self._send(bytes(self._waiting))
        return await self._complete(self._id)

    async def _send(self, part: bytes) -> None:
        if self._id is None:
            self._id = await self._begin()
        query = [("partNumber", str(len(self._etags) + 1)), ("uploadId", self._id)]
        reply = await self._bucket.ask("PUT", self._key, query, checksum(part, "md5"), part)
        self._etags.append(self._bucket.require(reply, "writing a part of an object", _RIGHT).headers.get("etag", ""))

    async def _begin(self) -> str:
        headers = {"Content-Type": self._type} if self._type else {}
        reply = await self._bucket.ask("POST", self._key, [("uploads", "")], headers)
        found = child(parse(self._bucket.require(reply, "beginning an upload", _RIGHT).body), "UploadId")
        if not found:
            raise Malformed("the answer to the beginning of an upload names none", remedy="check endpoint_url")
        return found

    async def _complete(self, upload: str) -> str | None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(self._etags, 1)
        )
        body = f'<CompleteMultipartUpload xmlns="{XMLNS}">{parts}</CompleteMultipartUpload>'.encode()
        headers = {"Content-Type": "application/xml", **checksum(body, "md5")}
        reply = await self._bucket.ask("POST", self._key, [("uploadId", upload)], headers, body)
        trouble = reply.trouble
        if trouble is not None and trouble.code in ABSENT:
            # An earlier attempt of this very request went through, and its answer was lost: what is there is read back.
            return None
        if trouble is not None:
            raise error_of(trouble, self._bucket.name, "completing an upload", _RIGHT)
        if name_of(parse(reply.body)) != "CompleteMultipartUploadResult":
            raise Malformed("the answer to the completion of an upload is none", remedy="check endpoint_url")
        return reply.headers.get("x-amz-version-id")


async def abort(bucket: Bucket, key: str, upload: str) -> None:
    """Give up an upload that was begun; raises Blind without the right."""
    reply = await bucket.ask("DELETE", key, [("uploadId", upload)])
    if (trouble := reply.trouble) is not None and trouble.code not in ABSENT and reply.status != 404:
        raise error_of(trouble, bucket.name, "aborting an upload", "s3:AbortMultipartUpload")
