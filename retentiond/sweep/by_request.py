"""A batch that a store takes on and carries out later by itself (4-safety, "Stores whose deletions run later").

The window is looked at without a permit. Where something is due comes the permit, then all is judged once more under
its holds, what is about to be asked for is written down, and only then the store is asked. What it took on is written
down in the transaction that ends the permit; from then on it is followed (`following`), and a hold that covers it has
it cancelled before it is active (the store's `NativeStep`).

Whoever finds the permit open has three cases: nothing was prepared, and nothing asked for; it was prepared, and the
store is asked what it has of it, once it takes no more under that permit; or it has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from retentiond.control import permits
from retentiond.domain.permit import Permit
from retentiond.errors import Strained, Unreachable
from retentiond.ledger import kinds
from retentiond.stores.base import Deferring, Taken, Tally, Way, Window
from retentiond.sweep.asked import write_down
from retentiond.sweep.batches import Batches, Numbers, new_batch
from retentiond.sweep.following import follow_for_a_while


class ByRequest:
    """Carries batches through that the store carries out itself; `stopping` says whether to wait no more."""

    usual = Way.QUICK
    blame = "`retentiond check` tells what stands in the way; the log has what the store said"
    passed_over = ("were not taken on by their store", "they are taken by a later sweep")

    def __init__(self, batches: Batches, store: Deferring, stopping: Callable[[], bool]) -> None:
        self._batches, self._store, self._stopping = batches, store, stopping
        self._numbers = Numbers(batches.tools)
        self._asking = False
        self._asked = 0

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
        batches, began, self._asking = self._batches, time.monotonic(), False
        batches.looking = 0.0
        async with self._store.batch(batches.plan) as batch:
            seen = await batch.looked(window)
            while (left := self._left()) is not None and seen.selected > left:
                if not left or window.size <= 1:
                    return None
                window = replace(window, size=window.size // 2)
                seen = await batch.looked(window)
            batches.looking = time.monotonic() - began
            if not seen.selected:
                await batches.passed_by(window, seen)
                return seen
            batch_id = new_batch()
            await batch.ready()
            permit = await batches.issue(await self._numbers.take(), batch_id, window)
            intended = await batch.intended(permit, window)
            batches.require_within_bound(self._under_way() + intended.selected)
            taken: tuple[Taken, ...] = ()
            if intended.selected:
                await batches.prepare(permit, intended, began, in_time=True)
                self._asking = True
                try:
                    taken = await batch.erase(permit, window, salt=batches.salt(batch_id))
                except Unreachable:
                    raise
                except Strained:
                    self._asking = False
                    await self.give_up()
                    raise
                except Exception:
                    self._asking = False
                    raise
        asked = replace(seen, selected=intended.selected, requested=seen.requested + sum(t.selected for t in taken))
        await self._settle(permit, asked, taken, window, began)
        batches.looking = time.monotonic() - began
        self._asked += intended.selected
        went = await follow_for_a_while(
            batches.tools, self._store, batches.target, [each.id for each in taken], self._stopping
        )
        found = replace(
            asked,
            changed=went.changed,
            failed=went.failed,
            by_tier=went.by_tier,
            bytes=went.bytes,
            requested=max(asked.requested - went.changed - went.failed, 0),
            verified="counted again",
        )
        batches.permit = None
        batches.outcome.erased(found)
        return found

    async def give_up(self, told: kinds.Entry | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """End the permit of a batch of which the store took nothing, if there is one."""
        batches = self._batches
        permit, batches.permit = batches.permit, None
        if permit is None:
            return
        if self._asking:
            raise Unreachable(
                f"what the store took on of the batch of permit {permit.number} is not known",
                remedy="nothing to do: the next sweep asks it, when it takes no more under that permit",
            )
        async with batches.tools.database.transaction() as tx:
            await permits.end(tx, permit, "refused", cursor=cursor)
            if told is not None:
                await batches.tools.journal.append(tx, told)

    def _under_way(self) -> int:
        """How many records this sweep has asked for that did not go yet: they count as if they had."""
        return max(self._asked - self._batches.outcome.changed, 0)

    def _left(self) -> int | None:
        left = self._batches.left
        return None if left is None else max(left - self._under_way(), 0)

    async def _settle(
        self, permit: Permit, asked: Tally, taken: tuple[Taken, ...], window: Window, began: float
    ) -> None:
        """Permit, cursor, what was taken on and the ledger, in one transaction under the lease's fence."""
        batches = self._batches
        cursor = batches.cursor(window, asked.after, None)
        outcome = batches.entry(permit, Tally(selected=asked.selected), began).body
        async with batches.tools.database.transaction() as tx:
            await permits.end(tx, permit, "requested" if taken else "empty", cursor=cursor)
            entries = await write_down(
                tx,
                taken,
                permit.number,
                outcome,
                batches.salt(permit.batch),
                by=batches.lease.owner,
                place=self._store.records,
            )
            if entries:
                await batches.tools.journal.append(tx, *entries)
