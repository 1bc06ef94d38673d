"""Single objects, and the objects of a hold: what `explain` and `hold place` ask for."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

import orjson

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import NotFound
from retentiond.stores.base import Matches
from retentiond.stores.covering import covered
from retentiond.stores.rulings import Rulings, Untold
from retentiond.stores.s3.batch import Ground
from retentiond.stores.s3.rows import Position, Rows, fetch
from retentiond.stores.s3.walk import KEYS, Taken


def version_in(text: str) -> tuple[str, str] | None:
    """The key and the version id of a JSON array of both; None where the text is no such thing, and so a key."""
    if not text.startswith("["):
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(found, list) and len(found) == 2 and all(isinstance(each, str) for each in found):
        return found[0], found[1]
    return None


def keys_in(text: str) -> Collection[str]:
    """The keys that a record's id may name: of a version its key, too."""
    found = version_in(text)
    return [text] if found is None else [text, found[0]]


async def record(ground: Ground, plan: TargetPlan, text: str) -> tuple[RecordFacts, AccountFacts]:
    """The record of that id and what is known of its account; raises NotFound."""
    key, version = version_in(text) or (text, None)
    rows = await _rows_of(ground, key, version)
    if rows is None and version is not None:
        key, rows = text, await _rows_of(ground, text, None)
    if rows is None:
        raise NotFound(
            f"target {ground.name} has no record {text}",
            remedy="give the whole key as the bucket has it, prefix and all; or it is erased already",
        )
    page = await ground.sources.page(await ground.place.bucket(), rows)
    account = page.accounts[0]
    rulings = Rulings(plan)
    await rulings.ask([account], ground.directory)
    canonical, facts = rulings.facts(account)
    fault = account.value if isinstance(account, Untold) else None
    tier = page.tiers[0] if page.tiers is not None else plan.tier
    return RecordFacts(key, page.anchors[0], canonical, tier, fault=fault), facts


async def matches(
    ground: Ground, hold: TargetHold, listed: Sequence[AsyncGenerator[Taken, None]], seconds: float
) -> Matches:
    """How many records the hold covers, whatever their verdict; those met by then where there is no time for all."""
    found, until, exact = 0, time.monotonic() + seconds, True
    bucket = await ground.place.bucket()
    for walk in listed:
        async with aclosing(walk):
            async for taken in walk:
                page = await ground.sources.page(bucket, taken.rows)
                exact = exact and taken.picture is None
                found += sum(await covered([hold], page, ground.directory))
                if time.monotonic() > until and taken.after is not None:
                    return Matches(found, exact=False)
    return Matches(found, exact=exact)


async def _rows_of(ground: Ground, key: str, version: str | None) -> Rows | None:
    """The newest version of a key that is no delete marker, or that version of it, as a listing has it."""
    what = ground.listing(KEYS)
    bucket = await ground.place.bucket()
    after: Position = None
    while True:
        chunk = await fetch(bucket, what, key, after)
        rows = chunk.rows
        for i, each in enumerate(rows.keys):
            if each != key:
                continue
            marker = rows.markers is not None and rows.markers[i]
            if not marker if version is None else rows.ids is not None and rows.ids[i] == version:
                return rows.part(i, i + 1)
        after = chunk.after
        if after is None or rows.keys[-1] != key:
            return None
