"""Single objects: what is there (HEAD), its tags, its legal hold.

Lock headers come only to who has s3:GetObjectLegalHold and s3:GetObjectRetention, so their absence is never read as
"not locked": `Head.lock` is None for "not told".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import quote, urlencode

from retentiond.errors import Refused
from retentiond.stores.s3.bodies import checksum
from retentiond.stores.s3.documents import XMLNS, child, name_of, parse, rows
from retentiond.stores.s3.endpoint import Bucket, Query
from retentiond.stores.s3.errors import ABSENT, error_of

State = Literal["present", "absent", "marker", "denied"]
_PIECE = 4 * 2**20
_LEGAL_HOLD = "x-amz-object-lock-legal-hold"
_UNTIL = "x-amz-object-lock-retain-until-date"
_MODE = "x-amz-object-lock-mode"
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"})


@dataclass(frozen=True, slots=True)
class Lock:
    """What Object Lock keeps a version by; `until` is the end of its retention (UTC)."""

    legal_hold: bool = False
    mode: str | None = None
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether the version can't be erased at that instant (aware)."""
        return self.legal_hold or (self.until is not None and self.until > now)


@dataclass(frozen=True, slots=True)
class Head:
    """What a HEAD says; `lock` is None where nothing of one was told. Of a marker's version Ceph says `absent`."""

    state: State
    etag: str = ""
    modified: datetime | None = None
    size: int = 0
    version_id: str | None = None
    lock: Lock | None = None


async def head(bucket: Bucket, key: str, version_id: str | None = None) -> Head:
    """What is there under the key now, or the version; raises Unreachable, and Blind for what no right explains."""
    reply = await bucket.ask("HEAD", key, _of(version_id))
    headers = reply.headers
    if headers.get("x-amz-delete-marker") == "true" and reply.status in {404, 405}:
        return Head("marker", version_id=headers.get("x-amz-version-id"))
    trouble = reply.trouble
    if trouble is not None and (reply.status == 404 or trouble.code in ABSENT):
        return Head("absent")
    if reply.status == 403:
        return Head("denied")
    if trouble is not None:
        raise error_of(trouble, bucket.name, "looking at an object", "s3:GetObject")
    return Head(
        "present",
        etag=headers.get("etag", "").strip('"'),
        modified=parsedate_to_datetime(headers["last-modified"]) if "last-modified" in headers else None,
        size=int(headers.get("content-length") or 0),
        version_id=headers.get("x-amz-version-id"),
        lock=_lock(headers),
    )


async def tags(bucket: Bucket, key: str, version_id: str | None = None) -> Mapping[str, str] | None:
    """The object's tags, None where there is no such object; a request of its own each time."""
    reply = await bucket.ask("GET", key, [("tagging", ""), *_of(version_id)])
    trouble = reply.trouble
    if trouble is not None and trouble.code == "NoSuchTagSet":
        return {}
    if trouble is not None and (trouble.code in ABSENT or trouble.code in {"NotFound", "MethodNotAllowed"}):
        return None
    right = "s3:GetObjectVersionTagging" if version_id else "s3:GetObjectTagging"
    root = parse(bucket.require(reply, "reading tags", right).body)
    found = next((each for each in root if name_of(each) == "TagSet"), root)
    return {child(each, "Key") or "": child(each, "Value") or "" for each in rows(found, "Tag")}


async def put(
    bucket: Bucket, key: str, body: bytes, *, tags: Mapping[str, str] | None = None, content_type: str = ""
) -> str | None:
    """Write a whole object; its version id, None in a bucket without versions. Raises Blind without the right."""
    headers = checksum(body, "md5")
    if content_type:
        headers["Content-Type"] = content_type
    if tags:
        headers["x-amz-tagging"] = urlencode(tags, quote_via=quote)  # a server may take + for itself
    reply = await bucket.ask("PUT", key, headers=headers, body=body)
    return bucket.require(reply, "writing an object", "s3:PutObject").headers.get("x-amz-version-id")


async def get(bucket: Bucket, key: str, version_id: str | None = None) -> bytes:
    """A whole object; raises Refused where there is none."""
    reply = await bucket.ask("GET", key, _of(version_id))
    return bucket.require(reply, "reading an object", "s3:GetObject").body


async def pieces(bucket: Bucket, key: str, size: int, version_id: str | None = None) -> AsyncIterator[bytes]:
    """An object that is so large, in order, a few megabytes at a time; raises Refused where it is of another size."""
    for start in range(0, size, _PIECE):
        end = min(start + _PIECE, size)
        reply = await bucket.ask("GET", key, _of(version_id), {"Range": f"bytes={start}-{end - 1}"})
        reply = bucket.require(reply, "reading an object", "s3:GetObject")
        told = reply.headers.get("content-range", f"bytes 0-{len(reply.body) - 1}/{len(reply.body)}")
        if told != f"bytes {start}-{end - 1}/{size}" or len(reply.body) != end - start:
            raise Refused(
                f"bucket {bucket.name}: {told} of an object of {size} bytes came, in {len(reply.body)} bytes",
                remedy="see what is between here and the endpoint, and whether others write there",
            )
        yield reply.body


async def remove(bucket: Bucket, key: str, version_id: str | None = None) -> None:
    """Remove an object that no permit is about, such as one of our own; raises Blind without the right."""
    reply = await bucket.ask("DELETE", key, _of(version_id))
    if (trouble := reply.trouble) is not None and trouble.code not in ABSENT and reply.status != 404:
        right = "s3:DeleteObjectVersion" if version_id else "s3:DeleteObject"
        raise error_of(trouble, bucket.name, "removing an object", right)


async def legal_hold(bucket: Bucket, key: str, version_id: str | None) -> bool:
    """Whether a legal hold is on the version; raises Blind without the right to know."""
    reply = await bucket.ask("GET", key, [("legal-hold", ""), *_of(version_id)])
    trouble = reply.trouble
    if trouble is not None and trouble.code in _NO_LOCK:
        return False
    return child(parse(bucket.require(reply, "reading a legal hold", "s3:GetObjectLegalHold").body), "Status") == "ON"


async def retention(bucket: Bucket, key: str, version_id: str | None) -> datetime | None:
    """Until when its retention keeps the version, None for none; raises Blind without the right to know."""
    reply = await bucket.ask("GET", key, [("retention", ""), *_of(version_id)])
    trouble = reply.trouble
    if trouble is not None and trouble.code in _NO_LOCK:
        return None
    until = child(parse(bucket.require(reply, "reading a retention", "s3:GetObjectRetention").body), "RetainUntilDate")
    return _instant(until)


async def set_legal_hold(bucket: Bucket, key: str, version_id: str | None, *, on: bool) -> None:
    """Write a legal hold on the version, or take it off; raises Blind without the right, Refused without a lock."""
    body = f'<LegalHold xmlns="{XMLNS}"><Status>{"ON" if on else "OFF"}</Status></LegalHold>'.encode()
    headers = {"Content-Type": "application/xml", **checksum(body, "md5")}
    reply = await bucket.ask("PUT", key, [("legal-hold", ""), *_of(version_id)], headers, body)
    bucket.require(reply, "writing a legal hold", "s3:PutObjectLegalHold")


def _of(version_id: str | None) -> Query:
    return [("versionId", version_id)] if version_id else []


def _lock(headers: Mapping[str, str]) -> Lock | None:
    if not any(name in headers for name in (_LEGAL_HOLD, _UNTIL, _MODE)):
        return None
    return Lock(headers.get(_LEGAL_HOLD) == "ON", headers.get(_MODE), _instant(headers.get(_UNTIL)))


def _instant(text: str | None) -> datetime | None:
    """An instant of a lock; one without a zone is in UTC."""
    found = datetime.fromisoformat(text) if text else None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
