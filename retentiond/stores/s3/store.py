"""Objects below a prefix as a store: listed in windows, judged in Python, erased by requests that expire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.policy import DataClass
from retentiond.domain.verdict import RecordFacts
from retentiond.stores.base import AccountDirectory, Fate, Finding, Matches, Tally, TierTally, Vitals, Window
from retentiond.stores.holding import target_hold
from retentiond.stores.rulings import Rulings
from retentiond.stores.s3 import inspect, lookup, orphans
from retentiond.stores.s3.aftermath import looked_for
from retentiond.stores.s3.batch import Ground, S3Batch, as_it_is_now
from retentiond.stores.s3.census import Census
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.cuts import shards
from retentiond.stores.s3.inventory.inspect import findings as inventory_findings
from retentiond.stores.s3.inventory.source import Inventory, bounded
from retentiond.stores.s3.lifecycle import native_rules
from retentiond.stores.s3.locks import LONGEST, OURS, Locks
from retentiond.stores.s3.place import Place
from retentiond.stores.s3.presence import absent
from retentiond.stores.s3.reading import Found, Reading, accounts_of, plus
from retentiond.stores.s3.sources import Owners, Sources
from retentiond.stores.s3.walk import KEYS, MOST, UPLOADS, Taken, Walks

_PLANS = 8
_ACCOUNTS = 200_000
"""Accounts of which the rulings of one plan are kept; then they are asked about anew."""
_ALL = 1 << 62
_FORECAST = timedelta(minutes=5)
"""A plan that is so far ahead of the clock is no plan of now."""


@dataclass(frozen=True, slots=True)
class S3Extent:
    """All keys of a bucket that begin with a text."""

    service: str
    bucket: str
    head: str

    def meets(self, other: object) -> bool:
        """Whether an object could be of both."""
        if not isinstance(other, S3Extent) or (self.service, self.bucket) != (other.service, other.bucket):
            return False
        return self.head.startswith(other.head) or other.head.startswith(self.head)


class S3Store:
    """One prefix; see `stores.base.Expiring` for what each method promises."""

    def __init__(
        self, name: str, config: S3Target, *, action: str, data_class: DataClass, scratch: Path | None = None
    ) -> None:
        """`scratch` is the folder where an inventory is sorted; None: the system's own."""
        self.name, self.config, self.action = name, config, action
        self.records = config.records()
        self._data_class = data_class
        self._head = config.template().head
        self.described = f"objects of bucket {config.bucket} below {self._head!r}"
        self.place = Place(name, config)
        self._inventory = Inventory(config, self.place.bucket, scratch) if config.inventory is not None else None
        self._walks = Walks(self._head, self._inventory)
        self._reading = Reading(config)
        self._owners: Owners | None = None
        self._sources = Sources(config, self._reading)
        self._directory: AccountDirectory | None = None
        self._looking: list[Rulings] = []
        self._locks = Locks(OURS if config.native_holds else LONGEST)
        self._census = Census()

    def pair(self, owners: Owners) -> None:
        """From now on each object is owned by one of these rows; before it is opened."""
        self._owners, self._sources = owners, Sources(self.config, self._reading, owners)

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return self.config.store

    @property
    def fence(self) -> Literal["expiry"]:
        """The expiry of each request, by the endpoint's own clock."""
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
    def rests(self) -> bool:
        """Each page of a listing costs money."""
        return True

    @property
    def as_of(self) -> datetime | None:
        """When the inventory was begun by which it is judged."""
        return self._inventory.as_of if self._inventory is not None else None

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """Nothing refers to an object."""
        return frozenset()

    @property
    def mark(self) -> str:
        """Objects have no schema."""
        return ""

    @property
    def partitions(self) -> None:
        """Records go one by one."""
        return

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that the bucket can be read; raises Blind, Unreachable."""
        if self._owners is not None:
            await self._owners.open(accounts)
        self._directory = accounts
        await self.place.open()
        if self._inventory is not None:
            await self._inventory.look(self.place.listing)

    async def absent(self, keys: Collection[str]) -> frozenset[str]:
        """Which of these keys have nothing any more; also before it is opened. Raises Blind, Unreachable."""
        return await absent(self.place, keys)

    async def close(self) -> None:
        """Give up all connections."""
        await self._walks.close()
        if self._inventory is not None:
            await self._inventory.close()
        await self.place.close()

    async def extent(self) -> S3Extent:
        """The keys that it is over, which the configuration tells."""
        _, service, bucket, head = self.records
        return S3Extent(service, bucket, head)

    async def clock(self) -> ClockReading:
        """The endpoint's clock."""
        return await self.place.clock()

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        found = await inspect.findings(await self.place.bucket(), self.config, self.name, self._data_class)
        if self._inventory is not None:
            found += await inventory_findings(await self.place.bucket(), self.config, self.name, self._inventory)
        if self._owners is not None:
            found += await orphans.findings(await self.place.bucket(), self.config, self.name, self._owners)
        return found

    async def native_rules(self) -> Sequence[NativeRule]:
        """The bucket's lifecycle rules."""
        return await native_rules(await self.place.bucket(), self.config)

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of the directory."""
        return await self._directory.groups(class_name) if self._directory else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:  # noqa: ARG002 - rulings ask about each account
        """None beforehand: whether an account is missing is told when its records are listed."""
        return ()

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold as keys and accounts are compared here; one on a single version is on its key."""
        return await self.hold_by(hold, self._directory)

    async def hold_by(self, hold: Hold, directory: AccountDirectory | None) -> TargetHold:
        """The same, by this directory, for who asks before the target is opened."""
        found = await target_hold(hold, target=self.name, knows_account=self.config.knows_account, directory=directory)
        if found.records is None:
            return found
        return replace(found, records=found.records | {each for text in found.records for each in lookup.keys_in(text)})

    async def total(self) -> int:
        """How many records there are, by the last walk over all of them; else counted."""
        return self._census.total if self._census.total is not None else await self.counted(_ALL)

    async def counted(self, most: int) -> int:
        """How many records there are, but at most `most`."""
        found = 0
        for walk in self._all_walks():
            async with aclosing(self._listed(walk)) as listed:
                async for taken in listed:
                    found += len(taken.rows)
                    if found >= most:
                        return most
        return found

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:  # noqa: ARG002 - every rule needs every record
        """The walks that together reach every record."""
        return self._all_walks()

    async def shards(
        self,
        plan: TargetPlan,  # noqa: ARG002 - keys lie as they lie
        *,
        each: int,
        most: int,
    ) -> tuple[Window, ...]:
        """Stretches of keys; see `cuts`."""
        return await shards(await self.place.bucket(), self._head, self._census, each=each, most=most)

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:  # noqa: ARG002 - of the listing alone
        """What positions are of."""
        if walk == UPLOADS:
            return ("key", "upload")
        return ("key",) if self.place.listing == "objects" else ("key", "version")

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""
        total, after, rest = Tally(), window.after, window.size
        ground = self.ground()
        bucket = await self.place.bucket()
        async with self._walks.at(bucket, ground.listing(window.walk), after, window.until) as pages:
            while True:
                taken = await pages.take(after, min(rest, MOST))
                page = await self._sources.page(bucket, taken.rows)
                rulings = self._rulings(plan)
                await rulings.ask(accounts_of(page), self._directory)
                found, gone = self._reading.found(rulings, page, taken.rows, taken.torn), 0
                length = len(taken.rows)
                # A forecast is of what comes due meanwhile, which is most of the bucket.
                if taken.picture is not None and plan.now <= bucket.endpoint.clock.latest() + _FORECAST:
                    taken, found, gone = await as_it_is_now(ground, rulings, window.walk, taken, found)
                self._seen(replace(window, after=after), taken, found)
                found = await self._without_locked(plan, rulings, found, taken)
                one = replace(found.tally, after=taken.after, next_due=found.next_due, requests=taken.requests)
                if taken.picture is not None:
                    one = bounded(replace(one, gone=gone), plan, taken.picture)
                total = plus(total, one)
                after, rest = taken.after, rest - length
                if after is None or rest <= 0:
                    return total

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window."""
        return (await self.count(plan, window)).after

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many records the hold covers; those met by then where there is no time for all."""
        return await lookup.matches(self.ground(), hold, [self._listed(walk) for walk in self._all_walks()], seconds)

    async def beyond(self, plan: TargetPlan) -> Tally | None:  # noqa: ARG002 - a walk has seen all, whatever the plan
        """The oldest anchor of each tier, by the last walk over all records."""
        if self._census.total is None:
            return None
        return Tally(tiers={label: TierTally(first=first) for label, first in self._census.firsts.items()})

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """Which of the objects that were to go are gone."""
        return await looked_for(await self.place.bucket(), prepared, self._head)

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One object by its key, or one version by the JSON array of key and version id; raises NotFound."""
        return await lookup.record(self.ground(), plan, key)

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - each window tells it
        """Told by the windows of a sweep."""
        return None

    async def oldest(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - it depends on no rule
        """The oldest anchor by the last walk over all records; None where there was none."""
        return self._census.oldest

    async def vitals(self, signals: Collection[str]) -> Vitals:  # noqa: ARG002 - an endpoint tells none
        """An endpoint says that it is strained by SlowDown alone, which the requests themselves mind."""
        return Vitals()

    async def upkeep(self) -> None:
        """What objects leave behind is the endpoint's own."""
        return

    async def vacuum(self, seconds: float) -> None:
        """Nothing has to be."""

    async def require_unchanged(self) -> None:
        """Objects have no schema that could change."""

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[S3Batch]:
        """One window under the plan."""
        yield S3Batch(self.ground(), plan)

    def _all_walks(self) -> tuple[str, ...]:
        return (KEYS, UPLOADS) if self.config.uploads else (KEYS,)

    def ground(self) -> Ground:
        """What batches, questions about single objects and native holds stand on."""
        return Ground(
            self.name,
            self._head,
            self.place,
            self._walks,
            self._reading,
            self._sources,
            self._locks,
            self._directory,
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

    async def _without_locked(self, plan: TargetPlan, rulings: Rulings, found: Found, taken: Taken) -> Found:
        """The verdicts, with what Object Lock keeps of what is due among the held."""
        if self.place.has_lock and found.due:
            await self._locks.look(await self.place.bucket(), taken.rows, found.due, plan.now)
        return self._locks.apart(rulings, found, taken.rows, plan.now)

    def _seen(self, window: Window, taken: Taken, found: Found) -> None:
        self._census.seen(self._all_walks(), window, taken, found)

    async def _listed(self, walk: str) -> AsyncGenerator[Taken, None]:
        """All of a walk, judged by nobody."""
        bucket, after = await self.place.bucket(), None
        async with self._walks.at(bucket, self.ground().listing(walk), None, None) as pages:
            while True:
                taken = await pages.take(after, MOST)
                yield taken
                after = taken.after
                if after is None:
                    return
