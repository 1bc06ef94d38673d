"""What `check` says of pairs: objects that no row owns, and rows that own nothing any more."""

from __future__ import annotations

from retentiond.stores.base import Finding
from retentiond.stores.s3 import listing
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.sources import Owners

_SAMPLE = 1000


async def findings(bucket: Bucket, config: S3Target, name: str, owners: Owners) -> list[Finding]:
    """Both, by the first objects and the newest rows; raises Blind, Unreachable."""
    found = []
    page = await listing.objects(bucket, config.template().head, size=_SAMPLE)
    owned = await owners.owners(set(page.keys))
    if alone := len(set(page.keys) - owned.keys()):
        message = (
            f"of the first {len(page.keys)} objects {alone} have no row of targets.{config.pairs_with} that owns them, "
            "or several that differ in account or tier: they are kept, and counted as unresolved and as orphans"
        )
        remedy = "delete them, or give them a row, where nothing is about to write it"
        found.append(Finding("warning", name, message, remedy))
    looked, empty = await owners.orphans()
    if empty:
        message = f"of the newest {looked} rows of targets.{config.pairs_with} {empty} own no object: they go when due"
        found.append(Finding("info", name, message, "nothing to do, where their objects were not lost"))
    return found
