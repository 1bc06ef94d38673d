"""What `check` says of the bucket of an archive: that it can be used, and where and for how long it keeps things."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence

from retentiond.errors import Refused, RetentiondError
from retentiond.stores.access import AWS, service_of
from retentiond.stores.archive import ArchivePlace
from retentiond.stores.base import Finding
from retentiond.stores.config import group_of
from retentiond.stores.s3 import buckets, listing, objects
from retentiond.stores.s3.endpoint import Bucket

_RULE = "nothing to do; a lifecycle rule (NoncurrentVersionExpiration) ends versions"
_PROBE = b'{"retentiond": "this object may be removed"}\n'


async def findings(bucket: Bucket, place: ArchivePlace, target: str, head: str) -> list[Finding]:
    """All that is to be said of it; one small object is written below `head` and removed again."""
    look = _Look(bucket, place, target, head)
    told: list[Finding] = []
    for each in (look.use, look.removal, look.keeping, look.rules, look.region):
        try:
            told += await each()
        except RetentiondError as error:
            told.append(Finding("error", target, f"archive: {error.message}", error.remedy or ""))
    return told


class _Look:
    """One look at one bucket."""

    def __init__(self, bucket: Bucket, place: ArchivePlace, target: str, head: str) -> None:
        self.bucket, self.place, self.target, self.head = bucket, place, target, head
        self.scratch = f"{head}.retentiond-check-{uuid.uuid4().hex}"

    async def use(self) -> Sequence[Finding]:
        """Whether an object can be written, read and removed."""
        version = await objects.put(self.bucket, self.scratch, _PROBE)
        try:
            back = await objects.get(self.bucket, self.scratch, version)
        finally:
            await objects.remove(self.bucket, self.scratch, version)
        return [] if back == _PROBE else [self._finds("what is read back is not what was written")]

    async def removal(self) -> Sequence[Finding]:
        """Whether what a batch leaves that came to nothing can be found."""
        needs: tuple[tuple[Callable[..., Awaitable[object]], str], ...] = (
            (listing.uploads, "unfinished uploads"),
            (listing.versions, "versions"),
        )
        told = []
        for look, what in needs:
            try:
                await look(self.bucket, self.head, size=1)
            except Refused:
                continue  # this endpoint has none
            except RetentiondError as error:
                told.append(
                    Finding(
                        "warning",
                        self.target,
                        f"archive: {what} of batches that came to nothing can't be removed: {error.message}",
                        error.remedy or "",
                    )
                )
        return told

    async def keeping(self) -> Sequence[Finding]:
        """Whether the bucket keeps versions, and by a lock."""
        told = []
        if await buckets.versioning(self.bucket) == "enabled":
            told.append(self._notes("the bucket keeps versions: what is removed there stays as a version", _RULE))
        lock = await buckets.lock(self.bucket)
        if lock.enabled:
            days = f"each new object for {lock.days} days" if lock.days else "what a legal hold is on"
            told.append(
                self._notes(
                    f"Object Lock keeps {days}: an archive can't be removed before, and one that no batch has deleted "
                    "by stays as long",
                    "nothing to do, where archives are to be kept for longer than that",
                )
            )
        return told

    async def rules(self) -> Sequence[Finding]:
        """By which rules the bucket itself erases archives."""
        return [
            self._notes(
                f"lifecycle rule {rule.id or '(without an id)'} erases archives after {rule.days} days",
                "take it out where archives are to be kept for longer",
            )
            for rule in await buckets.lifecycle(self.bucket)
            if rule.enabled
            and rule.days is not None
            and (rule.prefix.startswith(self.head) or self.head.startswith(rule.prefix))
        ]

    async def region(self) -> Sequence[Finding]:
        """Whether the bucket lies where it is said to; only AWS tells regions by names that mean something."""
        if service_of(self.place.endpoint_url) != AWS:
            return []
        there = await buckets.region(self.bucket)
        if there is None or group_of(there) == self.place.group():
            return []
        message = f"the bucket is in {there}, and the configuration says {self.place.group()}"
        return [self._finds(message, "set archive.region to where the bucket is, or name another bucket")]

    def _finds(self, message: str, remedy: str = "") -> Finding:
        return Finding("error", self.target, f"archive: {message}", remedy or "see the endpoint's own documentation")

    def _notes(self, message: str, remedy: str) -> Finding:
        return Finding("info", self.target, f"archive: {message}", remedy)
