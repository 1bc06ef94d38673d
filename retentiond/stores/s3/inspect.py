"""What `check` says of a bucket: what the endpoint can, which rights are missing, and how the bucket is set.

Rights are found out by asking, on a scratch key that is not there: a server says that it is not allowed before it says
that there is nothing. Nothing that exists is touched.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

from retentiond.domain.duration import Duration, expires_at
from retentiond.domain.policy import DataClass
from retentiond.errors import Blind, Refused, RetentiondError, Unreachable
from retentiond.stores.base import Finding, Severity
from retentiond.stores.clock import Expiry
from retentiond.stores.rulings import Untold
from retentiond.stores.s3 import abilities, buckets, listing, objects
from retentiond.stores.s3.abilities import Abilities
from retentiond.stores.s3.config import S3Target, service_of
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.signing import Fence

_UNFENCED = (
    "this endpoint carries out requests that have expired: what was sent under an old permit may still erase after a "
    "hold has become active"
)
_UNCONDITIONAL = (
    "this endpoint does not compare ETags, so each object is looked at again right before it is erased; one that is "
    "written within those moments goes as well, and the ledger says `unconditional`"
)
_OWN_KEYS = "write each object under a key of its own instead of over an old one, or let the bucket keep versions"
_SAMPLE = 1000
_SOON = timedelta(seconds=60)


async def findings(bucket: Bucket, config: S3Target, name: str, data_class: DataClass) -> list[Finding]:
    """All that is to be said of the target `name` over this bucket; what can't be looked at is an error among it."""
    told: list[Finding] = []
    try:
        found = await abilities.probe(bucket, config.template().head)
        looked = _Look(bucket, config, name, data_class, found)
        told += looked.of_abilities()
    except Unreachable as error:
        return [_broken(name, error)]
    except RetentiondError as error:
        # A right is missing, or the bucket is: which others are as well is to be said with it.
        told.append(_broken(name, error))
        looked = _Look(bucket, config, name, data_class, await abilities.unproved(bucket))
    for each in (
        looked.keys,
        looked.versions,
        looked.uploads,
        looked.lock,
        looked.reading,
        looked.copies,
        looked.place,
    ):
        told += await _told(name, each)
    return list(dict.fromkeys(told))


async def _told(name: str, look: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
    try:
        return await look()
    except RetentiondError as error:
        return [_broken(name, error)]


def _broken(name: str, error: RetentiondError) -> Finding:
    return Finding("error", name, error.message, error.remedy or "")


class _Look:
    """One look at one bucket."""

    def __init__(self, bucket: Bucket, config: S3Target, name: str, data_class: DataClass, found: Abilities) -> None:
        self.bucket, self.config, self.name, self.data_class, self.found = bucket, config, name, data_class, found
        self.template = config.template()
        self.scratch = f"{self.template.head}.retentiond-check-{uuid.uuid4().hex}"

    def of_abilities(self) -> list[Finding]:
        """What the endpoint can."""
        told = [
            Finding("warning", self.name, note, "grant the right, so that it can be told") for note in self.found.notes
        ]
        if self.found.fence is Fence.NONE:
            remedy = f"use an endpoint that honours X-Amz-Expires, or accept it with targets.{self.name}.unfenced: true"
            told.append(Finding("warning" if self.config.unfenced else "error", self.name, _UNFENCED, remedy))
        if self.found.versioning != "enabled" and not self.found.conditional:
            told.append(Finding("info", self.name, _UNCONDITIONAL, _OWN_KEYS))
        return told

    async def keys(self) -> list[Finding]:
        """How many of the first keys don't fit the template."""
        page = await listing.objects(self.bucket, self.template.head, size=_SAMPLE)
        columns = self.template.columns(page.keys, account=self.config.account)
        unfit = sum(1 for each in columns.accounts if each is Untold.KEY)
        if not unfit:
            return []
        severity: Severity = "error" if unfit == len(page.keys) else "warning"
        message = (
            f"of the first {len(page.keys)} keys {unfit} don't fit the template {self.template.text}: they are kept"
        )
        return [
            Finding(severity, self.name, message, f"set targets.{self.name}.key to how the keys are made, or prefix")
        ]

    async def versions(self) -> list[Finding]:
        """Whether versions can be listed, where there are any; deleting them was tried by the probe."""
        if self.found.versioning != "off":
            await listing.versions(self.bucket, self.template.head, size=1)
        return []

    async def uploads(self) -> list[Finding]:
        """Whether unfinished uploads can be listed and aborted."""
        if not self.config.uploads:
            return []
        await listing.uploads(self.bucket, self.template.head, size=1)
        now = self.bucket.endpoint.clock.earliest()
        absent = Doomed(self.scratch, upload_id=uuid.uuid4().hex)
        done = await delete(self.bucket, [absent], expiry=Expiry(now, now + _SOON), how=self.found.how())
        told = []
        if done.count("denied"):
            told.append(self._lacking("s3:AbortMultipartUpload", "unfinished uploads can't be erased"))
        asked = await self.bucket.ask("GET", self.scratch, [("uploadId", absent.upload_id or ""), ("max-parts", "1")])
        if asked.status == 403:
            right = "s3:ListMultipartUploadParts"
            message = f"{right} is not granted: that no part of an aborted upload is left can't be verified"
            told.append(Finding("warning", self.name, message, f"grant {right} on {self.config.bucket}/*"))
        return told

    async def lock(self) -> list[Finding]:
        """Object Lock: that it can be told from a missing right, and how it stands to the term."""
        if not self.found.lock.enabled:
            if not self.config.native_holds:
                return []
            message = "native_holds is set, and the bucket has no Object Lock"
            return [Finding("error", self.name, message, "make a bucket with Object Lock, or take native_holds out")]
        told = await self._needs(
            partial(objects.legal_hold, self.bucket, self.scratch, None),
            partial(objects.retention, self.bucket, self.scratch, None),
        )
        if self.config.native_holds:
            told += await self._needs(partial(objects.set_legal_hold, self.bucket, self.scratch, None, on=False))
        if (days := self.found.lock.days) is not None and self._outlasts(days):
            message = (
                f"Object Lock keeps each new object for {days} days, longer than a term of {self.data_class.name}: "
                "what is past that is overdue until then, and counted as held"
            )
            told.append(
                Finding("warning", self.name, message, "shorten the bucket's default retention, or promise less")
            )
        return told

    async def reading(self) -> list[Finding]:
        """The rights that are needed for each object: its tags, and a look at it where ETags are not compared."""
        told = []
        if self.config.tags is not None:
            told += await self._needs(partial(objects.tags, self.bucket, self.scratch))
        looks = self.found.versioning != "enabled" and not self.found.conditional
        if looks and (await objects.head(self.bucket, self.scratch)).state == "denied":
            told.append(self._lacking("s3:GetObject", "objects can't be looked at before they are erased"))
        return told

    async def copies(self) -> list[Finding]:
        """Where the bucket copies its objects to."""
        head = self.template.head
        return [
            Finding(
                "warning",
                self.name,
                f"replication rule {rule.id or '(without an id)'} copies objects to {rule.destination}, where erasing "
                "them here does not reach them",
                "make that bucket a target too",
            )
            for rule in await buckets.replication(self.bucket)
            if rule.enabled and (rule.prefix.startswith(head) or head.startswith(rule.prefix))
        ]

    async def place(self) -> list[Finding]:
        """Whether the bucket lies where it is said to; only AWS tells regions by names that mean something."""
        if service_of(self.config.endpoint_url) != "aws":
            return []
        there = await buckets.region(self.bucket)
        lies = self.config.model_copy(update={"region": there, "region_group": None}).group_of_regions()
        wanted = self.config.group_of_regions()
        if there is None or wanted is None or lies == wanted:
            return []
        message = f"the bucket is in {there}, and the target's group of regions is {wanted}"
        return [Finding("error", self.name, message, f"set region_group to {lies}, or move the data")]

    async def _needs(self, *calls: Callable[[], Awaitable[object]]) -> list[Finding]:
        """What is not even allowed for a key that is not there."""
        told = []
        for call in calls:
            try:
                await call()
            except Refused:
                continue  # it is allowed, and there is nothing
            except Blind as error:
                told.append(_broken(self.name, error))
            except Unreachable as error:
                message = f"it could not be found out whether a right is granted: {error.message}"
                told.append(Finding("info", self.name, message, error.remedy or ""))
        return told

    def _lacking(self, right: str, why: str) -> Finding:
        return Finding("error", self.name, f"{right} is not granted: {why}", f"grant {right} on {self.config.bucket}/*")

    def _outlasts(self, days: int) -> bool:
        """Whether so many days are longer than the shortest term of the class, as of now."""
        now = self.bucket.endpoint.clock.earliest()
        ends = [expires_at(now, term) for term in self.data_class.candidates() if isinstance(term, Duration)]
        return any(end is not None and now + timedelta(days=days) > end for end in ends)
