"""The contract of a store: what a sweeper asks of one target, whatever system holds its records.

A store walks its records in windows, judges each by SQL or code derived from the `TargetPlan`, and destroys only in
`Batch.erase`, which takes the permit. It never decides when, and never writes the ledger: that is the sweeper's work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.permit import Permit
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts

Severity = Literal["error", "warning", "info"]
EXACT_BELOW = 200_000
"""A store's total at or above this is an estimate, which may be wrong by any factor."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` found: how bad, about what, and the SQL or command that mends it."""

    severity: Severity
    subject: str
    message: str
    remedy: str = ""


PARTITIONS = "partitions"
"""No walk over records: the window of a batch that destroys whole partitions."""


@dataclass(frozen=True, slots=True)
class Part:
    """A partition: the number and quoted name of its table, and by which bounds it is attached.

    `records` is an estimate; `checks` are its own constraints, as they were while it was attached.
    """

    number: int
    name: str
    bounds: str
    records: int = 0
    checks: tuple[str, ...] = ()


class PartState(StrEnum):
    """How a table stands to the one that it is, or was, a partition of."""

    ATTACHED = "attached"
    PENDING = "detach pending"
    """Half detached: queries of the whole no longer see it."""
    DETACHED = "detached"
    GONE = "gone"
    """There is no such table any more, or it is a part of another."""


@dataclass(frozen=True, slots=True)
class Window:
    """The next piece of a walk: after which position (texts in the walk's order), at most how many records.

    With `until` the walk ends at that position. `end` is that of the window's last record, where it was found out
    before (`Batch.measured`). A window of `PARTITIONS` has `parts`, and is not of a walk.
    """

    walk: str
    after: tuple[str, ...] | None
    size: int
    until: tuple[str, ...] | None = None
    end: tuple[str, ...] | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class TierTally:
    """What the records of one tier come to, as counted; instants are RFC 3339 texts in UTC.

    `bytes`, `oldest`, `newest` and `overdue_seconds` speak of what is due; `first` is the oldest anchor of all, due or
    not.
    """

    due: int = 0
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    blocked: int = 0
    bytes: int = 0
    oldest: str | None = None
    newest: str | None = None
    first: str | None = None
    overdue_seconds: float = 0.0

    def plus(self, other: TierTally) -> TierTally:
        """Both together."""
        return TierTally(
            due=self.due + other.due,
            held=self.held + other.held,
            minimum=self.minimum + other.minimum,
            unresolved=self.unresolved + other.unresolved,
            blocked=self.blocked + other.blocked,
            bytes=self.bytes + other.bytes,
            oldest=earliest(self.oldest, other.oldest),
            newest=latest(self.newest, other.newest),
            first=earliest(self.first, other.first),
            overdue_seconds=max(self.overdue_seconds, other.overdue_seconds),
        )


def earliest(*moments: str | None) -> str | None:
    """The earliest of RFC 3339 texts of one width in UTC, whose order is that of the instants; None: none is known."""
    return min((moment for moment in moments if moment is not None), default=None)


def latest(*moments: str | None) -> str | None:
    """The latest of such texts."""
    return max((moment for moment in moments if moment is not None), default=None)


@dataclass(frozen=True, slots=True)
class Matches:
    """How many records a hold's scope covers in one target; `exact` is False for an estimate."""

    records: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """What a window held. `by_tier` counts what is due (or was erased); instants are RFC 3339 texts in UTC.

    `after` is where the walk goes on, None when it is at its end; `changed` counts records acted on. Only counting
    fills in `tiers` and `overdue_seconds`: how far the oldest unheld due record is past its term (or its account past
    the grace of its deletion), 0.0 where nothing is due. `verified` says how it is known what went; `whole` has the
    bounds of partitions that went as such.
    """

    scanned: int = 0
    selected: int = 0
    changed: int = 0
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    blocked: int = 0
    locked: int = 0
    failed: int = 0
    bytes: int = 0
    oldest: str | None = None
    newest: str | None = None
    ids_digest: str | None = None
    by_tier: Mapping[str, int] = field(default_factory=dict)
    tiers: Mapping[str, TierTally] = field(default_factory=dict)
    overdue_seconds: float = 0.0
    after: tuple[str, ...] | None = None
    transaction: str | None = None
    verified: str = "returning"
    whole: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a store's server is: a number for each signal, in seconds or bytes, and why others can't be told."""

    values: Mapping[str, float] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Index:
    """An index after a large sweep: its size, and how much of that holds nothing; by the planner's statistics, or
    `measured`. None: it can't be estimated.
    """

    name: str
    bytes: int
    empty: int | None
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a large sweep left behind: rows that are dead and alive by the statistics, and the indexes.

    `advice` is the SQL that makes the space usable again.
    """

    dead: int
    live: int
    indexes: tuple[Index, ...]
    advice: str


class Way(StrEnum):
    """How a batch gets on with other transactions that have the same records."""

    QUICK = "quick"
    """As fast as can be; it may give up for them with Conflict."""
    CAREFUL = "careful"
    """It leaves out what they hold, and judges again what they change."""
    PATIENT = "patient"
    """It waits for what they hold, for a while."""
    WHOLE = "whole"
    """It destroys whole partitions, and nothing where it can't have them to itself."""


@dataclass(frozen=True, slots=True)
class Known:
    """An account that the directory has: its id in the canonical text of the directory's own type, and what it says.

    `written` is the id as the directory writes it, by which it is remembered, where that differs (`citext`); and
    `changed_at` is when its tier last changed, where the directory dates that. Which grace follows from it is for the
    plan to say: `facts.in_grace` is false.
    """

    id: str
    facts: AccountFacts
    written: str | None = None
    changed_at: datetime | None = None


class AccountDirectory(Protocol):
    """The account directory, for stores that can't join it: asked about the accounts of a page."""

    async def known(self, class_name: str, ids: Collection[str]) -> Mapping[str, Known]:
        """What it says now of these accounts, by the ids as given, the override being that of the class.

        Ids that it does not have, or that can't be of its type, are absent. Raises Blind, Unreachable.
        """

    async def canonical(self, ids: Collection[str]) -> Mapping[str, str]:
        """The ids in the canonical text of its type, by which holds compare them; those that can't be are absent."""

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct (tier, override) pairs of its accounts."""


class Batch(Protocol):
    """One transaction against the target; it is rolled back unless `commit` is called."""

    connection: Any

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Destroy what is due in the window; raises Blind, Unreachable, Refused, and of a quick batch Conflict."""

    async def measured(self, window: Window) -> Window:
        """The window with its end, if that can be told already; asked after `erase`, while others are waited for."""

    async def commit(self) -> None:
        """Make it so; raises Refused where it surely was rolled back, else Unreachable."""


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
    """One target of any kind.

    `records` names what it is over (`TargetConfig.records`).
    """

    name: str
    action: str
    records: tuple[str, ...]

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """What refers to records here and has to go first, by its `records`, as far as is known once it is open."""

    @property
    def mark(self) -> str:
        """Another text where its records' schema, as it was when last opened, is another; a plan is of one alone."""

    @property
    def partitions(self) -> Partitions | None:
        """Its partitions, where whole ones may be destroyed; None where records go one by one."""

    async def close(self) -> None:
        """Give up all connections."""

    async def clock(self) -> ClockReading:
        """The target's clock; raises Unreachable."""

    async def holds_state(self, database: str, role: str) -> bool:
        """Whether a batch's transaction can write the control state as well: it is that database and that role."""

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""

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

    def batch(self, plan: TargetPlan, number: int, way: Way) -> AbstractAsyncContextManager[Batch]:
        """Open the transaction whose end is the fence of permit `number`."""

    def settling(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """While a batch's transaction writes the control state as well: raises Unreachable for what then fails."""

    async def fence_passed(self, number: int) -> bool:
        """Whether the transaction of that permit is over; raises Unreachable."""

    async def fate(self, transaction: str) -> str:
        """What became of a `Tally.transaction`: `committed`, `aborted`, `in progress` or `unknown`."""

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One record and what the directory says of its account; raises NotFound."""

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:
        """When the next record not yet due can become due; None: nothing in sight."""

    async def oldest(self, plan: TargetPlan) -> datetime | None:
        """The oldest finite anchor of the target (UTC); None where it has none, or to find it would be dear."""

    async def vitals(self, signals: Collection[str]) -> Vitals:
        """How its server is, by these signals and how long it took to say; raises Unreachable."""

    async def upkeep(self) -> Upkeep:
        """What erased records have left behind in its tables and indexes; raises Blind, Unreachable, Refused."""

    async def vacuum(self, seconds: float) -> None:
        """Make what they left usable again; raises Blind where that is not allowed, Refused, Unreachable."""

    async def require_unchanged(self) -> None:
        """Raise Blind where what the target's SQL names is no longer as it was when opened, Unreachable."""
