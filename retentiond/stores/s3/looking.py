"""Whether an object is still the one that was judged, looked at right before it is erased.

For servers that don't compare ETags. It narrows the time in which a newer object can slip in, and does not close it:
the ledger says that such an erasure was unconditional.
"""

from __future__ import annotations

from datetime import datetime

from retentiond.errors import RetentiondError
from retentiond.stores.s3 import listing
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import ALREADY_GONE, NULL, Doomed, Gone
from retentiond.stores.s3.objects import head

_OTHER = Gone("changed", "LookedAt")
_UNSEEN = Gone("failed", "NotLookedAt")


async def outcome_by_looking(bucket: Bucket, item: Doomed) -> Gone | None:
    """None where it is still what was listed; else what became of it, `failed` where that can't be seen."""
    try:
        marker = item.version_id == NULL and not item.etag
        return await _of_marker(bucket, item) if marker else await _of_object(bucket, item)
    except RetentiondError:
        return _UNSEEN


async def _of_object(bucket: Bucket, item: Doomed) -> Gone | None:
    found = await head(bucket, item.key, item.version_id)
    if found.state == "denied":
        return _UNSEEN
    if found.state != "present":  # a marker over it, or of its version id, is its end as well
        return ALREADY_GONE
    same = found.etag == item.etag and found.size == item.size and _as_old(found.modified, item.modified)
    return None if same else _OTHER


async def _of_marker(bucket: Bucket, item: Doomed) -> Gone | None:
    """By the listing, since to a HEAD of a marker Ceph answers as if there were none."""
    after: tuple[str, ...] | None = None
    while True:
        page = await listing.versions(bucket, item.key, after=after)
        for key, version_id, marker in zip(page.keys, page.version_ids, page.is_marker, strict=True):
            if (key, version_id) == (item.key, NULL):
                return None if marker else _OTHER
        after = page.after
        if after is None or page.keys[-1] != item.key:
            return ALREADY_GONE


def _as_old(now: datetime | None, listed: datetime | None) -> bool:
    """Whether an object is as old as it was: a HEAD tells whole seconds."""
    return listed is None or now is None or now.replace(microsecond=0) == listed.replace(microsecond=0)
