"""A target whose server erases by query and later: everything that such stores have in common.

What differs is the server, and is a `Backend`. Records are judged by account (and tier) and not one by one, see
`clauses`; so one walk over the accounts that records name reaches all of them.
"""

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
from retentiond.domain.permit import Outstanding
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import Blind
from retentiond.stores.base import (
    AccountDirectory,
    Fate,
    Finding,
    Matches,
    Progress,
    Stage,
    Taken,
    Tally,
    Vitals,
    Window,
)
from retentiond.stores.deferred.backend import Backend, Memory
from retentiond.stores.deferred.batch import DeferredBatch, Ground, looked_for, progress
from retentiond.stores.deferred.clauses import Clause, Range
from retentiond.stores.holding import target_hold
from retentiond.stores.rulings import Rulings

_PREPARING_SECONDS: Final = 10.0
"""What the transaction may take, at most, that writes down what is about to be asked for."""
ACCOUNTS: Final = "accounts"
"""The one walk: over the accounts that records name, those that name none among them."""


ELSEWHERE: Final = "configure the target as it was until its deletions are over, and give the new one another name"


@dataclass(frozen=True, slots=True)
class DeferredExtent:
    """The records that a configuration names, which is all that can be told of where they lie."""

    records: tuple[str, ...]

    def meets(self, other: object) -> bool:
        """Whether a record could be of both."""
        return self == other


@dataclass(frozen=True, slots=True)
class Identity:
    """What a target is called: its name, kind, what it is over, and the server with its login in one text."""

    name: str
    kind: str
    action: str
    records: tuple[str, ...]
    described: str
    address: str
    knows_account: bool
    by_tier: bool


class DeferredStore:
    """One target; see `stores.base.Deferring` for what each method promises."""

    def __init__(self, identity: Identity, backend: Backend) -> None:
        self.name, self.action, self.records = identity.name, identity.action, identity.records
        self.backend = backend
        self.memory: Memory | None = None
        self._identity = identity
        self._directory: AccountDirectory | None = None

    def remember(self, memory: Memory) -> None:
        """From now on it is known what was asked for before; before it is opened."""
        self.memory = memory

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return self._identity.kind

    @property
    def described(self) -> str:
        """Its records in a few words."""
        return self._identity.described

    @property
    def address(self) -> str:
        """The same for targets of one server and login."""
        return self._identity.address

    @property
    def fence(self) -> Literal["request"]:
        """What its server took on can be asked for and cancelled."""
        return "request"

    @property
    def follow_seconds(self) -> float:
        """How long its deletions usually take."""
        return self.backend.follow_seconds

    @property
    def anchor(self) -> None:
        """Positions name accounts."""
        return

    @property
    def as_of(self) -> None:
        """Its server is asked as it is now."""

    @property
    def rests(self) -> bool:
        """A look costs a query or two, and no money."""
        return False

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """Nothing refers to its records."""
        return frozenset()

    @property
    def mark(self) -> str:
        """It has no schema that plans are of."""
        return ""

    @property
    def partitions(self) -> None:
        """Records go by query."""
        return

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that it can be asked; raises Blind, Unreachable."""
        self._directory = accounts
        await self.backend.open()

    async def close(self) -> None:
        """Give up all connections."""
        await self.backend.close()

    async def extent(self) -> DeferredExtent:
        """What it is over."""
        return DeferredExtent(self.records)

    async def clock(self) -> ClockReading:
        """The server's clock."""
        return await self.backend.clock()

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        found = list(await self.backend.check())
        for each in await self.memory.unfinished() if self.memory is not None else ():
            if each.place != self.records:
                why = f"deletion {each.id} was asked for at {' '.join(each.place)}, which the target is no more over"
                found.append(Finding("error", self.name, why, ELSEWHERE))
        return found

    async def native_rules(self) -> Sequence[NativeRule]:
        """The rules by which the server erases by itself."""
        return await self.backend.native_rules()

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of the directory."""
        return await self._directory.groups(class_name) if self._directory else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:  # noqa: ARG002 - rulings ask about each account
        """None beforehand: whether an account is missing is told when its records are met."""
        return ()

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold as accounts are compared here."""
        return await self.hold_by(hold, self._directory)

    async def hold_by(self, hold: Hold, directory: AccountDirectory | None) -> TargetHold:
        """The same, by this directory. What is on single records can't be left out: it is on all of them."""
        found = await target_hold(
            hold, target=self.name, knows_account=self._identity.knows_account, directory=directory
        )
        return replace(found, records=None, prefixes=())

    async def total(self) -> int:
        """How many records there are."""
        return (await self.backend.total()).count

    async def counted(self, most: int) -> int:
        """How many records there are, but at most `most`."""
        return min(await self.total(), most)

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:  # noqa: ARG002 - every rule needs every account
        """The one walk."""
        return (ACCOUNTS,)

    async def shards(self, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:  # noqa: ARG002 - one server does it all
        """None: the work is the server's, however many ask for it."""
        return ()

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:  # noqa: ARG002 - there is one
        """What positions are of."""
        return ("account", "tier") if self._identity.by_tier else ("account",)

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it; what was asked for and is there still is late, and not due again."""
        return await DeferredBatch(self._ground(), plan).looked(window)

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window."""
        return (await self.count(plan, window)).after

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:  # noqa: ARG002 - the server's own timeout bounds it
        """How many records the hold covers."""
        total, after = 0, None
        while True:
            facets = await self.backend.facets(after, self.backend.most_subjects, None)
            accounts = [each.account for each in facets.found]
            given = [each for each in accounts if each is not None]
            texts = await self._directory.canonical(given) if self._directory is not None and given else {}
            span = Range(hold.since, hold.until, undated=True)
            covered = [
                each
                for each in facets.found
                if hold.accounts is None
                or (each.account is not None and texts.get(each.account, each.account) in hold.accounts)
            ]
            clauses = [
                Clause("held", "", span, (each.account,), (None,), each.tier, self._identity.by_tier)
                for each in covered
            ]
            total += sum(found.count for found in await self.backend.measure(clauses)) if clauses else 0
            after = facets.after
            if after is None:
                return Matches(total, exact=True)

    async def beyond(self, plan: TargetPlan) -> Tally | None:  # noqa: ARG002 - not told by tier
        """Nothing more than what is due is told by tier."""
        return None

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """What the server has of what was to be asked for, and of the rest what is gone."""
        requests = prepared["intended"]["requests"]
        if not requests:
            return Fate("aborted")
        permit = requests[0]["permit"]
        ages = {number: age for number, age, _ in await self.memory.intended()} if self.memory is not None else {}
        taken, gone = await looked_for(self.backend, permit, prepared["intended"], ages.get(permit, 0.0))
        return Fate("looked", replace(gone, failed=0 if taken else gone.failed), taken)

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One record by its key; raises NotFound."""
        single = await self.backend.single(key)
        rulings = Rulings(plan)
        await rulings.ask([single.account], self._directory)
        account, facts = rulings.facts(single.account)
        tier = single.tier if self._identity.by_tier else plan.tier
        return RecordFacts(single.key, single.anchor, account, tier), facts

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - looked for at the usual interval
        """Not told."""
        return None

    async def oldest(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - of all records
        """The oldest anchor."""
        return (await self.backend.total()).oldest

    async def vitals(self, signals: Collection[str]) -> Vitals:  # noqa: ARG002 - it tells none
        """A server says that it is strained by 429 alone, which its client minds."""
        return Vitals()

    async def upkeep(self) -> None:
        """What deletions leave behind is the server's own."""
        return

    async def vacuum(self, seconds: float) -> None:
        """Nothing has to be."""

    async def require_unchanged(self) -> None:
        """There is no schema that could change."""

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[DeferredBatch]:
        """One window under the plan."""
        batch = DeferredBatch(self._ground(), plan)
        try:
            yield batch
        finally:
            await batch.close()

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the server takes on nothing under that permit any more."""
        if permit.prepared is None:
            # Nothing is sent before it is prepared, which is refused after the deadline.
            return permit.left(_PREPARING_SECONDS) < 0
        if permit.prepared["place"] != list(self.records):
            raise Blind(
                f"permit {permit.number} is of a batch at {' '.join(permit.prepared['place'])}, "
                f"which target {self.name} is no more over",
                remedy=ELSEWHERE,
            )
        fence = permit.prepared["intended"].get("fence", "")
        if fence:
            return await self.backend.unfence(fence)
        return permit.left(0.0) < 0

    async def progress(self, taken: Taken, *, stage: Stage, seconds: float, moved: float) -> Progress:
        """How far a deletion is."""
        return await progress(self.backend, taken, stage=stage, seconds=seconds, moved=moved)

    def _ground(self) -> Ground:
        return Ground(self.backend, self._directory, self.memory, self._identity.by_tier, self.records)
