"""`pause`, `resume`, a sweep that is asked for: an operator's word to every replica."""

from __future__ import annotations

from collections.abc import Sequence

from retentiond.control import due, flags, units
from retentiond.desk.base import Also, Desk, Did
from retentiond.domain.permit import Unit
from retentiond.ledger import kinds
from retentiond.sweep.spec import Target


async def pause(desk: Desk, by: str, reason: str, also: Also | None = None) -> bool:
    """Let no batch begin anywhere until `resume`; False where that was so already."""
    async with desk.database.transaction() as tx:
        done = await flags.pause(tx, by, reason)
        if also is not None:
            await also(tx, Did(answer={"paused": True, "changed": done}))
        if done:
            entry = kinds.mode("pause", mode=desk.rules.mode, by=by, key=desk.texts_key, reason=reason)
            await desk.journal.append(tx, entry)
    return done


async def resume(desk: Desk, by: str, also: Also | None = None) -> bool:
    """Let erasing go on everywhere; False where it was not paused."""
    async with desk.database.transaction() as tx:
        done = await flags.resume(tx)
        if done:
            # The ledger's head is locked last, as everywhere: sweeps hold their unit when they come to it.
            await due.make_due(tx)
        if also is not None:
            await also(tx, Did(answer={"paused": False, "changed": done}))
        if done:
            await desk.journal.append(tx, kinds.mode("resume", mode=desk.rules.mode, by=by, key=desk.texts_key))
    return done


async def request_sweeps(desk: Desk, targets: Sequence[Target], by: str, also: Also | None = None) -> None:
    """Let these targets be swept as soon as a worker has room; one that is being swept is swept once more."""
    names = [target.name for target in targets]
    async with desk.database.transaction() as tx:
        await units.ensure(tx, map(Unit, names))
        await due.make_due(tx, names)
        if also is not None:
            await also(tx, Did(answer={"targets": names}))
        await desk.journal.append(tx, kinds.sweep_requested(names, mode=desk.rules.mode, by=by))
