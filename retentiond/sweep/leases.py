"""Having a unit: its lease is taken, kept while the work lasts, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from retentiond.beside import beside
from retentiond.control import units
from retentiond.control.database import Database
from retentiond.domain.permit import Lease, Unit
from retentiond.errors import Fenced, Unreachable

_POLL_SECONDS = 0.5
_RENEW_SECONDS = 10.0


@asynccontextmanager
async def leased(
    database: Database, unit: Unit, worker: str, *, wait: bool, stopping: Callable[[], bool]
) -> AsyncIterator[Lease | None]:
    """The unit's lease; None where another worker has it, unless `wait` says to wait for that.

    Raises Fenced where the waiting is over since `stopping` says so.
    """
    async with database.transaction() as tx:
        await units.ensure(tx, [unit])
    lease = await units.acquire(database, unit, worker)
    while lease is None and wait:
        if stopping():
            raise Fenced(f"another worker has {unit}")
        await asyncio.sleep(_POLL_SECONDS)
        lease = await units.acquire(database, unit, worker)
    if lease is None:
        yield None
        return
    try:
        async with beside(_keep(database, lease)):
            yield lease
    finally:
        await _give_back(database, lease)


async def _keep(database: Database, lease: Lease) -> None:
    """Renew the lease while the sweep counts or rests; a lost one is found by the next permit."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        try:
            async with database.transaction() as tx:
                await units.renew(tx, lease)
        except (Fenced, Unreachable):
            continue


async def _give_back(database: Database, lease: Lease) -> None:
    try:
        async with database.transaction() as tx:
            await units.release(tx, lease)
    except Unreachable:
        return  # The lease runs out by itself.
