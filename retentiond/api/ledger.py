"""`ledger`: the evidence, page by page, and the last checkpoint as the signed note that it is."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from retentiond.api import asked, models
from retentiond.api.resources import Reply, Resource
from retentiond.api.site import Call, Site
from retentiond.control import entries
from retentiond.errors import NotFound


async def page(site: Site, after: int = 0, limit: int = 100, kinds: Sequence[str] = ()) -> models.Ledger:
    """Entries that follow that number, oldest first."""
    async with site.desk.database.transaction(read_only=True) as tx:
        rows = await entries.read(tx, after, limit, kinds or None)
    found = tuple(orjson.loads(row.leaf) for row in rows)
    return models.Ledger(entries=found, next=rows[-1].seq if len(rows) == limit else None)


async def checkpoint(site: Site) -> models.Checkpoint:
    """The last that this process's key has signed; raises NotFound where there is none yet."""
    key = site.desk.journal.verifier
    async with site.desk.database.transaction(read_only=True) as tx:
        saved = await entries.latest_checkpoint(tx, key.id.hex())
    if saved is None:
        raise NotFound("no checkpoint is signed yet", remedy="ask again: the daemon signs one when the ledger grows")
    return models.Checkpoint(checkpoint=saved.note, key=str(key))


async def _page(site: Site, call: Call) -> Reply:
    query: asked.OfLedger = call.query
    return Reply(await page(site, query.after, query.limit, query.kind))


async def _checkpoint(site: Site, _: Call) -> Reply:
    found = await checkpoint(site)
    return Reply(found, text=found.checkpoint)


RESOURCES = (
    Resource("GET", "/ledger", _page, "Entries of the ledger", {200: models.Ledger}, query=asked.OfLedger),
    Resource(
        "GET",
        "/ledger/checkpoint",
        _checkpoint,
        "The last checkpoint: a C2SP signed note as text, or JSON where the client asks for it",
        {200: models.Checkpoint},
        plain=True,
    ),
)
