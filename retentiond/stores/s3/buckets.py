"""The settings of a bucket that bear on a promise: versions, lock, lifecycle rules, replication, region.

Read by botocore's client, for they are read rarely. What an endpoint does not know at all it does not do either; a
missing right raises Blind, because "no rule" and "not allowed to see the rules" are not the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import UNKNOWN_THERE

Versioning = Literal["off", "enabled", "suspended"]
_NO_LOCK = frozenset(
    {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "InvalidBucketState", "InvalidRequest"}
)


@dataclass(frozen=True, slots=True)
class BucketLock:
    """Object Lock of a bucket, and the retention that a new object gets; a year is 365 days."""

    enabled: bool
    mode: str | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """By which the bucket erases by itself: `days` after writing or at `date`; versions `noncurrent_days` after they
    were replaced; uploads `abort_days` after they were begun. `tags`, `larger` and `smaller` narrow it.
    """

    id: str
    enabled: bool
    prefix: str
    tags: Mapping[str, str]
    larger: int | None
    smaller: int | None
    days: int | None
    date: datetime | None
    noncurrent_days: int | None
    abort_days: int | None
    markers: bool


@dataclass(frozen=True, slots=True)
class ReplicationRule:
    """By which the bucket's objects are copied elsewhere; `deletes` whether delete markers are as well."""

    id: str
    enabled: bool
    prefix: str
    destination: str
    deletes: bool


async def versioning(bucket: Bucket) -> Versioning:
    """Whether the bucket keeps versions; `off` also where the endpoint knows none."""
    asked, right = "reading its versioning", "s3:GetBucketVersioning"
    found = await bucket.call("get_bucket_versioning", asked, right, nothing=UNKNOWN_THERE)
    status = str((found or {}).get("Status", "")).lower()
    return "enabled" if status == "enabled" else "suspended" if status == "suspended" else "off"


async def lock(bucket: Bucket) -> BucketLock:
    """The bucket's Object Lock; not enabled also where the endpoint knows none."""
    asked = "reading its Object Lock"
    right = "s3:GetBucketObjectLockConfiguration"
    found = await bucket.call("get_object_lock_configuration", asked, right, nothing=_NO_LOCK | UNKNOWN_THERE)
    said: Mapping[str, Any] = (found or {}).get("ObjectLockConfiguration") or {}
    default = (said.get("Rule") or {}).get("DefaultRetention") or {}
    days = default.get("Days") or (365 * default["Years"] if default.get("Years") else None)
    return BucketLock(said.get("ObjectLockEnabled") == "Enabled", default.get("Mode"), days)


async def lifecycle(bucket: Bucket) -> tuple[LifecycleRule, ...]:
    """The bucket's lifecycle rules; none also where the endpoint has no such thing."""
    asked, right = "reading its lifecycle rules", "s3:GetLifecycleConfiguration"
    none = frozenset({"NoSuchLifecycleConfiguration"}) | UNKNOWN_THERE
    found = await bucket.call("get_bucket_lifecycle_configuration", asked, right, nothing=none)
    return tuple(_rule(each) for each in (found or {}).get("Rules", ()))


async def replication(bucket: Bucket) -> tuple[ReplicationRule, ...]:
    """Where the bucket's objects are copied to; none also where the endpoint has no such thing."""
    asked, right = "reading its replication", "s3:GetReplicationConfiguration"
    none = frozenset({"ReplicationConfigurationNotFoundError", "ReplicationConfigurationNotFound"}) | UNKNOWN_THERE
    found = await bucket.call("get_bucket_replication", asked, right, nothing=none)
    rules = ((found or {}).get("ReplicationConfiguration") or {}).get("Rules", ())
    return tuple(_replication(each) for each in rules)


async def region(bucket: Bucket) -> str | None:
    """The bucket's region; None where the endpoint does not tell."""
    asked, right = "reading its region", "s3:GetBucketLocation"
    found = await bucket.call("get_bucket_location", asked, right, nothing=UNKNOWN_THERE)
    if found is None:
        return None
    said = found.get("LocationConstraint")
    return {"EU": "eu-west-1", None: "us-east-1", "": "us-east-1"}.get(said, said)


def _rule(rule: Mapping[str, Any]) -> LifecycleRule:
    narrowed = rule.get("Filter") or {}
    both = narrowed.get("And") or narrowed
    tags = both.get("Tags") or ([narrowed["Tag"]] if narrowed.get("Tag") else [])
    expiration = rule.get("Expiration") or {}
    return LifecycleRule(
        id=rule.get("ID", ""),
        enabled=rule.get("Status") == "Enabled",
        prefix=both.get("Prefix") or rule.get("Prefix") or "",
        tags={each["Key"]: each["Value"] for each in tags},
        larger=both.get("ObjectSizeGreaterThan"),
        smaller=both.get("ObjectSizeLessThan"),
        days=expiration.get("Days"),
        date=expiration.get("Date"),
        noncurrent_days=(rule.get("NoncurrentVersionExpiration") or {}).get("NoncurrentDays"),
        abort_days=(rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
        markers=bool(expiration.get("ExpiredObjectDeleteMarker")),
    )


def _replication(rule: Mapping[str, Any]) -> ReplicationRule:
    narrowed = rule.get("Filter") or {}
    return ReplicationRule(
        id=rule.get("ID", ""),
        enabled=rule.get("Status") == "Enabled",
        prefix=(narrowed.get("And") or narrowed).get("Prefix") or rule.get("Prefix") or "",
        destination=str((rule.get("Destination") or {}).get("Bucket", "")),
        deletes=(rule.get("DeleteMarkerReplication") or {}).get("Status") == "Enabled",
    )
