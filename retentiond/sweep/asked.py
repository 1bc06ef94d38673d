"""What is written down of deletions that a store has taken on: their rows, and what the ledger is told of stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retentiond.control import requests
from retentiond.control.database import Tx
from retentiond.control.requests import Request
from retentiond.domain.evidence import canonical, keyed_digest
from retentiond.ledger import kinds
from retentiond.stores.base import Stage, Taken, Tally
from retentiond.sweep.told import as_found


async def write_down(
    tx: Tx,
    taken: Iterable[Taken],
    permit: int,
    outcome: Mapping[str, Any],
    salt: str,
    *,
    by: str,
    place: Sequence[str],
) -> list[kinds.Entry]:
    """Write down what a store has taken on under a permit, for whoever follows it; what the ledger is to be told.

    `outcome` is that of their batch as it was prepared, `salt` what digests of the batch are keyed with,
    `place` what its store is over.
    """
    told = []
    for each in taken:
        digest = keyed_digest(salt.encode(), canonical(dict(each.asked)).decode())
        counts = kinds.Counts(selected=each.selected).document()
        known = {
            "target": outcome["target"],
            "id": each.id,
            "permit": permit,
            "place": place,
            "asked": each.asked,
            "by_tier": each.by_tier,
            "digest": digest,
            "outcome": {**outcome, "counts": counts, "tiers": {}},
        }
        if await requests.add(tx, **known):
            told.append(_entry("requested", each.id, permit, digest, each.selected, outcome, by, {}))
    return told


def stage_entry(request: Request, stage: Stage, told: str, *, by: str) -> kinds.Entry:
    """What the ledger is told when it comes to a stage; nothing of it names records or accounts."""
    detail: dict[str, kinds.Json] = {"seconds": int(request.seconds), "told": told}
    if request.called_off:
        detail["holds"] = list(request.called_off)
    selected = sum(request.by_tier.values())
    return _entry(stage, request.id, request.permit, request.digest, selected, request.outcome, by, detail)


def end_body(request: Request, found: Tally) -> dict[str, kinds.Json]:
    """The outcome of one that is over, by what went of it: it was counted before and after."""
    return {**as_found(request.outcome, found), "verified": "counted again", "request": request.id}


def _entry(
    stage: Stage,
    id: str,
    permit: int,
    digest: str,
    selected: int,
    outcome: Mapping[str, Any],
    by: str,
    detail: Mapping[str, kinds.Json],
) -> kinds.Entry:
    return kinds.request(
        stage,
        request=id,
        target=outcome["target"],
        store=outcome["store"],
        permit=permit,
        batch=outcome["batch"],
        digest=digest,
        selected=selected,
        by=by,
        detail=detail,
    )
