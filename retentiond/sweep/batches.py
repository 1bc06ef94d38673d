"""What batches of either fence do alike: the permit, what the ledger is told, the end under the lease's fence.

In which order a batch goes is the business of `by_transaction`, `by_expiry` and `by_presence`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from retentiond.control import permits, units
from retentiond.control.database import Tx
from retentiond.domain.evidence import keyed_digest
from retentiond.domain.permit import Lease, Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Guarded
from retentiond.ledger import kinds
from retentiond.stores.base import PARTITIONS, AnyStore, Intended, Tally, Way, Window
from retentiond.sweep.events import BatchDone
from retentiond.sweep.legs import cursor_at
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools
from retentiond.sweep.recovery import PLACE
from retentiond.sweep.spec import Target
from retentiond.sweep.told import outcome_entry

_NUMBERS = 32


class Carrier(Protocol):
    """The order of a batch, by what its store's fence is."""

    @property
    def usual(self) -> Way:
        """How its batches go as long as nothing is in their way."""

    @property
    def blame(self) -> str:
        """Where to look for what kept records from going that are due."""

    @property
    def passed_over(self) -> tuple[str, str]:
        """Why records were left that are due and may go later, and what is to be done about it."""

    async def begin(self) -> None:
        """Before the first batch of a sweep."""

    def window(self, leg: Window, after: tuple[str, ...] | None, size: int) -> Window:
        """The next window of the leg."""

    async def within_bound(self, window: Window) -> Window | None:
        """The window, narrowed where it could hold more than the sweep may still act on; None when that is used up."""

    async def carry(self, window: Window, way: Way) -> Tally | None:
        """One batch, from its permit to its end; None where the sweep may act on nothing more.

        Raises EpochMoved, with nothing done, and whatever the store and the control database raise.
        """

    async def give_up(self, told: kinds.Entry | None = None, cursor: Mapping[str, Any] | None = None) -> None:
        """End the permit of a batch that was refused, if there is one; raises Fenced, and Unreachable in doubt."""


@dataclass(slots=True)
class Batches:
    """The batches of one sweep under one lease: `plan` as it is now, and `permit` of the one that is not over.

    `bound`: how many records the sweep may act on, and `groups` of how many groups it may shorten the retention (None:
    any number). `looking`: of the seconds that the last batch
    took, those before its permit was asked for, where it looks without one; no batch size is to answer for them.
    """

    tools: Tools
    store: AnyStore
    target: Target
    plan: TargetPlan
    lease: Lease
    sweep: str
    outcome: Outcome
    bound: int | None = None
    groups: int | None = None
    permit: Permit | None = None
    looking: float = 0.0

    @property
    def left(self) -> int | None:
        """How many records the sweep may still act on; None: any number."""
        return None if self.bound is None else max(self.bound - self.outcome.changed, 0)

    async def issue(
        self, number: int, batch: str, window: Window, *, presence: Mapping[str, Any] | None = None
    ) -> Permit:
        """The permit of a batch, under the holds of the plan; raises EpochMoved and what else stands against it.

        `presence`: what others can tell by whether this worker is there, where that is the fence.
        """
        intent: dict[str, Any] = {
            "sweep": self.sweep,
            "batch": batch,
            "walk": window.walk,
            "size": window.size,
            "store": self.store.kind,
            "fence": self.store.fence,
        }
        if self.store.fence != "transaction":
            # Whoever places a hold may be configured otherwise: what this batch's server may take is said with it.
            intent["grace"] = self.tools.spec.late_effect_grace.total_seconds()
        if presence is not None:
            intent["presence"] = presence
        self.permit = await permits.issue(
            self.tools.database,
            number=number,
            lease=self.lease,
            expected_epoch=self.plan.epoch,
            digest=self.plan.digest,
            intent=intent,
        )
        return self.permit

    def salt(self, batch: str) -> str:
        """What the digest of the batch's record ids is salted with."""
        return keyed_digest(self.tools.evidence, batch)

    def require_within_bound(self, due: int, shortened: int = 0) -> None:
        """Raise before the effect of a batch that found more due than was counted: the directory may be damaged."""
        if self.bound is not None and self.outcome.changed + due > self.bound:
            raise Guarded(
                "fraction",
                f"more records of target {self.target.name} became due in the middle of a sweep than the "
                f"{self.bound} that it was allowed",
                remedy="see what changed in the account directory; the next sweep counts anew and asks",
            )
        if self.groups is not None and self.outcome.shortened + shortened > self.groups:
            raise Guarded(
                "fraction",
                f"the retention of more groups of target {self.target.name} was to become shorter in the middle of a "
                f"sweep than of the {self.groups} that it was allowed",
                remedy="see what changed in the account directory and the groups; the next sweep counts anew and asks",
            )

    async def passed_by(self, window: Window, seen: Tally) -> None:
        """Nothing is due in the window, which was looked at without a permit: the walk has come past it."""
        self.outcome.looked(seen)
        cursor = self.cursor(window, seen.after, None)
        async with self.tools.database.transaction() as tx:
            await units.save_cursor(tx, self.lease, cursor)

    async def prepare(self, permit: Permit, intended: Intended, began: float, *, in_time: bool) -> None:
        """Write down what is about to go, before any of it does; raises as `permits.prepare`."""
        prepared = {
            "intended": intended.document,
            "outcome": self.entry(permit, Tally(selected=intended.selected), began).body,
            "salt": self.salt(permit.batch),
            PLACE: list(self.store.records),
        }
        await permits.prepare(self.tools.database, permit, prepared, in_time=in_time)

    def cursor(self, window: Window, after: tuple[str, ...] | None, found: Tally | None) -> Mapping[str, Any]:
        """Where the walk is after the window, and what the sweep has come to with this batch, if there was one."""
        so_far = (self.outcome.with_batch(found) if found is not None else self.outcome).state()
        return cursor_at(self.store, self.plan, window, after, so_far)

    def entry(self, permit: Permit, found: Tally, began: float) -> kinds.Entry:
        """What the ledger is told of the batch, which began at that instant of the monotonic clock."""
        milliseconds = int((time.monotonic() - began) * 1000)
        return outcome_entry(self.plan, self.target, self.sweep, permit, found, milliseconds)

    async def settle(self, tx: Tx, permit: Permit, found: Tally, window: Window, began: float) -> None:
        """Permit, cursor and ledger, in one transaction under the lease's fence."""
        cursor = None if window.walk == PARTITIONS else self.cursor(window, found.after, found)
        await permits.end(tx, permit, "committed" if found.done else "empty", cursor=cursor)
        if found.done or found.failed or found.gone:
            await self.tools.journal.append(tx, self.entry(permit, found, began))

    def done(self, batch: str, found: Tally, began: float) -> None:
        """The batch is over and written down."""
        self.permit = None
        self.outcome.erased(found)
        seconds = time.monotonic() - began
        self.tools.observer(
            BatchDone(self.target, self.sweep, batch, found.changed, found.by_tier, found.bytes, seconds)
        )


class Numbers:
    """Numbers of permits, a handful reserved at a time."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._left: list[int] = []

    async def take(self) -> int:
        """The next one; what is never used is no loss."""
        if not self._left:
            self._left = await permits.reserve_some(self._tools.database, _NUMBERS)
        return self._left.pop(0)


def new_batch() -> str:
    """The id of a batch."""
    return str(uuid4())
