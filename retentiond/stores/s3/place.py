"""Where a target's objects are: the endpoint, the bucket in it, and what they were found to be able to do.

Looking asks for as little as it can. What erasing needs, the fence above all, is tried out on a scratch key, and only
before something is erased: a plan must not write.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from contextlib import suppress

from retentiond.domain.clock import ClockReading
from retentiond.errors import Blind, Refused
from retentiond.stores.s3 import abilities, buckets, objects
from retentiond.stores.s3.abilities import Abilities
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Access, Bucket, Endpoint
from retentiond.stores.s3.rows import Listing
from retentiond.stores.s3.signing import Fence
from retentiond.stores.s3.throttle import Throttle


class Place:
    """One target's bucket; made closed, and opened by whoever asks first."""

    def __init__(self, name: str, config: S3Target) -> None:
        self._name, self._config = name, config
        self._access = _access(config)
        self._lock = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._bucket: Bucket | None = None
        self._versioning: buckets.Versioning | None = None
        self._abilities: Abilities | None = None
        self.throttle = Throttle()
        self.has_lock = False

    @property
    def address(self) -> str:
        """The same for targets of one endpoint and login; shows no secret."""
        access = self._access
        told = (access.endpoint_url, access.region, access.access_key_id, access.secret_access_key)
        return f"s3:{hashlib.sha256(repr(told).encode()).hexdigest()}"

    @property
    def listing(self) -> Listing:
        """What is listed of the bucket: versions where it keeps any, or ever has. `open` comes first."""
        if self._versioning is None:
            raise Blind(f"target {self._name} has not been opened")
        return "objects" if self._versioning == "off" else "versions"

    async def bucket(self) -> Bucket:
        """The bucket at its address; raises Unreachable where there are no credentials, Blind for no such name."""
        async with self._lock:
            if self._bucket is None:
                endpoint = await Endpoint.open(self._access)
                try:
                    self._bucket = await endpoint.locate(self._config.bucket)
                except BaseException:
                    await endpoint.close()
                    raise
            return self._bucket

    async def open(self) -> None:
        """See whether the bucket keeps versions, and that a lock can be told from a missing right."""
        bucket = await self.bucket()
        versioning = await versioning_of(bucket)
        locks = await _has_lock(bucket)
        if locks is not False:
            await _require_locks_told(bucket, self._config.template().head)
        self.has_lock = locks is True
        if versioning != self._versioning:
            self._abilities = None
        self._versioning = versioning

    async def clock(self) -> ClockReading:
        """The endpoint's clock; raises Unreachable."""
        bucket = await self.bucket()
        await bucket.ask("HEAD")  # whatever it answers, it tells the time
        return bucket.endpoint.clock.reading()

    async def abilities(self) -> Abilities:
        """What erasing can rely on; raises Blind where it is not allowed, or where late requests are carried out."""
        bucket = await self.bucket()
        # Shards begin at the same time, and one answer does for all of them.
        async with self._probing:
            if self._abilities is None:
                self._abilities = await abilities.probe(bucket, self._config.template().head)
            found = self._abilities
        if found.fence is Fence.NONE and not self._config.unfenced:
            raise Blind(
                f"bucket {self._config.bucket}: this endpoint carries out requests that have expired, so that what was "
                "sent under an old permit may erase after a hold has become active",
                remedy="use an endpoint that honours X-Amz-Expires, or accept it with "
                f"targets.{self._name}.unfenced: true",
            )
        return found

    async def close(self) -> None:
        """Give up all connections."""
        async with self._lock:
            bucket, self._bucket = self._bucket, None
            if bucket is not None:
                await bucket.endpoint.close()


async def versioning_of(bucket: Bucket) -> buckets.Versioning:
    """Whether it keeps versions; where that may not be seen, as if it did. Raises Unreachable."""
    try:
        return await buckets.versioning(bucket)
    except Blind:
        # It may keep versions: their listing shows what there is, or raises what else is wrong.
        return "suspended"


async def _has_lock(bucket: Bucket) -> bool | None:
    """Whether it has Object Lock; None where that may not be seen, so that it may: then locks have to be told."""
    try:
        return (await buckets.lock(bucket)).enabled
    except Blind:
        return None


async def _require_locks_told(bucket: Bucket, head: str) -> None:
    """Raise Blind where a lock could not be seen: its absence in an answer would say nothing."""
    scratch = f"{head}.retentiond-check-{uuid.uuid4().hex}"
    for ask in (objects.legal_hold, objects.retention):
        with suppress(Refused):  # there is no such object, and it is allowed to ask
            await ask(bucket, scratch, None)


def _access(config: S3Target) -> Access:
    secret, token = config.secret_access_key, config.session_token
    return Access(
        endpoint_url=config.endpoint_url,
        region=config.region,
        access_key_id=config.access_key_id.get_secret_value() if config.access_key_id else None,
        secret_access_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
        addressing=config.addressing,
    )
