"""Whole partitions of a target, before its rows: taken off, proved and dropped, or brought back.

A partition in which every record looks due is written down in the control state, detached, and destroyed by a batch
like any other: under a permit, proved again under a lock by the holds of that permit (the store's part). What the
proof leaves, and what a crash left, is attached again; its records then go by rows, or stay, as everywhere. A table
that can't be attached again is tried once more as a whole, and else said by each sweep, `check` and `promises`.

Where the store can't detach without a lock on the whole table, the batch drops partitions as they are: nothing is
written down, for nothing is ever detached.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from retentiond.control import detached
from retentiond.control.database import Database
from retentiond.control.detached import FINAL_SECONDS, Noted
from retentiond.domain.permit import Lease
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Locked, Refused, RetentiondError
from retentiond.stores.base import Part, Partitions, PartState, Store
from retentiond.sweep.events import Failed
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools

_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 3, 0.5
_OFF = (PartState.DETACHED, PartState.PENDING)


@dataclass(frozen=True, slots=True)
class Hands:
    """What the sweeper does for us: whether these may go now, the batch, the rest after one, the plan as it is now."""

    may_go: Callable[[Sequence[Part]], bool]
    batch: Callable[[tuple[Part, ...]], Awaitable[int]]
    rest: Callable[[float, int], Awaitable[None]]
    plan: Callable[[], TargetPlan]


@dataclass(slots=True)
class WholeParts:
    """The partitions of one target in one sweep."""

    tools: Tools
    store: Store
    lease: Lease
    sweep: str
    _stuck: dict[int, tuple[Part, str]] = field(default_factory=dict)
    _elsewhere: list[tuple[Part, str]] = field(default_factory=list)

    async def restore(self) -> None:
        """Attach what an earlier sweep has left detached, before anything is counted; raises Unreachable."""
        partitions = self.store.partitions
        if partitions is None:
            return
        async with self.tools.database.transaction(read_only=True) as tx:
            noted = [each for each in await detached.noted(tx, self._target) if not each.living]
        here = [each for each in noted if each.place == self._place]
        self._elsewhere = [
            (part_of(each), f"it is of {each.place}, and the target is {self._place}")
            for each in noted
            if each.place != self._place
        ]
        final = {each.part for each in here if each.seconds > FINAL_SECONDS}
        await self._bring_back(partitions, [part_of(each) for each in here], final)

    async def drop(self, hands: Hands) -> None:
        """Destroy the partitions in which all is due; what is not due as a whole is left to the walks."""
        partitions = self.store.partitions
        if partitions is None:
            return
        left = tuple(part for part, _ in self._stuck.values())
        if left and partitions.wanted and hands.may_go(left):
            await self._batch(partitions, left, hands)
            await self._bring_back(partitions, left, {part.number for part in left})
        async for group in partitions.due(hands.plan):
            if not hands.may_go(group):
                return
            began = time.monotonic()
            changed = await (
                self._detached(partitions, group, hands)
                if await partitions.detaches()
                else self._attached(partitions, group, hands)
            )
            await hands.rest(time.monotonic() - began, changed)

    def tell(self, outcome: Outcome) -> None:
        """Say in the outcome what could not be brought back."""
        left = [*self._stuck.values(), *self._elsewhere]
        if left and outcome.error is None:
            outcome.broken(stuck(self._target, left), "failed")

    async def _detached(self, partitions: Partitions, group: tuple[Part, ...], hands: Hands) -> int:
        """Detach, destroy, and bring back what is left, whatever happens."""
        async with self.tools.database.transaction() as tx:
            parts = [(part.number, part.name, part.bounds, part.checks) for part in group]
            taken = await detached.note(tx, self.lease, self._place, parts)
        mine = [part for part in group if part.number in taken]
        settled: set[int] = set()
        try:
            off = []
            for part in tuple(mine):
                try:
                    state = await partitions.detach(part)
                except (Blind, Refused) as error:
                    self._declined(partitions, (part,), error)
                    continue
                if state is PartState.GONE:
                    await self._forget({part.number})
                    mine = [each for each in mine if each is not part]
                    continue
                settled.add(part.number)
                if state is PartState.DETACHED:
                    off.append(part)
            return await self._batch(partitions, tuple(off), hands) if off else 0
        finally:
            await self._bring_back(partitions, mine, settled)

    async def _attached(self, partitions: Partitions, group: tuple[Part, ...], hands: Hands) -> int:
        """Destroy them as they are; the lock on the table is asked for a few times, each for a moment."""
        for _ in range(_LOCK_TRIES):
            try:
                changed = await hands.batch(group)
                await self._doubt(partitions, group)
                return changed
            except Locked:
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
            except (Blind, Refused) as error:
                self._declined(partitions, group, error)
                break
        return 0

    async def _batch(self, partitions: Partitions, parts: tuple[Part, ...], hands: Hands) -> int:
        try:
            changed = await hands.batch(parts)
            await self._doubt(partitions, parts)
            return changed
        except Locked:
            return 0
        except (Blind, Refused) as error:
            self._declined(partitions, parts, error)
            return 0

    async def _doubt(self, partitions: Partitions, parts: Sequence[Part]) -> None:
        states = await partitions.states(parts)
        partitions.doubt([part for part in parts if states[part.number] is not PartState.GONE])

    def _declined(self, partitions: Partitions, parts: Sequence[Part], error: RetentiondError) -> None:
        """They go by rows as long as this process lives: else each sweep would detach them in vain."""
        partitions.decline(parts)
        self.tools.observer(Failed(self._target, error.kind, error.message, error.remedy, self.sweep))

    async def _bring_back(self, partitions: Partitions, parts: Sequence[Part], final: set[int]) -> None:
        """Attach what is detached. Forget what is gone, and what is attached for good: no DETACH of it is to come."""
        if not parts:
            return
        states = dict(await partitions.states(parts))
        for part in parts:
            self._stuck.pop(part.number, None)
            if states[part.number] not in _OFF:
                continue
            why = "sessions of others are in the way"
            try:
                states[part.number] = await partitions.attach(part)
            except (Blind, Refused) as error:
                why = error.message
            if states[part.number] in _OFF:
                self._stuck[part.number] = (part, why)
        over = {
            number
            for number, state in states.items()
            if state is PartState.GONE or (state is PartState.ATTACHED and number in final)
        }
        if over:
            await self._forget(over)

    async def _forget(self, numbers: set[int]) -> None:
        async with self.tools.database.transaction() as tx:
            await detached.forget(tx, self._target, numbers)

    @property
    def _target(self) -> str:
        return self.lease.unit.target

    @property
    def _place(self) -> str:
        return place_of(self.store)


async def left_behind(database: Database, store: Store) -> Refused | None:
    """What is to be said of partitions that are detached, and whose worker is gone; raises Unreachable."""
    if store.partitions is None:
        return None
    async with database.transaction(read_only=True) as tx:
        noted = [each for each in await detached.noted(tx, store.name) if not each.living]
    parts = [part_of(each) for each in noted if each.place == place_of(store)]
    states = await store.partitions.states(parts) if parts else {}
    left = [(part, "no sweep has come since") for part in parts if states[part.number] in _OFF]
    left += [(part_of(each), f"it is of {each.place}") for each in noted if each.place != place_of(store)]
    return stuck(store.name, left) if left else None


def place_of(store: Store) -> str:
    """Which table partitions are noted of: a server may be reached by many names, so it has none."""
    return "/".join(store.records[-3:])


def part_of(noted: Noted) -> Part:
    """The partition that was noted."""
    return Part(noted.part, noted.name, noted.bounds, checks=noted.checks)


def stuck(target: str, parts: Sequence[tuple[Part, str]]) -> Refused:
    """What is to be said of partitions that are detached and could not be brought back."""
    part, why = parts[0]
    more = f" (and {len(parts) - 1} more)" if len(parts) > 1 else ""
    return Refused(
        f"{part.name}{more} was a partition of target {target}, and is detached by a sweep that was cut short: queries "
        f"of the whole table don't see its records, and it is not attached again: {why}",
        remedy=f"each sweep tries again; by hand: ALTER TABLE … ATTACH PARTITION {part.name} {part.bounds};",
    )
