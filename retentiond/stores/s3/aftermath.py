"""What became of a batch that nobody wrote the outcome of: it is looked which of what it named is still there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from retentiond.stores.base import Fate
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.intent import Items
from retentiond.stores.s3.items import NULL
from retentiond.stores.s3.listing import MOST
from retentiond.stores.s3.rows import Chunk, Listing, Position, fetch

_FEW = 8
"""Items up to which each is looked for by itself: the range between them may hold any number of others."""

Kept = dict[tuple[str, str], tuple[str, str]]
"""What is there: by key and id, its ETag and when it was written (to the second)."""


async def looked_for(bucket: Bucket, prepared: Mapping[str, Any], head: str) -> Fate:
    """What of the batch is gone; raises Blind, Unreachable where it can't be seen."""
    items = Items.of(prepared["intended"])
    wanted = {each.key for each in items.doomed}
    there: Kept = {}
    requests = 0
    keys = sorted(wanted, key=_bytes)
    if len(keys) <= _FEW or items.what == "uploads":
        for key in keys:
            requests += await _look(bucket, items.what, key, None, key, wanted, there)
    else:
        # The first by itself: no position is known that comes right before it.
        requests += await _look(bucket, items.what, keys[0], None, keys[0], wanted, there)
        requests += await _look(bucket, items.what, head, (keys[0],), keys[-1], wanted, there)
    gone = [i for i in range(len(items)) if not _still(items, i, there)]
    return Fate("looked", replace(items.went(gone, str(prepared["salt"])), requests=requests))


async def _look(
    bucket: Bucket, what: Listing, prefix: str, after: Position, last: str, wanted: Collection[str], there: Kept
) -> int:
    """Add what there is after a position up to the key `last`; how many requests it took."""
    edge, requests = _bytes(last), 0
    while True:
        chunk = await fetch(bucket, what, prefix, after, MOST)
        requests += 1
        _add(chunk, wanted, there)
        after = chunk.after
        keys = chunk.rows.keys
        if after is None or (what != "uploads" and keys and _bytes(keys[-1]) > edge):
            return requests


def _add(chunk: Chunk, wanted: Collection[str], there: Kept) -> None:
    rows = chunk.rows
    ids = rows.ids or [""] * len(rows)
    for key, identity, etag, modified in zip(rows.keys, ids, rows.etags, rows.modified, strict=True):
        if key in wanted:
            there[key, identity] = (etag, modified.replace(microsecond=0).isoformat())


def _still(items: Items, index: int, there: Kept) -> bool:
    """Whether just what was to go is there; of what has no id of its own another may be in its place."""
    each = items.doomed[index]
    found = there.get((each.key, each.upload_id or each.version_id or ""))
    if found is None:
        return False
    if each.upload_id is not None or (each.version_id is not None and each.version_id != NULL):
        return True
    return each.modified is None or found == (each.etag, each.modified.replace(microsecond=0).isoformat())


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")
