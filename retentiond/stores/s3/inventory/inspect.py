"""What `check` says of an inventory: the newest report and its age, whether it can be read, and what it is of.

Which keys a report is of it does not say itself: only the bucket's own inventory configuration does, so that is asked
for (`s3:GetInventoryConfiguration`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retentiond.domain.duration import rfc3339
from retentiond.errors import Blind, Refused, RetentiondError
from retentiond.stores.base import Finding
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import UNKNOWN_THERE
from retentiond.stores.s3.inventory.manifest import Manifest
from retentiond.stores.s3.inventory.source import Inventory, age_of
from retentiond.stores.s3.place import versioning_of
from retentiond.stores.s3.rows import Listing

_RIGHT = "s3:GetInventoryConfiguration"


async def findings(bucket: Bucket, config: S3Target, name: str, inventory: Inventory) -> list[Finding]:
    """All that is to be said of it; what can't be looked at is an error among it."""
    told = [*_own_files(config, name, inventory)]
    try:
        listing: Listing = "objects" if await versioning_of(bucket) == "off" else "versions"
        found = await inventory.look(listing, anew=True)
        if found.half:
            told.append(_half(name, inventory, found.half))
        told.append(
            _none(name, inventory) if found.manifest is None else _dated(name, inventory, found.manifest, bucket)
        )
        if found.manifest is not None:
            await _require_readable(await inventory.bucket(), found.manifest)
    except RetentiondError as error:
        told.append(Finding("error", name, error.message, error.remedy or ""))
    return [*told, *await _of_configuration(bucket, config, name)]


def _own_files(config: S3Target, name: str, inventory: Inventory) -> list[Finding]:
    of = config.inventory
    assert of is not None
    head = config.template().head
    if of.bucket not in (None, config.bucket) or not inventory.location.startswith(head):
        return []
    message = f"the reports of its inventory lie below {head!r} themselves, and so are among the target's records"
    return [Finding("warning", name, message, "let the inventory be written to another bucket or prefix")]


def _half(name: str, inventory: Inventory, half: int) -> Finding:
    message = f"{half} reports of the inventory below {inventory.location} are half there, and are passed over"
    return Finding("info", name, message, "nothing to do while one is being written; else see who writes there")


def _none(name: str, inventory: Inventory) -> Finding:
    return Finding(
        "warning",
        name,
        f"there is no complete report of an inventory below {inventory.location}: until there is the bucket is listed",
        "see inventory.bucket, prefix and id, and the destination's bucket policy; the first report may take two days",
    )


def _dated(name: str, inventory: Inventory, manifest: Manifest, bucket: Bucket) -> Finding:
    age = age_of(manifest, bucket.endpoint.clock.earliest())
    hours = f"{age.total_seconds() / 3600:.0f} hours"
    what = f"the newest report of the inventory is of {rfc3339(manifest.at)}, {hours} ago"
    if age <= inventory.max_age:
        return Finding("info", name, f"{what}: {len(manifest.files)} files of {manifest.format}", "")
    message = f"{what}, which is more than max_age: the bucket is listed until there is a newer one"
    return Finding("warning", name, message, "see why none is delivered, or widen inventory.max_age (weekly: P9D)")


async def _require_readable(bucket: Bucket, manifest: Manifest) -> None:
    """Raise Blind where the first data file can't be read, or is of another size."""
    first = next((each for each in manifest.files if each.size), None)
    if first is None:
        return
    reply = await bucket.ask("GET", first.key, headers={"Range": "bytes=0-0"})
    try:
        reply = bucket.require(reply, "reading an inventory file", "s3:GetObject")
    except Refused as error:
        raise Blind(f"inventory file {first.key}: {error.message}", remedy="see that it is there") from error
    told = reply.headers.get("content-range", "")
    if told and told.rpartition("/")[2] != str(first.size):
        raise Blind(
            f"inventory file {first.key} has another size than its manifest says",
            remedy="see who writes there; the next report is taken when it is there",
        )


async def _of_configuration(bucket: Bucket, config: S3Target, name: str) -> list[Finding]:
    """What the bucket's own configuration of that id says."""
    of = config.inventory
    assert of is not None
    none = frozenset({"NoSuchConfiguration", "NoSuchInventoryConfig"})
    try:
        found = await bucket.call(
            "get_bucket_inventory_configuration", "reading its inventory configuration", _RIGHT, nothing=none, Id=of.id
        )
    except (Blind, Refused) as error:
        message = f"whether the inventory is of all keys of the target can't be told: {error.message}"
        known = any(code in error.message for code in UNKNOWN_THERE)
        return [Finding("info", name, message, "" if known else f"grant {_RIGHT} on the bucket, or see to it yourself")]
    except RetentiondError as error:
        return [Finding("error", name, error.message, error.remedy or "")]
    if found is None:
        message = f"bucket {config.bucket} has no inventory configuration {of.id!r}: no newer report will come"
        return [Finding("warning", name, message, "make one of that id, or set inventory.id to one that there is")]
    return _told_by(found.get("InventoryConfiguration") or {}, config, name)


def _told_by(said: Mapping[str, Any], config: S3Target, name: str) -> list[Finding]:
    told: list[Finding] = []
    head, prefix = config.template().head, str((said.get("Filter") or {}).get("Prefix") or "")
    if not head.startswith(prefix):
        message = f"the inventory is of keys below {prefix!r} alone, and the target is over all below {head!r}"
        remedy = "take the prefix out of the inventory configuration, or make one that covers the target"
        told.append(Finding("error", name, message, remedy))
    if said.get("IsEnabled") is False:
        message = "the inventory is switched off: no newer report will come"
        told.append(Finding("warning", name, message, "switch the inventory configuration on"))
    return told
