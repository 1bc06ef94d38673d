"""The contract of a store: what a sweeper asks of one target, whatever system holds its records.

A store walks its records in windows, judges each by SQL or code derived from the `TargetPlan`, and destroys only in
`Batch.erase`, which takes the permit. It never decides when, and never writes the ledger: that is the sweeper's work.

What makes a batch harmless whose worker does not come back differs (4-safety, "The batch"), and with it the order of a
batch; so there are kinds of stores, told apart by `fence`, and each has only the methods that its order needs:
`Transactional`, where one transaction is the batch; `Expiring`, where its requests are refused by the server itself
from a certain instant on; `Present`, where nobody but the worker itself is there to enforce anything; and `Deferring`,
which takes on deletions and carries them out later by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.permit import Outstanding, Permit
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.stores.accounts import AccountDirectory, AccountRow, Known, SurveyedDirectory
from retentiond.stores.values import (
    EXACT_BELOW,
    PARTITIONS,
    Archived,
    Fate,
    Finding,
    Index,
    Intended,
    Matches,
    Part,
    PartState,
    Progress,
    Severity,
    Stage,
    Taken,
    Tally,
    TierTally,
    Upkeep,
    Vitals,
    Way,
    Window,
    earliest,
    latest,
)

__all__ = [
    "EXACT_BELOW",
    "PARTITIONS",
    "AccountDirectory",
    "AccountRow",
    "AnyStore",
    "Archived",
    "Batch",
    "Deferring",
    "DeferringBatch",
    "Expiring",
    "ExpiringBatch",
    "Extent",
    "Fate",
    "Finding",
    "Index",
    "Intended",
    "Known",
    "Matches",
    "Part",
    "PartState",
    "Partitions",
    "Present",
    "PresentBatch",
    "Progress",
    "Severity",
    "Stage",
    "Store",
    "SurveyedDirectory",
    "Taken",
    "Tally",
    "TierTally",
    "TransactionBatch",
    "Transactional",
    "Upkeep",
    "Vitals",
    "Way",
    "Window",
    "earliest",
    "latest",
]


class Extent(Protocol):
    """Where a target's records lie."""

    def meets(self, other: object) -> bool:
        """Whether a record could be in both; never in two kinds of stores."""


class Batch(Protocol):
    """What destroys a window's due records, under a permit."""

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Destroy what is due in the window; raises Blind, Unreachable, Refused.

        In a transaction also Conflict, where it is a quick one. Of one that expires whatever is raised means that the
        requests' fate is not known: what the server refused or did not answer is counted instead.
        """


class TransactionBatch(Batch, Protocol):
    """One transaction against the target; it is rolled back unless `commit` is called."""

    connection: Any

    async def measured(self, window: Window) -> Window:
        """The window with its end, if that can be told already; asked after `erase`, while others are waited for."""

    async def commit(self) -> None:
        """Make it so; raises Refused where it surely was rolled back, else Unreachable."""


class ExpiringBatch(Batch, Protocol):
    """One window of a target whose server refuses requests from an instant on that stands in them.

    Asked in this order, under one plan: `looked`; where something is due and there is a permit `intended`; and when
    that is written down `erase`, for just what it named. Each request says the permit's `issued_at`, corrected by how
    far the server's clock is off, and an expiry no later than its `deadline`; one that is sent again keeps both.
    """

    async def looked(self, window: Window) -> Tally:
        """Read and judge the window, touching nothing; raises Blind, Unreachable, Refused."""

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """Judge what was looked at once more, by what the account directory says now: what is to go under the permit.

        Nothing is sent yet; raises Blind, Unreachable, Refused.
        """


class PresentBatch(Batch, Protocol):
    """One window of a target where nothing enforces a permit's end: what it destroys, its worker destroys itself.

    Asked in this order, under one plan: `looked`; where something is due `attend`, and then only the permit is asked
    for; `intended`; and when that is written down `erase`, for just what it named. Its context ends when the outcome
    is written, and with it the worker's presence: nothing may be under way then that could still destroy anything.
    """

    async def looked(self, window: Window) -> Tally:
        """Read and judge the window, touching none of its records; raises Blind, Unreachable, Refused.

        What `erase` is to put in the place of records may be made ready already, beside them.
        """

    async def attend(self) -> Mapping[str, Any]:
        """Be there from now on, for all to see who ask `fence_passed`; what they tell it by goes into the intent.

        Raises Unreachable while another worker is there, Blind, Refused.
        """

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """Judge what was looked at once more, by what the account directory says now: what is to go under the permit.

        Nothing is destroyed yet. Raises Blind, Unreachable, Refused, and Conflict where it has to be looked at again.
        """


class DeferringBatch(Protocol):
    """One window of a target that takes on deletions and carries them out later; asked in this order, under one plan.

    A deletion names no records but says which: each has a bound of time and the accounts or tiers that it is about,
    leaves out what is held, and is never without both.
    """

    async def looked(self, window: Window) -> Tally:
        """Judge the window, touching nothing; what was requested before and is not over is `requested`, and not due.

        Raises Blind, Unreachable, Refused.
        """

    async def ready(self) -> None:
        """Make what the fence needs at the server, before the permit is asked for; raises as `looked`."""

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """Judge it once more, by what the account directory says now: its document has what is to be asked for.

        Nothing is sent yet; raises Blind, Unreachable, Refused.
        """

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> tuple[Taken, ...]:
        """Ask the store for just what was intended: what it took on.

        Raises Refused where it surely took nothing of it, Strained where that is for now, and Unreachable where that is
        not known, or it took a part.
        """


class Partitions(Protocol):
    """The partitions of one target that may go as a whole."""

    @property
    def wanted(self) -> bool:
        """Whether whole ones are to go; those that an earlier sweep has left detached are brought back all the same."""

    def due(self, plan: Callable[[], TargetPlan]) -> AsyncIterator[tuple[Part, ...]]:
        """Those in which every record is due, as it looks from outside by the plan as it is then; a batch at a time."""

    def decline(self, parts: Sequence[Part]) -> None:
        """Don't offer these again."""

    def doubt(self, parts: Sequence[Part]) -> None:
        """The proof has left these, though they were offered: look more closely next time."""

    async def detaches(self) -> bool:
        """Whether they are detached before they go; else they are dropped as they are."""

    async def states(self, parts: Sequence[Part]) -> Mapping[int, PartState]:
        """How these stand now, by their numbers."""

    async def detach(self, part: Part) -> PartState:
        """Take it off its table without making anybody wait; how it stands then, GONE where others have taken it."""

    async def attach(self, part: Part) -> PartState:
        """Bring it back, also one that is half detached; how it stands then. Raises Refused where it can't be."""


class Store(Protocol):
    """One target of any kind, whatever its fence.

    `kind` is what the configuration calls it; `records` names what it is over (`TargetConfig.records`), and `described`
    says that to people. `address` tells one server and login from another and shows no secret: targets of one address
    can be reached together or not at all.

    `rests`: its windows tell when what they saw can next be due (`Tally.next_due`); after a sweep that has seen all of
    it, it is not looked at before that, as long as what the verdicts rest on stays the same.
    """

    name: str
    action: str
    records: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What the configuration calls this kind of store."""

    @property
    def described(self) -> str:
        """Its records in a few words, such as `table public.logs`."""

    @property
    def address(self) -> str:
        """A text that is the same for targets of one server and login."""

    @property
    def anchor(self) -> str | None:
        """What `order` calls the anchor, whose text in a position may be shown; None: positions name records."""

    @property
    def rests(self) -> bool:
        """Whether it need not be looked at before something can be due."""

    @property
    def as_of(self) -> datetime | None:
        """As of when its records are known, where they are known by a report that is older (UTC); None: as of now."""

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """What refers to records here and has to go first, by its `records`, as far as is known once it is open."""

    @property
    def mark(self) -> str:
        """Another text where its records' schema, as it was when last opened, is another; a plan is of one alone."""

    @property
    def partitions(self) -> Partitions | None:
        """Its partitions, where whole ones may be destroyed; None where records go one by one."""

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that the target can be swept as it is configured; before all else but `close`, `clock` and `extent`.

        `accounts` is given where its verdicts need it. Raises Blind, Unreachable.
        """

    async def close(self) -> None:
        """Give up all connections."""

    async def extent(self) -> Extent:
        """Where its records lie now; raises Unreachable."""

    async def clock(self) -> ClockReading:
        """The target's clock; raises Unreachable."""

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""

    async def native_rules(self) -> Sequence[NativeRule]:
        """The rules by which the store erases its records by itself; asked also of one that is not open.

        Raises Blind where they may not be seen, Unreachable.
        """

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct (tier, override) pairs that records of the target can have."""

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:
        """The accounts of its records that the directory lost, and whose records may be due by the plan for that."""

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold in the canonical text of the target's own columns."""

    async def total(self) -> int:
        """How many records there are, roughly where exactly would be dear."""

    async def counted(self, most: int) -> int:
        """How many records there are, but at most `most`: exact, however large the estimate is."""

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:
        """The walks that together reach every record that can be due."""

    async def shards(self, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:
        """The stretches, as windows without a size, that one of the walks can be cut into to be worked on side by side.

        About `each` records in one (0: whatever it comes to), `most` of them. Found without counting; none where it
        can't be, or is not worth it.
        """

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:
        """What a walk goes in the order of, so that a position kept from another day can be told to fit.

        Empty: none of another day does.
        """

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window (None: at its end), told without judging what is in it."""

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many records the hold covers, whatever their verdict; an estimate where counting takes longer."""

    async def beyond(self, plan: TargetPlan) -> Tally | None:
        """A bounded look at records at or after the plan's horizon: of each tier the oldest anchor (`tiers`).

        `after` None: those were all there are. None where it would be dear.
        """

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """What became of a batch that had prepared this, now that its fence has passed; raises Unreachable."""

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One record and what the directory says of its account; raises NotFound."""

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:
        """When the next record not yet due can become due; None: nothing in sight."""

    async def oldest(self, plan: TargetPlan) -> datetime | None:
        """The oldest finite anchor of the target (UTC); None where it has none, or to find it would be dear."""

    async def vitals(self, signals: Collection[str]) -> Vitals:
        """How its server is, by these signals and how long it took to say; raises Unreachable."""

    async def upkeep(self) -> Upkeep | None:
        """What erased records have left behind in its tables and indexes; raises Blind, Unreachable, Refused.

        None where that is none of ours.
        """

    async def vacuum(self, seconds: float) -> None:
        """Make what they left usable again; raises Blind where that is not allowed, Refused, Unreachable."""

    async def require_unchanged(self) -> None:
        """Raise Blind where what the target's SQL names is no longer as it was when opened, Unreachable."""


class Transactional(Store, Protocol):
    """A target where one transaction is the batch, and its end the fence: whoever asks for its lock gets it then."""

    @property
    def fence(self) -> Literal["transaction"]:
        """What makes a batch harmless whose worker does not come back."""

    async def holds_state(self, database: str, role: str) -> bool:
        """Whether a batch's transaction can write the control state as well: it is that database and that role."""

    def batch(self, plan: TargetPlan, number: int, way: Way) -> AbstractAsyncContextManager[TransactionBatch]:
        """Open the transaction whose end is the fence of permit `number`."""

    def settling(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """While a batch's transaction writes the control state as well: raises Unreachable for what then fails."""

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the transaction of that permit is over; raises Unreachable."""

    async def clear(self, batch: str, issued_at: datetime) -> None:
        """Remove what a batch has written elsewhere that surely took no effect, by its id and its permit's instant.

        What can't be removed now is left, and raises nothing.
        """


class Expiring(Store, Protocol):
    """A target whose server refuses a request from the instant on that stands in it: time alone is the fence."""

    @property
    def fence(self) -> Literal["expiry"]:
        """What makes a batch harmless whose worker does not come back."""

    def batch(self, plan: TargetPlan) -> AbstractAsyncContextManager[ExpiringBatch]:
        """Take up one window under the plan; nothing is open at the server meanwhile."""


class Present(Store, Protocol):
    """A target where nobody enforces a permit's end (files, providers by HTTP): its worker's presence is the fence."""

    @property
    def fence(self) -> Literal["presence"]:
        """What makes a batch harmless whose worker does not come back."""

    def batch(self, plan: TargetPlan) -> AbstractAsyncContextManager[PresentBatch]:
        """Take up one window under the plan."""

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the worker of that permit is shown to be gone, by what it has said of itself (`attended`).

        False while it is there, stopped or not. Raises Unreachable, and Blind, where that can't be told from here.
        """


class Deferring(Store, Protocol):
    """A target whose deletions are requests that run later by themselves, and can be cancelled until then."""

    @property
    def fence(self) -> Literal["request"]:
        """What makes a batch harmless whose worker does not come back."""

    @property
    def follow_seconds(self) -> float:
        """For how long a sweep waits for what it has asked for, before it leaves that to whoever follows it."""

    def batch(self, plan: TargetPlan) -> AbstractAsyncContextManager[DeferringBatch]:
        """Take up one window under the plan; nothing is open at the server meanwhile."""

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the store takes no request under that permit any more; raises Unreachable.

        A store that can refuse them from now on does so. What it had taken on before may still run.
        """

    async def progress(self, taken: Taken, *, stage: Stage, seconds: float, moved: float) -> Progress:
        """How far a deletion is that was asked for so many seconds ago, and came to that stage `moved` seconds ago.

        The store's own word that it is done is believed by nobody: then it is counted again. Raises Blind, Unreachable.
        """


AnyStore: TypeAlias = Transactional | Expiring | Present | Deferring
"""A store of any fence; `fence` tells which."""
