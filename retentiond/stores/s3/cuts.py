"""The stretches of keys that a sweep can be cut into, to be worked on side by side.

Where an earlier walk has seen all keys they are cut by how many there are; else at the folders below what all keys
begin with, as if each had as many. Folders are listed by their delimiter, a thousand a request. All versions of a key
are in one stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from retentiond.stores.base import Window
from retentiond.stores.s3 import listing
from retentiond.stores.s3.census import Census
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.rows import written
from retentiond.stores.s3.walk import KEYS

_PAGES = 8
"""Requests that finding folders may take."""


async def shards(bucket: Bucket, head: str, census: Census, *, each: int, most: int) -> tuple[Window, ...]:
    """See `stores.base.Store.shards`."""
    parts = min(most, (census.total or 0) // each) if each else most
    if parts < 2:
        return ()
    places = list(dict.fromkeys(place[:1] for place in census.cuts(KEYS, parts)))
    if not places:
        places = [(written(folder),) for folder in _spread(await _folders(bucket, head), parts)]
    if not places:
        return ()
    return tuple(Window(KEYS, after, 0, until) for after, until in pairwise([None, *places, None]))


def _spread(folders: Sequence[str], parts: int) -> list[str]:
    """Those of the folders at which each part has as many; the first begins the first part."""
    parts = min(parts, len(folders))
    return [folders[len(folders) * i // parts] for i in range(1, parts)]


async def _folders(bucket: Bucket, head: str) -> list[str]:
    """The folders below, and where there is but one, those in it."""
    found: list[str] = []
    for _ in range(_PAGES):
        page = await listing.folders(bucket, head, after=_past(found[-1]) if found else None)
        found += page
        if len(page) < listing.MOST:
            if len(found) != 1:
                return found
            head, found = found[0], []
    return found


def _past(folder: str) -> str:
    """The position after all keys of a folder: `0` comes right after `/`."""
    return f"{folder[:-1]}0"
