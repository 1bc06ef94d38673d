"""Whether objects are still those that were judged, looked at right before they are erased.

For servers that don't compare ETags. It narrows the time in which a newer object can slip in, and does not close it:
the ledger says that such an erasure was unconditional.

Many that lie close together are looked at by listing them once more: a request for a thousand keys, so that less time
passes between the look and the erasure than with a HEAD for each, and lists are as consistent. The rest has a HEAD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from os.path import commonprefix

from retentiond.errors import RetentiondError
from retentiond.stores.s3 import listing
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import ALREADY_GONE, NULL, Doomed, Gone
from retentiond.stores.s3.objects import head
from retentiond.stores.s3.pages import ListPage

_OTHER = Gone("changed", "LookedAt")
_UNSEEN = Gone("failed", "NotLookedAt")
_FEW = 16
"""Objects up to which a HEAD for each takes as little time as a list."""
_SPARSE = 20
"""A list is gone on with as long as it has told of one object in so many rows."""


async def outcomes_by_listing(bucket: Bucket, items: Sequence[Doomed]) -> Mapping[int, Gone | None]:
    """Of items (by their index) that a listing has: None where one is still what was judged, else what became of it.

    What is not in the answer is to be looked at by itself: the first key, after which the listing begins; what has a
    version; what was not listed, because it is gone, or the listing failed, or most of its rows are of others.
    """
    order = sorted((i for i, each in enumerate(items) if each.version_id is None), key=lambda i: _bytes(items[i].key))
    if len(order) <= _FEW:
        return {}
    first, last = items[order[0]].key, items[order[-1]].key
    prefix = commonprefix((first, last))  # noqa: RUF071 - of characters, as prefixes of keys are
    wanted = {items[i].key: i for i in order[1:]}
    found: dict[int, Gone | None] = {}
    after: tuple[str, ...] | None = (first,)
    while after is not None:
        try:
            page = await listing.objects(bucket, prefix if prefix.isascii() else "", after=after)
        except RetentiondError:
            break
        met = _met(page, items, wanted)
        found |= met
        if not page.keys or _bytes(page.keys[-1]) >= _bytes(last) or len(met) * _SPARSE < len(page.keys):
            break
        after = page.after
    return found


def _met(page: ListPage, items: Sequence[Doomed], wanted: Mapping[str, int]) -> dict[int, Gone | None]:
    found: dict[int, Gone | None] = {}
    for key, etag, size, modified in zip(page.keys, page.etags, page.sizes, page.modified, strict=True):
        if (i := wanted.get(key)) is not None:
            item = items[i]
            same = (etag, size) == (item.etag, item.size) and _as_old(modified, item.modified)
            found[i] = None if same else _OTHER
    return found


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


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _as_old(now: datetime | None, listed: datetime | None) -> bool:
    """Whether an object is as old as it was: a HEAD tells whole seconds."""
    return listed is None or now is None or now.replace(microsecond=0) == listed.replace(microsecond=0)
