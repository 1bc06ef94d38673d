"""Deletions that a store carries out by itself, followed to their end: asked about, counted again, told.

Any number of processes may follow the same ones: each stage is written once, by whoever comes first. Nothing is erased
here, and nothing asked for anew: what is left of one that failed is due, and the next sweep asks for it under a permit
of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from retentiond.control import due, requests
from retentiond.control.requests import Request
from retentiond.errors import RetentiondError
from retentiond.ledger import kinds
from retentiond.stores.base import Deferring, Progress, Stage, Taken, Tally
from retentiond.sweep.asked import end_body, stage_entry
from retentiond.sweep.events import Failed
from retentiond.sweep.plans import Tools
from retentiond.sweep.spec import Target
from retentiond.sweep.told import late_batch

_ENDS: Final = ("verified", "cancelled", "failed")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_LONGEST_WAIT: Final = 300.0


@dataclass(slots=True)
class Patience:
    """When each deletion is next asked about: the longer it takes, the more seldom, as one may take days."""

    _next: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def due(self, request: Request) -> bool:
        """Whether it is to be asked about now; then it is next after a twentieth of its age."""
        key, now = (request.target, request.id, request.permit), time.monotonic()
        if now < self._next.get(key, 0.0):
            return False
        self._next[key] = now + min(request.seconds / 20, _LONGEST_WAIT)
        return True

    def keep(self, target: str, requests: Iterable[Request]) -> None:
        """Forget all others of the target."""
        known = {(each.target, each.id, each.permit) for each in requests}
        self._next = {key: at for key, at in self._next.items() if key[0] != target or key in known}


async def follow(
    tools: Tools,
    store: Deferring,
    target: Target,
    only: Collection[str] | None = None,
    patience: Patience | None = None,
    wake: bool = False,
) -> dict[str, Tally]:
    """Ask once about all of the target that are not over, or `only` these: what went of those that ended, by their id.

    With `patience` those are passed over that were asked about a moment ago. `wake`: where one failed or was cancelled,
    the target is due at once; a sweep that asks sees to it anyhow.

    One that can't be asked about is said and left. Raises Unreachable where the control database can't be reached.
    """
    async with tools.database.transaction(read_only=True) as tx:
        found = await requests.unfinished(tx, target.name)
    # Another server, or other records there, would say of them that they are over.
    pending = [each for each in found if each.place == store.records]
    if patience is not None:
        patience.keep(target.name, pending)
    ended: dict[str, Tally] = {}
    for request in pending:
        if (only is not None and request.id not in only) or (patience is not None and not patience.due(request)):
            continue
        try:
            said = await _asked(store, request)
        except RetentiondError as error:
            tools.observer(Failed(target.name, error.kind, error.message, error.remedy))
            continue
        went = await _moved(tools, target, request, said, wake=wake)
        if went is not None:
            ended[request.id] = went
    return ended


async def catch_up(tools: Tools, store: Deferring, target: Target) -> None:
    """Follow all of the target that are not over, and at once again those that are, to see that they are."""
    for _ in range(2):
        await follow(tools, store, target)


async def follow_for_a_while(
    tools: Tools, store: Deferring, target: Target, ids: Collection[str], stopping: Callable[[], bool]
) -> Tally:
    """Follow what was just asked for, as long as the store's deletions usually take: what went."""
    until = time.monotonic() + store.follow_seconds
    left, sum_of, pause = set(ids), Tally(), _FIRST_PAUSE
    while left:
        ended = await follow(tools, store, target, left)
        for name, went in ended.items():
            left.discard(name)
            sum_of = _plus(sum_of, went)
        if not left or stopping() or time.monotonic() + pause > until:
            break
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return sum_of


async def _asked(store: Deferring, request: Request) -> Progress:
    taken = Taken(request.id, request.asked, request.by_tier)
    found = await store.progress(
        taken, stage=_stage(request.stage), seconds=request.seconds, moved=request.moved_seconds
    )
    if request.called_off and found.stage == "erased":
        # It is over: whether it was done to the end before it was called off is seen at once.
        found = await store.progress(taken, stage="erased", seconds=request.seconds, moved=float("inf"))
    if found.stage == "failed" and request.called_off:
        return Progress("cancelled", found.told, found.found)
    return found


async def _moved(tools: Tools, target: Target, request: Request, found: Progress, *, wake: bool) -> Tally | None:
    """Write down where it has come to; what went, where that is its end and nobody else has written it."""
    if found.stage == request.stage:
        if found.told != request.told:
            async with tools.database.transaction() as tx:
                await requests.tell(tx, request, found.told)
        return None
    over, went = found.stage in _ENDS, found.found or Tally()
    body = end_body(request, went) if over else None
    async with tools.database.transaction() as tx:
        if wake and found.stage in ("cancelled", "failed"):
            # Before the request's own row, as everybody who locks both does.
            await due.make_due(tx, [target.name])
        if not await requests.move(tx, request, found.stage, found.told):
            return None
        entries = [stage_entry(request, found.stage, found.told, by=tools.worker)]
        if body is not None:
            entries.append(kinds.Entry(kinds.Kind.OUTCOME, body))
        await tools.journal.append(tx, *entries)
    if body is None:
        return None
    tools.observer(late_batch(target, body))
    return went


def _stage(text: str) -> Stage:
    return "erased" if text == "erased" else "hidden" if text == "hidden" else "requested"


def _plus(one: Tally, other: Tally) -> Tally:
    by_tier = dict(one.by_tier)
    for tier, count in other.by_tier.items():
        by_tier[tier] = by_tier.get(tier, 0) + count
    return Tally(
        changed=one.changed + other.changed,
        failed=one.failed + other.failed,
        by_tier=by_tier,
        bytes=one.bytes + other.bytes,
        verified="counted again",
    )
