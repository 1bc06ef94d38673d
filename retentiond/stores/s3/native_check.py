"""What `check` says of the legal holds that we keep in a bucket: what is missing there, and every drift."""

from __future__ import annotations

from collections.abc import Sequence

from retentiond.domain.holds import Hold
from retentiond.stores.base import Finding
from retentiond.stores.s3 import buckets
from retentiond.stores.s3.native import S3NativeHolds

_MENDS = "retentiond run   # writes it anew at its daily look; where it can't, its log and /readyz say why"
_MOST = 2000
"""Legal holds that are asked about one by one."""


async def findings(native: S3NativeHolds, known: Sequence[Hold]) -> list[Finding]:
    """All findings of one target, by all holds that the control database has; raises Blind, Unreachable."""
    name = native.store.name
    standing = await native.memory.standing()
    bucket = await native.store.place.bucket()
    if not native.always:
        native.can = (await buckets.lock(bucket)).enabled
    wanted, told = native.wanted(known), list[Finding]()
    if not native.can and any(hold.native and hold.holds for hold in known):
        message = f"holds were placed with --native, and bucket {bucket.name} has no Object Lock to keep them by"
        told.append(Finding("warning", name, message, "make a bucket with Object Lock, and move the objects there"))
    for hold in wanted:
        if await native.digest(hold) != standing.holds.get(hold.id):
            what = "is not written" if hold.id not in standing.holds else "covers other records than are written"
            text = f"hold {hold.id} of matter {hold.matter!r} {what} in the bucket itself: only our own sweeps mind it"
            told.append(Finding("error", name, text, _MENDS))
    ended = {hold.id for hold in known if not hold.holds}
    for hold_id in sorted(standing.holds.keys() & ended):
        text = f"hold {hold_id} is released, and legal holds that were written for it may still be on versions"
        told.append(Finding("warning", name, text, _MENDS))
    looked, off = await native.taken_off(bucket, _MOST)
    if off:
        text = f"of {looked} legal holds that were written, {off} are not on their versions any more"
        told.append(Finding("error", name, text, _MENDS))
    return told
