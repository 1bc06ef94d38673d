"""After a sweep that erased many records: what is left to be vacuumed, told with the command, or done where allowed.

Nothing here fails a sweep: what is erased is erased. Many are a fifth of the table (where autovacuum begins by its own
default, `autovacuum_vacuum_scale_factor`) or a million, which a large table would wait for long to reach a fifth of.
"""

from __future__ import annotations

import asyncio

from retentiond.errors import RetentiondError
from retentiond.stores.base import Store, Upkeep
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Target

_FRACTION, _MANY, _FEW = 0.2, 1_000_000, 1_000
_VACUUM_SECONDS = 3600.0
_MOST_INDEXES = 20


async def look_after(store: Store, target: Target, outcome: Outcome, stop: asyncio.Event) -> None:
    """Put into the outcome what a large sweep has left behind, vacuumed where the target says so."""
    if outcome.changed < _FEW:
        return
    try:
        found = await store.upkeep()
        if found is None:
            return
        if outcome.changed < min(_MANY, _FRACTION * (found.live + outcome.changed)):
            return
        outcome.upkeep = _document(found)
        if target.vacuum and not stop.is_set() and await _vacuumed(store, stop):
            outcome.upkeep = _document(await store.upkeep()) | {"vacuumed": True, "advice": None}
    except RetentiondError as error:
        outcome.upkeep = (outcome.upkeep or _document(None)) | {"error": error.message, "remedy": error.remedy}


async def _vacuumed(store: Store, stop: asyncio.Event) -> bool:
    """Whether it was vacuumed; the end of the sweep or of the process is not kept waiting for that."""
    work = asyncio.create_task(store.vacuum(_VACUUM_SECONDS))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
            return True
        return False
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


def _document(found: Upkeep | None) -> dict[str, object]:
    """As `sweep --json` shows it, the emptiest indexes first; what is not `measured` is an estimate."""
    indexes = sorted(found.indexes if found else (), key=lambda each: -(each.empty or 0))
    return {
        "dead_rows": found.dead if found else None,
        "live_rows": found.live if found else None,
        "indexes": [
            {"name": each.name, "bytes": each.bytes, "empty": each.empty, "measured": each.measured}
            for each in indexes[:_MOST_INDEXES]
        ],
        "vacuumed": False,
        "advice": found.advice if found else None,
        "error": None,
        "remedy": None,
    }
