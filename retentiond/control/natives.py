"""Holds in force in the targets' own databases, kept in step with the holds here.

A hold becomes active only when it is in force natively in every target that has native holds and that it covers; it is
taken away there when it is released, after the grace. Targets are asked with the barrier open: what is written there
is safe whenever it comes, since a hold is only ever added there before it is released, and taken away after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from retentiond.control import hold_rows
from retentiond.control.database import Database, Tx
from retentiond.domain.holds import Hold

NativeStep = Callable[[Sequence[Hold]], Awaitable[Mapping[str, str]]]
"""Brings a target's own database in step with all holds there are, released ones too.

For each hold whose state there is not yet what it should be, by id, why not.
"""

_AT_ONCE = 16


async def settle(database: Database, natives: Mapping[str, NativeStep]) -> dict[str, dict[str, str]]:
    """Bring all targets in step; what is not, by target and hold. Raises UnreadableHold, Unreachable."""
    if not natives:
        return {}
    async with database.transaction(read_only=True) as tx:
        known = await _all(tx)
    room = asyncio.Semaphore(_AT_ONCE)

    async def taken(step: NativeStep) -> Mapping[str, str]:
        async with room:
            return await step(known)

    found = await asyncio.gather(*map(taken, natives.values()))
    return {name: dict(missing) for name, missing in zip(natives, found, strict=True) if missing}


async def _all(tx: Tx) -> list[Hold]:
    rows = await tx.fetch(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds ORDER BY placed_at, id")
    return [hold_rows.from_row(row) for row in rows]
