"""Holds in force in the targets' own databases, kept in step with the holds here.

A hold becomes active only when it is in force natively in every target that has native holds and that it covers; it is
taken away there when it is released, after the grace. Targets are asked with the barrier open: what is written there
is safe whenever it comes, since a hold is only ever added there before it is released, and taken away after.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from retentiond.control import hold_rows
from retentiond.control.database import Database, Tx
from retentiond.domain.holds import Hold
from retentiond.errors import Unexpected

_AT_ONCE = 16
OnDefect = Callable[[str, Exception], None]


class NativeStep(Protocol):
    """Keeps a target's own database in step with all holds there are, released ones too."""

    async def settle(self, known: Sequence[Hold]) -> Mapping[str, str]:
        """Bring it in step. For each hold whose state there is not yet what it should be, by id, why not."""

    def concerned(self, known: Sequence[Hold]) -> Collection[str]:
        """The ids of the holds that have something to do there."""


async def settle(
    database: Database, natives: Mapping[str, NativeStep], on_defect: OnDefect | None = None
) -> dict[str, dict[str, str]]:
    """Bring all targets in step; what is not, by target and hold. Raises UnreadableHold, Unreachable.

    `on_defect` gets what nobody foresaw of one target; of what is foreseen, the answers tell.
    """
    missing: dict[str, dict[str, str]] = {}
    async with aclosing(settling(database, natives, on_defect=on_defect)) as looks:
        async for missing in looks:  # noqa: B007 - the last one is wanted
            pass
    return missing


async def settling(
    database: Database,
    natives: Mapping[str, NativeStep],
    *,
    only: Collection[str] | None = None,
    on_defect: OnDefect | None = None,
) -> AsyncGenerator[dict[str, dict[str, str]], None]:
    """What is not in step, as soon as all are asked and after each answer; a target that has not answered yet is not.

    With `only` are asked the targets that one of these holds has something to do with, first those of holds that wait
    for few. Whatever is wrong with one target, even a mistake of ours, is a reason for its own holds alone.
    """
    known: list[Hold] = []
    if natives:
        async with database.transaction(read_only=True) as tx:
            known = await _all(tx)
    concerned = {name: step.concerned(known) for name, step in natives.items()}
    asked = list(natives) if only is None else _ordered(concerned, set(only))
    missing = {name: dict.fromkeys(concerned[name], "no answer yet") for name in asked}
    room = asyncio.Semaphore(_AT_ONCE)

    async def taken(name: str) -> None:
        async with room:
            try:
                missing[name] = dict(await natives[name].settle(known))
            except Exception as error:
                if on_defect is not None:
                    on_defect(name, error)
                missing[name] = dict.fromkeys(concerned[name], Unexpected.of(error).message)

    waiting = {asyncio.create_task(taken(name)) for name in asked}
    try:
        yield _lacking(missing)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            yield _lacking(missing)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _ordered(concerned: Mapping[str, Collection[str]], only: set[str]) -> list[str]:
    """The targets of these holds: a hold that waits for many, of which some may not answer, lets others go before."""
    bear = {name: only.intersection(ids) for name, ids in concerned.items() if not only.isdisjoint(ids)}
    targets = Counter(hold_id for ids in bear.values() for hold_id in ids)
    return sorted(bear, key=lambda name: min(targets[hold_id] for hold_id in bear[name]))


def _lacking(missing: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: lacking for name, lacking in missing.items() if lacking}


async def _all(tx: Tx) -> list[Hold]:
    rows = await tx.fetch(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds ORDER BY placed_at, id")
    return [hold_rows.from_row(row) for row in rows]
