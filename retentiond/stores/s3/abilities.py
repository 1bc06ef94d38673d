"""What an endpoint can, found by asking it: its documentation, where there is one, is about another version.

All is tried below a scratch prefix that nobody else has, and taken away again. The expiry is tried on keys that are not
there, so that finding it out needs no object and no right to write one. In a bucket whose versions are all kept a
request without a version id would leave a marker: there the version `null` is asked for, which is not there either.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta

from retentiond.errors import Blind, Refused, RetentiondError
from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import buckets, listing, objects
from retentiond.stores.s3.bodies import body_of, checksum
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Bucket, Reply
from retentiond.stores.s3.errors import DENIED, error_of
from retentiond.stores.s3.items import Checksum, Doomed, How
from retentiond.stores.s3.signing import Fence

_CHECKSUMS: tuple[Checksum, ...] = ("md5", "crc32")
_GOOD = timedelta(seconds=60)
_PAST = timedelta(seconds=2)
"""How long ago the expiry was of a request that must be refused: a server that is lenient for longer is no fence, since
a permit counts on the instant. It is past also by a clock that was read to the second."""
_DELETE = "s3:DeleteObject"
_OTHER_ETAG = "00000000000000000000000000000000"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What was found. `conditional`: DeleteObjects compares ETags; `notes` say what could not be found out."""

    fence: Fence
    conditional: bool
    checksum: Checksum
    versioning: buckets.Versioning
    lock: buckets.BucketLock
    page_size: int
    notes: tuple[str, ...] = ()

    def how(self, *, concurrency: int = 12) -> How:
        """As `deleting` needs to know it."""
        return How(self.fence, self.conditional, self.checksum, concurrency=concurrency)


async def unproved(bucket: Bucket) -> Abilities:
    """What can be told without the right to delete: the bucket's settings, as far as those may be asked."""
    notes: list[str] = []
    versioning, lock = await _versioning(bucket, notes), await _lock(bucket, notes)
    return Abilities(Fence.NONE, conditional=False, checksum="md5", versioning=versioning, lock=lock, page_size=0)


async def probe(bucket: Bucket, prefix: str = "") -> Abilities:
    """Find it out; raises Blind where listing or deleting is not allowed, or there is no bucket, and Unreachable."""
    scratch = f"{prefix}.retentiond-probe-{uuid.uuid4().hex}/"
    page_size = await listing.page_size(bucket, scratch)
    notes: list[str] = []
    versioning, lock = await _versioning(bucket, notes), await _lock(bucket, notes)
    absent = Doomed(f"{scratch}absent", None if versioning == "off" else "null")
    kind = await _checksum(bucket, absent)
    fence = await _fence(bucket, absent, kind)
    conditional = False
    if versioning != "enabled" and not lock.enabled:  # else every version has an id, and nobody can put another there
        conditional = await _conditional(bucket, f"{scratch}object", How(fence, conditional=True, checksum=kind), notes)
    return Abilities(fence, conditional, kind, versioning, lock, page_size, tuple(notes))


async def _versioning(bucket: Bucket, notes: list[str]) -> buckets.Versioning:
    """As the bucket says; where that may not be asked, as the listing of versions shows it."""
    try:
        return await buckets.versioning(bucket)
    except Blind as error:
        notes.append(f"{error.message}; taken as versioned")
        return "suspended"


async def _lock(bucket: Bucket, notes: list[str]) -> buckets.BucketLock:
    try:
        return await buckets.lock(bucket)
    except Blind as error:
        notes.append(error.message)
        return buckets.BucketLock(enabled=False)


async def _checksum(bucket: Bucket, absent: Doomed) -> Checksum:
    """The first that the endpoint takes."""
    last = None
    for kind in _CHECKSUMS:
        reply = await _send(bucket, absent, Fence.NONE, kind, _good(bucket))
        if (last := reply.trouble) is None:
            return kind
        if last.code in DENIED:
            break
    assert last is not None
    raise error_of(last, bucket.name, "deleting a key that is not there", _DELETE)


async def _fence(bucket: Bucket, absent: Doomed, kind: Checksum) -> Fence:
    """The first by which a request in time is carried out, and one after its expiry refused."""
    now = bucket.endpoint.clock.earliest()
    late = Expiry(now - _PAST - _GOOD, now - _PAST)
    for fence in (Fence.QUERY, Fence.DATE):
        in_time = _told(bucket, await _send(bucket, absent, fence, kind, _good(bucket)))
        if in_time.trouble is not None:
            continue
        refused = _told(bucket, await _send(bucket, absent, fence, kind, late))
        if refused.trouble is not None and refused.status == 403:
            return fence
    return Fence.NONE


def _told(bucket: Bucket, reply: Reply) -> Reply:
    """The reply, unless the server is busy: that says nothing of what it can, and is not to be remembered."""
    trouble = reply.trouble
    if trouble is not None and trouble.throttled:
        raise error_of(trouble, bucket.name, "trying out an expiry", _DELETE)
    return reply


async def _conditional(bucket: Bucket, key: str, how: How, notes: list[str]) -> bool:
    """Whether another ETag keeps an object from being erased, and its own does not."""
    try:
        await objects.put(bucket, key, b"retentiond")
    except (Blind, Refused) as error:
        notes.append(f"conditional deletes were not tried: {error.message}")
        return False
    try:
        found = await objects.head(bucket, key)
        await delete(bucket, [Doomed(key, etag=_OTHER_ETAG)], expiry=_good(bucket), how=how)
        if found.state != "present" or (await objects.head(bucket, key)).state != "present":
            return False
        await delete(bucket, [Doomed(key, etag=found.etag)], expiry=_good(bucket), how=how)
        return (await objects.head(bucket, key)).state != "present"
    finally:
        await _clean(bucket, key, how, notes)


async def _clean(bucket: Bucket, key: str, how: How, notes: list[str]) -> None:
    """Take the object away, its versions and markers where there are any."""
    plain = How(how.fence, conditional=False, checksum=how.checksum)
    try:
        left = (await listing.versions(bucket, key)).items()
    except RetentiondError:
        head = await objects.head(bucket, key)
        left = [Doomed(key, None, head.etag, head.size, head.modified)] if head.state == "present" else []
    done = await delete(bucket, left, expiry=_good(bucket), how=plain)
    if done.count("erased") + done.count("already_gone") < len(left):
        notes.append(f"an object could not be taken away again: {key}")


async def _send(bucket: Bucket, absent: Doomed, fence: Fence, kind: Checksum, expiry: Expiry) -> Reply:
    body = body_of([absent], conditional=False)
    headers = {"Content-Type": "application/xml", **checksum(body, kind)}
    return await bucket.destroy(fence, expiry, "POST", "", [("delete", "")], headers, body)


def _good(bucket: Bucket) -> Expiry:
    now = bucket.endpoint.clock.earliest()
    return Expiry(now, now + _GOOD)
