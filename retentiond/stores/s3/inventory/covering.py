"""Whether a report is of all keys of a target, tried out on some that there are.

A report says nothing of the filter that it was made by, and one that is empty is a report as well. By either a promise
would be broken in silence: what is in no report is never due. So before a report is taken some keys are listed, at the
beginning and in folders far apart. What is there now and was written long before the report has to be in it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from retentiond.errors import Blind
from retentiond.stores.s3 import listing
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.inventory.picture import Picture
from retentiond.stores.s3.inventory.values import LATE
from retentiond.stores.s3.rows import Listing, fetch

_FOLDERS: Final = 8
_EACH: Final = 100


async def require_covering(bucket: Bucket, what: Listing, head: str, picture: Picture) -> None:
    """Raise Blind where the report has nothing of what lies in one of the places that are looked at; Unreachable.

    Not where single keys are not in it: a copy that keeps its date may have come since.
    """
    folders = await listing.folders(bucket, head)
    some = folders[:: max(1, -(-len(folders) // _FOLDERS))]
    for each in await asyncio.gather(*(_lacks_all(bucket, what, prefix, picture) for prefix in (head, *some))):
        if each:
            raise Blind(
                f"inventory {picture.manifest.key} has none of {each} objects below {head!r} that are there, and were "
                "written long before it was begun",
                remedy="let its filter cover all keys of the target (`retentiond check` compares them), or take "
                "`inventory` out of the target",
            )


async def _lacks_all(bucket: Bucket, what: Listing, prefix: str, picture: Picture) -> int:
    """Of how many old objects that come first below the prefix it has none; 0: it has some, or there are none."""
    rows = (await fetch(bucket, what, prefix, None, _EACH)).rows
    edge, markers = picture.manifest.at - LATE, rows.markers or [False] * len(rows)
    old = {
        key
        for key, modified, marker in zip(rows.keys, rows.modified, markers, strict=True)
        if modified < edge and not marker
    }
    return len(old) if old and not await picture.has(old) else 0
