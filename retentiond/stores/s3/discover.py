"""A look at a bucket: what could be targets in it. Reads lists and settings, no object, and writes nothing."""

from __future__ import annotations

from collections.abc import Collection

from retentiond.domain.duration import rfc3339
from retentiond.errors import Blind, UsageError
from retentiond.stores.drafts import Draft, Drafts
from retentiond.stores.rulings import Untold
from retentiond.stores.s3 import buckets, listing
from retentiond.stores.s3.endpoint import Access, Bucket
from retentiond.stores.s3.guess import guess
from retentiond.stores.s3.pages import ListPage
from retentiond.stores.template import Template

_MOST_FOLDERS = 20
_GLANCE = 200


async def discover(bucket: Bucket, access: Access, *, prefix: str, tiers: Collection[str]) -> Drafts:
    """Drafts of targets below a prefix; raises Blind, Unreachable, and UsageError where there is nothing."""
    drafts = []
    for each in await _prefixes(bucket, prefix):
        page = await listing.objects(bucket, each)
        if page.keys:
            drafts.append(_draft(bucket, access, each, page, tiers))
    if not drafts:
        raise UsageError(
            f"bucket {bucket.name} has no objects below {prefix!r}" if prefix else f"bucket {bucket.name} is empty",
            remedy="name another bucket or prefix, or look again when there are objects",
        )
    return Drafts(tuple(drafts), notes=tuple(await _notes(bucket)))


async def _prefixes(bucket: Bucket, prefix: str) -> list[str]:
    """The folders directly below, where they seem to be kinds of data and not ids; else the prefix itself."""
    folders = await listing.folders(bucket, prefix, most=_GLANCE)
    names = [each[len(prefix) : -1] for each in folders]
    first = await listing.objects(bucket, prefix, size=_GLANCE)
    loose = any("/" not in key[len(prefix) :] for key in first.keys)
    kinds = [name for name in names if guess([f"{name}/x"], ()) == f"{name}/{{file:path}}"]
    if loose or not names or len(names) > _MOST_FOLDERS or kinds != names:
        return [prefix]
    return folders


def _draft(bucket: Bucket, access: Access, prefix: str, page: ListPage, tiers: Collection[str]) -> Draft:
    keys = [key[len(prefix) :] for key in page.keys]
    inside = [key for key in keys if key and not key.endswith("/")] or [key for key in keys if key] or ["x"]
    text = guess(inside, tiers)
    template = Template.parse(text, prefix=prefix)
    unfit = sum(1 for each in template.columns(page.keys).accounts if each is Untold.KEY)
    seen = "all" if page.after is None else "the first"
    oldest, newest = rfc3339(min(page.modified)), rfc3339(max(page.modified))
    notes = [f"from {seen} {len(page.keys)} objects, last modified from {oldest} to {newest}"]
    if unfit:
        notes.append(f"{unfit} of their keys don't fit: their objects would be kept")
    if "account" in template.names:
        notes.append("{account} is a guess: it is the first part that looks like ids")
    else:
        notes.append("no part of the keys looks like an account's id: without one the longest term applies")
    settings: dict[str, object] = {"store": "s3", "bucket": bucket.name}
    if prefix:
        settings["prefix"] = prefix
    settings["key"] = text
    given = {"endpoint_url": access.endpoint_url, "region": access.region}
    settings |= {name: value for name, value in given.items() if value is not None}
    if access.addressing != "auto":
        settings["addressing"] = access.addressing
    return Draft(prefix.rstrip("/").rpartition("/")[2] or bucket.name, settings, tuple(notes))


async def _notes(bucket: Bucket) -> list[str]:
    """What of the bucket's settings bears on a promise."""
    notes = []
    try:
        if (kept := await buckets.versioning(bucket)) != "off":
            notes.append(f"the bucket's versioning is {kept}: erasing takes every version")
        if (await buckets.lock(bucket)).enabled:
            notes.append("the bucket has Object Lock: what it keeps is counted as held")
        notes += [
            f"lifecycle rule {rule.id} erases by itself below {rule.prefix!r}: see `retentiond check`"
            for rule in await buckets.lifecycle(bucket)
            if rule.enabled
        ]
        notes += [
            f"replication rule {rule.id} copies to {rule.destination}: make that a target too"
            for rule in await buckets.replication(bucket)
            if rule.enabled
        ]
    except Blind as error:
        notes.append(error.message)
    return notes
