"""Log groups as a store: streams listed in windows, judged in Python, deleted by requests that expire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.policy import DataClass
from retentiond.domain.verdict import RecordFacts
from retentiond.stores.base import AccountDirectory, Fate, Finding, Matches, Tally, TierTally, Vitals, Window
from retentiond.stores.cloudwatch import ceilings, inspect, lookup
from retentiond.stores.cloudwatch.aftermath import looked_for
from retentiond.stores.cloudwatch.batch import MOST, CloudwatchBatch, Ground
from retentiond.stores.cloudwatch.ceilings import Memory
from retentiond.stores.cloudwatch.census import Census
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.place import Place
from retentiond.stores.cloudwatch.reading import page_of, plus, told
from retentiond.stores.cloudwatch.rules import native_rules
from retentiond.stores.cloudwatch.walk import CEILINGS, STREAMS, Groups, Walks
from retentiond.stores.holding import target_hold
from retentiond.stores.judging import Judged, Page, judge_page
from retentiond.stores.rulings import Rulings

_PLANS: Final = 8
_ACCOUNTS: Final = 200_000
"""Accounts of which the rulings of one plan are kept; then they are asked about anew."""
_ALL: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class CloudwatchExtent:
    """Log groups of one service and region, by the configuration that names them."""

    config: CloudwatchTarget

    def meets(self, other: object) -> bool:
        """Whether a stream could be of both."""
        return isinstance(other, CloudwatchExtent) and self.config.overlaps(other.config)


class CloudwatchStore:
    """The log groups of one target; see `stores.base.Expiring` for what each method promises."""

    def __init__(self, name: str, config: CloudwatchTarget, *, action: str, data_class: DataClass) -> None:
        self.name, self.config, self.action = name, config, action
        self.records = config.records()
        self.described = f"log groups {config.groups}"
        self.place = Place(name, config)
        self.groups_of = Groups(config)
        self._data_class = data_class
        self._walks = Walks(self.groups_of)
        self._directory: AccountDirectory | None = None
        self._memory: Memory | None = None
        self._looking: list[Rulings] = []
        self._census = Census()

    def remember_by(self, memory: Memory) -> None:
        """From now on what is removed for holds is remembered there; before it is opened."""
        self._memory = memory

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return self.config.store

    @property
    def fence(self) -> Literal["expiry"]:
        """The date of each signature, by the service's own clock."""
        return "expiry"

    @property
    def address(self) -> str:
        """The same for targets of one endpoint and login."""
        return self.place.address

    @property
    def anchor(self) -> None:
        """Positions name records."""
        return

    @property
    def as_of(self) -> None:
        """Groups are asked as they are now."""

    @property
    def rests(self) -> bool:
        """All who list in a region share a few calls a second."""
        return True

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """Nothing refers to a stream."""
        return frozenset()

    @property
    def mark(self) -> str:
        """Streams have no schema."""
        return ""

    @property
    def partitions(self) -> None:
        """Records go one by one."""
        return

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that groups can be listed; raises Blind, Unreachable."""
        self._directory = accounts
        await self.place.open()

    async def close(self) -> None:
        """Give up all connections."""
        self._walks.close()
        await self.place.close()

    async def extent(self) -> CloudwatchExtent:
        """The groups that it is over, which the configuration tells."""
        return CloudwatchExtent(self.config)

    async def clock(self) -> ClockReading:
        """The service's clock."""
        return await self.place.clock()

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        return await inspect.findings(self.ground(), self._data_class)

    async def native_rules(self) -> Sequence[NativeRule]:
        """The retention of each group."""
        return await native_rules(await self.place.endpoint(), self.groups_of, self.config)

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of the directory."""
        return await self._directory.groups(class_name) if self._directory else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:  # noqa: ARG002 - rulings ask about each account
        """None beforehand: whether an account is missing is told when its records are listed."""
        return ()

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold as ids and accounts are compared here."""
        return await self.hold_by(hold, self._directory)

    async def hold_by(self, hold: Hold, directory: AccountDirectory | None) -> TargetHold:
        """The same by this directory, for who asks before the target is opened.

        One on a group's name is on all its streams. A stream has events from before its newest, so that when a hold's
        time ends can't be evaluated for it: it matches.
        """
        found = await target_hold(hold, target=self.name, knows_account=self.config.knows_account, directory=directory)
        whole = tuple(f"{each}:" for each in sorted(found.records or ()) if ":" not in each)
        return replace(found, prefixes=(*found.prefixes, *whole), until=None)

    async def total(self) -> int:
        """How many records there are, by the last walk over all of them; else counted."""
        return self._census.total if self._census.total is not None else await self.counted(_ALL)

    async def counted(self, most: int) -> int:
        """How many records there are, but at most `most`."""
        found, after = 0, None
        endpoint = await self.place.endpoint()
        while True:
            async with self._walks.at(endpoint, after, None) as listing:
                taken = await listing.take(min(MOST, most - found))
            found, after = found + len(taken.rows), taken.after
            if after is None or found >= most:
                return found

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:  # noqa: ARG002 - every rule needs every record
        """Over the records, and over groups for what they erase by themselves."""
        return (STREAMS, CEILINGS)

    async def shards(
        self,
        plan: TargetPlan,  # noqa: ARG002 - the service's quota is shared anyway
        *,
        each: int,  # noqa: ARG002
        most: int,  # noqa: ARG002
    ) -> tuple[Window, ...]:
        """None: more that ask at once would get no more done."""
        return ()

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:  # noqa: ARG002 - of the listing alone
        """What positions are of."""
        return ("group",) if walk == CEILINGS else ("group", "stream")

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""
        endpoint = await self.place.endpoint()
        if window.walk == CEILINGS:
            wanted = await self.ground().ceilings()
            begins = window.after[0] if window.after else None
            changes = await wanted.page(endpoint, plan, begins, MOST)
            return Tally(
                ceilings=ceilings.counted(changes.wanted),
                shortened=sum(each.shortens for each in changes.wanted),
                groups=changes.groups,
                after=(changes.last,) if changes.last is not None else None,
            )
        total, after, rest = Tally(), window.after, window.size
        while True:
            async with self._walks.at(endpoint, after, window.until) as listing:
                taken = await listing.take(min(rest, MOST))
            page = page_of(self.config, taken.rows)
            rulings = self._rulings(plan)
            await rulings.ask(page.accounts, self._directory)
            found = judge_page(rulings, page)
            one = told(found, taken.after, taken.requests)
            self._seen(replace(window, after=after), page, found, one)
            total = plus(total, one)
            after, rest = taken.after, rest - len(taken.rows)
            if after is None or rest <= 0:
                return total

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window."""
        return (await self.count(plan, window)).after

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many records the hold covers; those met by then where there is no time for all."""
        return await lookup.matches(self.ground(), hold, seconds)

    async def beyond(self, plan: TargetPlan) -> Tally | None:  # noqa: ARG002 - a walk has seen all, whatever the plan
        """The oldest anchor of each tier, by the last walk over all records."""
        if self._census.total is None:
            return None
        return Tally(tiers={label: TierTally(first=first) for label, first in self._census.firsts.items()})

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """Which of the streams that were to go are gone, or which groups have the retention that they were to get."""
        return await looked_for(await self.place.endpoint(), prepared)

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One stream by `GROUP:STREAM`, or of a group the newest; raises NotFound."""
        return await lookup.record(self.ground(), plan, key)

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - each window tells it
        """Told by the windows of a sweep."""
        return None

    async def oldest(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - it depends on no rule
        """The oldest anchor by the last walk over all records; None where there was none."""
        return self._census.oldest

    async def vitals(self, signals: Collection[str]) -> Vitals:  # noqa: ARG002 - the service tells none
        """The service says that it is strained by ThrottlingException alone, which the requests themselves mind."""
        return Vitals()

    async def upkeep(self) -> None:
        """What streams leave behind is the service's own."""
        return

    async def vacuum(self, seconds: float) -> None:
        """Nothing has to be."""

    async def require_unchanged(self) -> None:
        """Streams have no schema that could change."""

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[CloudwatchBatch]:
        """One window under the plan."""
        yield CloudwatchBatch(self.ground(), plan)

    def ground(self) -> Ground:
        """What batches, questions about single streams and holds stand on."""
        return Ground(
            self.name,
            self.config,
            self.place,
            self.groups_of,
            self._walks,
            self._directory,
            self._memory,
            self._rulings,
            self._seen,
        )

    def _rulings(self, plan: TargetPlan) -> Rulings:
        """The rulings that looks under the plan go by; what they know of accounts is as of when it was asked."""
        found = next((each for each in self._looking if each.plan is plan), None)
        if found is None or found.accounts > _ACCOUNTS:
            self._looking = [each for each in self._looking if each.plan is not plan][-_PLANS + 1 :]
            found = Rulings(plan)
            self._looking.append(found)
        return found

    def _seen(self, window: Window, page: Page, found: Judged, tally: Tally) -> None:
        self._census.seen(window, page, found.due, tally)
