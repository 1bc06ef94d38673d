"""A batch that nobody but its worker brings to an end (4-safety, "Stores with no server to enforce anything").

The window is looked at without a permit; where nothing is due, the cursor moves on and that is all. Else the worker
makes its presence known, so that whoever asks can see whether it is still there; then comes the permit, then everything
is judged once more, then what is about to go is written down, the holds are asked about a last time, and only then
anything goes. The outcome is written before the worker leaves. Such a permit does not time out: a hold that came
meanwhile waits for the outcome, or until the worker is shown to be gone.

So there are three cases for whoever finds the permit and no worker: nothing was prepared, and nothing was destroyed; it
was prepared, and is looked at; or it has ended with its outcome. A worker that was stopped for so long that its lease
went to another is still there: the other one waits, and the late outcome is refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from retentiond.control import barrier, permits
from retentiond.domain.permit import Permit
from retentiond.errors import EpochMoved, Unreachable
from retentiond.ledger import kinds
from retentiond.stores.base import Present, Tally, Way, Window
from retentiond.sweep.batches import Batches, Numbers, new_batch


class ByPresence:
    """Carries batches through whose fence is that this worker is there."""

    usual = Way.QUICK
    blame = "see the permissions and the place that the records lie in; `retentiond check` tells more"
    passed_over = ("were being changed by somebody else", "they are taken by a later sweep")

    def __init__(self, batches: Batches, store: Present) -> None:
        self._batches, self._store = batches, store
        self._numbers = Numbers(batches.tools)
        self._begun = False

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
        batches, began, self._begun = self._batches, time.monotonic(), False
        # The look is the work here, since what is put in place of the records is made by it.
        batches.looking = 0.0
        if batches.left == 0:
            return None
        async with self._store.batch(batches.plan) as batch:
            seen = await batch.looked(window)
            if not seen.selected:
                await batches.passed_by(window, seen)
                batches.outcome.failed += seen.failed
                return seen
            batches.require_within_bound(seen.selected)
            batch_id = new_batch()
            number = await self._numbers.take()
            permit = await batches.issue(number, batch_id, window, presence=await batch.attend())
            intended = await batch.intended(permit, window)
            batches.require_within_bound(intended.selected)
            if intended.selected:
                await batches.prepare(permit, intended, began, in_time=False)
                await self._require_same_holds(permit)
                self._begun = True
                found = await batch.erase(permit, window, salt=batches.salt(batch_id))
            else:
                found = replace(seen, selected=0, bytes=0, oldest=None, newest=None, by_tier={})
            async with batches.tools.database.transaction() as tx:
                await batches.settle(tx, permit, found, window, began)
        batches.done(batch_id, found, began)
        return found

    async def give_up(self, told: kinds.Entry | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """End the permit of a batch that has destroyed nothing, if there is one."""
        batches = self._batches
        permit, batches.permit = batches.permit, None
        if permit is None:
            return
        if self._begun:
            raise Unreachable(
                f"what became of the batch of permit {permit.number} is not known",
                remedy="nothing to do: the next sweep looks at it",
            )
        async with batches.tools.database.transaction() as tx:
            await permits.end(tx, permit, "refused", cursor=cursor)
            if told is not None:
                await batches.tools.journal.append(tx, told)

    async def _require_same_holds(self, permit: Permit) -> None:
        """A hold that came since the permit waits for it anyway: better that nothing goes, and all is judged anew."""
        tools = self._batches.tools
        async with tools.database.transaction(read_only=True) as tx:
            now = await barrier.read(tx)
        if now.epoch == permit.epoch and now.settled:
            return
        await self.give_up()
        raise EpochMoved(remedy="nothing to do: the holds are read again")
