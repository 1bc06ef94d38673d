"""Which keys have nothing any more, for whoever may go only after the object has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from retentiond.stores.s3.place import Place
from retentiond.stores.s3.rows import fetch

_AT_ONCE = 24


async def absent(place: Place, keys: Collection[str]) -> frozenset[str]:
    """The keys without an object; where versions are kept, without any version or marker. Raises Blind, Unreachable.

    By a list of one each: whatever stands between us and the server can answer 404 to a HEAD, and gives no list.
    """
    if not keys:
        return frozenset()
    await place.open()
    bucket, what = await place.bucket(), place.listing
    gate, found = asyncio.Semaphore(_AT_ONCE), set[str]()

    async def one(key: str) -> None:
        async with gate:
            # A key comes first among all that begin with it.
            if (await fetch(bucket, what, key, None, 1)).rows.keys[:1] != [key]:
                found.add(key)

    tasks = [asyncio.ensure_future(one(key)) for key in keys]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return frozenset(found)
