"""A batch whose requests expire by the server's own clock (4-safety, "The batch": S3).

The window is looked at without a permit; where nothing is due, the cursor moves on and that is all. Else comes the
permit, then everything is judged once more under its holds, then what is about to be asked for is written down, and
only then anything is sent. What is answered is settled at once. What is not may still take effect: the permit stays
open, no hold that came meanwhile becomes active, and when all of it has expired and the server has had its time, it is
looked what is there.

So whatever happens to the process, there are three cases for whoever finds the permit: nothing was prepared, and
nothing was sent; it was prepared, and is looked at; or it has ended with its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from retentiond.control import permits
from retentiond.domain.permit import Permit
from retentiond.errors import Fenced, Unreachable
from retentiond.ledger import kinds
from retentiond.stores.base import Expiring, Tally, Way, Window
from retentiond.sweep.batches import Batches, Numbers, new_batch
from retentiond.sweep.recovery import doubt, fate_of


class ByExpiry:
    """Carries batches through whose requests expire; `stopping` says whether to wait for nothing any more."""

    usual = Way.QUICK
    blame = "see the permissions and locks of the records; `retentiond check` tells more"
    passed_over = ("were not dealt with by their server before the requests expired", "they are taken by a later sweep")

    def __init__(self, batches: Batches, store: Expiring, stopping: Callable[[], bool]) -> None:
        self._batches, self._store, self._stopping = batches, store, stopping
        self._numbers = Numbers(batches.tools)
        self._sent = False

    async def begin(self) -> None:
        """Nothing is to be known beforehand."""

    def window(self, leg: Window, after: tuple[str, ...] | None, size: int) -> Window:
        """The next window of the leg."""
        return replace(leg, after=after, size=size)

    async def within_bound(self, window: Window) -> Window:
        """The window as it is: a look tells what is due in it before anything goes."""
        return window

    async def carry(self, window: Window, way: Way) -> Tally | None:
        """One window, and the batch where something is due in it."""
        del way  # nobody else's transactions are in the way
        batches, began, self._sent = self._batches, time.monotonic(), False
        batches.looking = 0.0
        async with self._store.batch(batches.plan) as batch:
            seen = await batch.looked(window)
            if (left := batches.left) is not None and seen.selected > left:
                if not left:
                    return None
                window = replace(window, size=left, end=None)
                seen = await batch.looked(window)
            batches.looking = time.monotonic() - began
            if not seen.acts:
                await batches.passed_by(window, seen)
                return seen
            batch_id = new_batch()
            permit = await batches.issue(await self._numbers.take(), batch_id, window)
            intended = await batch.intended(permit, window)
            batches.require_within_bound(intended.selected, intended.shortened)
            if intended.selected != seen.selected:
                # The directory says something else than a moment ago: what it said is no basis to rest on.
                batches.outcome.basis = None
            if intended.document:
                await batches.prepare(permit, intended, began, in_time=True)
                self._sent = True
                found = await batch.erase(permit, window, salt=batches.salt(batch_id))
            else:
                nothing = replace(seen, bytes=0, oldest=None, newest=None, by_tier={}, ceilings={}, shortened=0)
                found = replace(nothing, selected=seen.gone)
        if found.in_doubt:
            found = await self._looked_at_later(permit, found, window, began)
        else:
            async with batches.tools.database.transaction() as tx:
                await batches.settle(tx, permit, found, window, began)
        batches.done(batch_id, found, began)
        return found

    async def give_up(self, told: kinds.Entry | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """End the permit of a batch for which nothing was sent, if there is one."""
        batches = self._batches
        permit, batches.permit = batches.permit, None
        if permit is None:
            return
        if self._sent:
            raise Unreachable(
                f"what became of the batch of permit {permit.number} is not known",
                remedy="nothing to do: the next sweep looks at it when its requests have expired",
            )
        async with batches.tools.database.transaction() as tx:
            await permits.end(tx, permit, "refused", cursor=cursor)
            if told is not None:
                await batches.tools.journal.append(tx, told)

    async def _looked_at_later(self, permit: Permit, found: Tally, window: Window, began: float) -> Tally:
        """Not all was answered: wait until nothing of it can take effect any more, and write what is there then.

        What the server has said of the others is of no use for the sum: what it did not answer may be among what it
        calls already gone.
        """
        batches, tools = self._batches, self._batches.tools
        async with tools.database.transaction(read_only=True) as tx:
            still = await permits.still_open(tx, permit.number)
        if still is None:
            raise Fenced(f"permit {permit.number} was ended by another worker")
        grace = tools.spec.late_effect_grace
        fate = await fate_of(tools.database, self._store, still, grace=grace, stopping=self._stopping)
        if fate.kind != "looked" or fate.found is None:
            raise Unreachable(
                f"what became of the batch of permit {permit.number} can't be told: {fate.kind}",
                remedy="nothing to do: the next sweep looks at it again",
            )
        gone = fate.found
        left = found.in_doubt - max(gone.done - found.done - found.gone, 0)
        told = replace(
            found,
            changed=gone.changed,
            by_tier=gone.by_tier,
            bytes=gone.bytes,
            oldest=gone.oldest,
            newest=gone.newest,
            ids_digest=gone.ids_digest,
            ceilings=gone.ceilings,
            gone=0,
            in_doubt=0,
            failed=found.failed + max(left, 0),
            requests=found.requests + gone.requests,
            verified="looked at afterwards",
        )
        async with tools.database.transaction() as tx:
            await tools.journal.append(tx, doubt(still, fate, by=batches.lease.owner))
            await batches.settle(tx, permit, told, window, began)
        return told
