"""Before each batch: is the target's server well, and if not, rest until it is; never inside a transaction.

A rest looks again after growing pauses. It ends at once when the sweep is to stop, notices a pause and a lost lease as
a batch would, and says why it lasts: an event when it begins, when its reason changes, and at each pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from retentiond.control import flags, units
from retentiond.domain.permit import Lease
from retentiond.errors import Blind, Paused, PlanMode, RetentiondError, Strained, Unreachable
from retentiond.stores.base import Store, Vitals
from retentiond.sweep import promql
from retentiond.sweep.events import Throttled, VitalsRead, Yielding
from retentiond.sweep.health import LATENCY, PROMQL, Latency, Strain, judge, pause, unreadable
from retentiond.sweep.plans import Tools
from retentiond.sweep.spec import Target

_FRESH_SECONDS = 1.0
_FRESH_BATCHES = 2
_MOST_UNREAD = 4


class Yielder:
    """What one sweep of one target asks before its batches."""

    def __init__(
        self, tools: Tools, store: Store, target: Target, lease: Lease, sweep: str, stop: asyncio.Event
    ) -> None:
        self._tools, self._store, self._target = tools, store, target
        self._lease, self._sweep, self._stop = lease, sweep, stop
        self._health = target.health
        self._latency = Latency(target.pace.batch_seconds, target.health.limits.get(LATENCY, float("inf")))
        self._read_at = float("-inf")
        self._batches = 0
        self._unasked: RetentiondError | None = None

    def took(self, seconds: float) -> None:
        """A batch is over, and took so long."""
        self._latency.took(seconds)

    async def ready(self, is_open: Callable[[], bool]) -> bool:
        """Rest while the server is strained; True: begin a batch. False: the sweep is to stop, or its window closed.

        Raises Strained when that lasts longer than the target's patience; Blind and Unreachable where a signal that was
        configured can't be read; Paused, PlanMode, Fenced.
        """
        if self._is_fresh():
            self._batches += 1
            return True
        began, pauses, unread = time.monotonic(), 0, 0
        while (found := await self._look()) is not None:
            strain, known = found
            unread = 0 if known else unread + 1
            rested = time.monotonic() - began
            self._tell(strain, rested)
            if unread >= _MOST_UNREAD:
                raise self._unreadable(strain)
            if rested >= self._health.patience:
                raise Strained(
                    f"target {self._target.name} yielded for {rested:.0f} s, and still {strain.told}",
                    remedy="see what the server is busy with; a later sweep goes on from here",
                )
            if not await self._rest(strain, pause(max(pauses, self._latency.rests))) or not is_open():
                return False
            await self._require_allowed()
            pauses += 1
        if pauses:
            self._tell(None, time.monotonic() - began)
        self._read_at, self._batches = time.monotonic(), 1
        return True

    def _is_fresh(self) -> bool:
        """Whether the last reading does for one batch more."""
        return (
            self._batches < _FRESH_BATCHES
            and time.monotonic() - self._read_at < _FRESH_SECONDS
            and self._latency.value() <= self._latency.limit
        )

    async def _look(self) -> tuple[Strain, bool] | None:
        """What keeps the sweep from its next batch, and whether that is known: else a signal can't be read."""
        health = self._health
        if not health.limits and health.query is None:
            return None
        vitals = await self._read()
        self._tools.observer(VitalsRead(self._target, vitals.values))
        strain = judge(health, vitals)
        if strain is not None:
            return strain, True
        missing = unreadable(health, vitals)
        return None if missing is None else (missing, False)

    def _unreadable(self, strain: Strain) -> RetentiondError:
        message = f"target {self._target.name}: {strain.told}, and it was configured"
        if strain.reason == PROMQL and self._unasked is not None:
            return type(self._unasked)(message, remedy=self._unasked.remedy)
        return Blind(
            message,
            remedy=f"GRANT pg_monitor TO the role of the dsn; or take pace.health.{strain.reason} out, or set it off",
        )

    async def _read(self) -> Vitals:
        health = self._health
        found = await self._store.vitals(health.limits)
        values, unread = dict(found.values), dict(found.unread)
        if LATENCY in health.limits:
            values[LATENCY] = self._latency.value()
        if health.query is not None:
            try:
                values[PROMQL] = await promql.ask(health.query)
            except (Blind, Unreachable) as error:
                unread[PROMQL], self._unasked = error.message, error
        return Vitals(values, unread)

    async def _rest(self, strain: Strain, seconds: float) -> bool:
        """Whether the pause came to its end; the time is counted as it passes."""
        began = time.monotonic()
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            if strain.reason == LATENCY:
                self._latency.try_again()
            return True
        finally:
            self._tools.observer(Throttled(self._target, strain.reason, time.monotonic() - began))
        return False

    async def _require_allowed(self) -> None:
        """What a permit would notice, had the rest a batch: raises Fenced, Paused, PlanMode."""
        async with self._tools.database.transaction() as tx:
            await units.renew(tx, self._lease)
            state = await flags.read(tx)
        if state.paused:
            raise Paused(f"erasing is paused by {state.paused_by}", remedy="`retentiond resume` starts it again")
        if state.mode == "plan":
            raise PlanMode(remedy="set `mode: enforce` when the plan is what you want")

    def _tell(self, strain: Strain | None, seconds: float) -> None:
        reason, told = (strain.reason, strain.told) if strain else (None, "")
        self._tools.observer(Yielding(self._target, self._sweep, reason, told, seconds))
