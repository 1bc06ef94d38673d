"""What became of a batch whose answers nobody has: what is there, now that nothing of it can take effect any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from retentiond.stores.base import Fate, Tally
from retentiond.stores.cloudwatch import ceilings
from retentiond.stores.cloudwatch.deleting import as_now
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.items import Items


async def looked_for(endpoint: Endpoint, prepared: Mapping[str, Any]) -> Fate:
    """What of the batch took effect; raises Blind, Unreachable where it can't be seen."""
    intended = prepared["intended"]
    if intended["what"] == "ceilings":
        return await ceilings.looked_for(endpoint, intended)
    items, before = Items.of(intended), endpoint.requests
    found = await as_now(endpoint, items.streams)
    # One that was made anew under the name is another stream.
    gone = [i for i, (was, now) in enumerate(found) if now is None or now.created != was.created]
    tally: Tally = items.went(gone, str(prepared["salt"]))
    return Fate("looked", replace(tally, requests=endpoint.requests - before))
