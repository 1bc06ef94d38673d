"""A real sweep that stops where it is told to: at each step of a batch, for any time, until it is let go on.

The sweep is the product's own, and only its store is wrapped: what happens between two stops is what happens in life
between two instants at which the process may be stopped. Between the stops nothing runs in the background, so whoever
looks meanwhile sees what stands still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from retentiond.domain.permit import Permit
from retentiond.errors import Unreachable
from retentiond.stores.base import Way
from retentiond.stores.postgres.quick import QuickBatch

STEPS = ("leased", "planned", "begun", "permitted", "handing over", "deleted", "prepared", "committed")
"""Where a sweep stops: the lease is taken; the plan with its holds is made; the target's transaction is open; the permit
is there; the second connection has the fence and the first is not yet asked; rows are deleted; the outcome is prepared;
the transaction is committed and its outcome not written. Beside these `waiting`: for somebody else."""

_CURRENT: ContextVar[Stops] = ContextVar("stops of the sweep that is running")


@dataclass(slots=True)
class Flight:
    """A batch that has begun: its connections' backends, and which of them has the fence.

    `swapped`: the first connection is in another transaction than it thinks, as behind a pooler that lost its server.
    `doomed`: seen from outside, it can't take effect any more.
    """

    number: int
    quick: bool
    main: int
    first: int | None
    batch: Any
    has_fence: bool = False
    swapped: bool = False
    doomed: bool = False
    over: bool = False
    permit: Permit | None = None
    permit_at: int = 0


@dataclass(slots=True)
class Stops:
    """Of one worker. `at` is where it stands (None: it runs, or there is no sweep); `fault` strikes its next COMMIT."""

    now: Callable[[], int]
    committed: Callable[[Flight], Awaitable[None]]
    cut: Callable[[int], Awaitable[None]]
    leave_out: frozenset[str] = frozenset()
    at: str | None = None
    fault: str | None = None
    flight: Flight | None = None
    careful: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self, step: str) -> None:
        """Stand here until `go`."""
        if step in self.leave_out:
            return
        self.at = step
        self.reached.set()
        await self._go.wait()
        self._go.clear()

    def go(self) -> None:
        """Let it go on from where it stands."""
        if self.at is not None:
            self.at = None
            self.reached.clear()
            self._go.set()

    def belong_to_this_task(self) -> None:
        """Sleeping in this task and those it makes is a stop from now on."""
        _CURRENT.set(self)


class SteppedAsyncio:
    """What a module takes for `asyncio`: a sweep that sleeps stands at `waiting`, and nobody waits for real."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        stops = _CURRENT.get(None)
        if stops is None:
            await asyncio.sleep(seconds)
        else:
            await stops.stop("waiting")


class StoppedStore:
    """A store whose batches stop at each step; all else is the store's own."""

    def __init__(self, store: Any, stops: Stops) -> None:
        self._store, self._stops = store, stops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open(self, directory: Any) -> Any:
        await self._stops.stop("leased")
        return await self._store.open(directory)

    @asynccontextmanager
    async def batch(self, plan: Any, number: int, way: Way):
        stops = self._stops
        await stops.stop("planned")
        if stops.careful and way is Way.QUICK:
            way = Way.CAREFUL
        flight = None
        try:
            async with self._store.batch(plan, number, way) as batch:
                quick = isinstance(batch, QuickBatch)
                first = batch._aside.get_server_pid() if quick else None
                flight = Flight(number, quick, batch.connection.get_server_pid(), first, batch, has_fence=not quick)
                stops.flight = flight
                await stops.stop("begun")
                yield StoppedBatch(batch, stops, flight)
        finally:
            if flight is not None:
                flight.over = True
            stops.flight = None


class StoppedBatch:
    """One batch that stops at each step."""

    def __init__(self, batch: Any, stops: Stops, flight: Flight) -> None:
        self._batch, self._stops, self._flight = batch, stops, flight
        self.connection = batch.connection
        self.measured = batch.measured
        if flight.quick:
            self._hand_over = batch._hand_over
            batch._hand_over = self._handing_over

    async def _handing_over(self) -> None:
        self._flight.has_fence = True
        await self._stops.stop("handing over")
        await self._hand_over()
        self._flight.first = None

    async def erase(self, permit: Permit, *args: Any, **kwargs: Any) -> Any:
        self._flight.permit, self._flight.permit_at = permit, self._stops.now()
        await self._stops.stop("permitted")
        found = await self._batch.erase(permit, *args, **kwargs)
        await self._stops.stop("deleted")
        return found

    async def commit(self) -> None:
        stops, flight = self._stops, self._flight
        await stops.stop("prepared")
        fault, stops.fault = stops.fault, None
        if fault == "cut before COMMIT":
            await stops.cut(flight.main)
            flight.doomed = True
        try:
            await self._batch.commit()
        finally:
            flight.over = True
            await stops.committed(flight)
        if fault == "answer lost":
            raise Unreachable("the connection died after COMMIT was sent")
        await stops.stop("committed")
