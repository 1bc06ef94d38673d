"""A batch whose transaction is its fence (4-safety, "The batch": Postgres).

The target's transaction and its lock, then the permit, then the deleting statement, then the outcome as it will be,
then COMMIT, then the ledger, cursor and permit in one transaction of the control database, under the lease's fence.
Where the target is in the control database, batch and outcome are one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from retentiond.beside import beside
from retentiond.control import permits
from retentiond.control.database import Tx
from retentiond.domain.permit import Permit
from retentiond.ledger import kinds
from retentiond.stores.base import Tally, Transactional, TransactionBatch, Way, Window
from retentiond.sweep.batches import Batches, Numbers, new_batch
from retentiond.sweep.recovery import give_up


class ByTransaction:
    """Carries batches through that are one transaction each; `size` is that of the window to come."""

    blame = "see the table's triggers and constraints; a trigger that returns NULL vetoes the change"
    passed_over = (
        "are locked by other transactions, or became due only now",
        "they are taken by a later sweep; see pg_locks for who may hold them",
    )

    def __init__(self, batches: Batches, store: Transactional, size: Callable[[], int]) -> None:
        self._batches, self._store, self._size = batches, store, size
        self._numbers = Numbers(batches.tools)
        self._joined = False
        self._ahead: Window | None = None

    @property
    def usual(self) -> Way:
        """Quick, unless the batch's transaction writes the control state as well."""
        return Way.CAREFUL if self._joined else Way.QUICK

    async def begin(self) -> None:
        """See whether the target is in the control database."""
        self._joined = await self._store.holds_state(*await self._batches.tools.database.name())

    def window(self, leg: Window, after: tuple[str, ...] | None, size: int) -> Window:
        """The next window of the leg; with its end if the last batch has measured just this one."""
        wanted = replace(leg, after=after, size=size)
        ahead, self._ahead = self._ahead, None
        return ahead if ahead is not None and replace(ahead, end=None) == wanted else wanted

    async def within_bound(self, window: Window) -> Window | None:
        """The window, narrowed where it could hold more than the approval still allows; None when that is used up.

        What was approved was counted, so this bites only when more has become due in the meantime.
        """
        left = self._batches.left
        if left is None or left >= window.size:
            return window
        if (await self._store.count(self._batches.plan, window)).selected <= left:
            return window
        return replace(window, size=left, end=None) if left else None

    async def carry(self, window: Window, way: Way) -> Tally:
        """One batch."""
        batches, began, batch_id = self._batches, time.monotonic(), new_batch()
        number = await self._numbers.take()
        async with self._store.batch(batches.plan, number, way) as batch:
            permit = await batches.issue(number, batch_id, window)
            found = await batch.erase(permit, window, salt=batches.salt(batch_id))
            batches.require_within_bound(found.changed)
            if self._joined:
                await self._settle(batch.connection, permit, found, window, began)
            elif found.changed:
                # The control database writes to its disk meanwhile.
                async with beside(self._measured(batch, window, found)) as ahead:
                    await self._prepare(permit, found, began)
                    self._ahead = await ahead
            await batch.commit()
        if not self._joined:
            async with batches.tools.database.transaction() as tx:
                await self._settle(tx, permit, found, window, began)
        batches.done(batch_id, found, began)
        return found

    async def give_up(self, told: kinds.Entry | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """End the permit of a batch that was rolled back, if there is one."""
        batches = self._batches
        permit, batches.permit = batches.permit, None
        if permit is not None:
            tools = batches.tools
            await give_up(tools.database, self._store, permit, told, tools.journal, cursor)

    async def _measured(self, batch: TransactionBatch, window: Window, found: Tally) -> Window | None:
        """The next window with its end, if there is one."""
        if found.after is None:
            return None
        return await batch.measured(replace(window, after=found.after, size=self._size(), end=None))

    async def _prepare(self, permit: Permit, found: Tally, began: float) -> None:
        batches = self._batches
        prepared = {"transaction": found.transaction, "outcome": batches.entry(permit, found, began).body}
        await permits.prepare(batches.tools.database, permit, prepared)

    async def _settle(self, tx: Tx, permit: Permit, found: Tally, window: Window, began: float) -> None:
        """The outcome: in the batch's own transaction where that can be, else in one of the control database."""
        async with self._store.settling(tx) if self._joined else nullcontext():
            await self._batches.settle(tx, permit, found, window, began)
