"""What a kind of store has to know so that `DeferredStore` can do the rest: its server's questions and requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from retentiond.domain.clock import ClockReading
from retentiond.domain.native_expiry import NativeRule
from retentiond.stores.base import Finding, TierTally
from retentiond.stores.deferred.clauses import Clause


@dataclass(frozen=True, slots=True)
class Measured:
    """How many records there are of something, and their oldest and newest anchor."""

    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """An account that records name (None: none), with the tier that they name, and how many there are."""

    account: str | None
    tier: str | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Facets:
    """The next of them in the walk's order; `after` is where it goes on, None at its end."""

    found: tuple[Facet, ...]
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A deletion that the server has and may still carry out.

    `permit`: the number of ours that it says itself, where it says that. `asked`: what it says it was asked for.
    """

    id: str
    permit: int | None = None
    asked: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What the server says of a deletion: it works on it, it is done with it, or it has never heard of it.

    `told` is what stood in its way. Whatever it says, what is there is counted.
    """

    word: Literal["running", "done", "unknown"]
    told: str = ""


@dataclass(frozen=True, slots=True)
class Single:
    """One record, for `explain`."""

    key: str
    anchor: datetime | None
    account: str | None
    tier: str | None = None


class Backend(Protocol):
    """A server that erases by query. Each method raises Blind where we may not, Unreachable without an answer."""

    @property
    def follow_seconds(self) -> float:
        """How long its deletions usually take; 0: so long that nobody waits for it."""

    @property
    def told_by(self) -> tuple[str, str | None]:
        """What records name their anchor and their account by; None where they name no account."""

    @property
    def reach(self) -> timedelta | None:
        """How far back records are counted; None: all are."""

    @property
    def most_subjects(self) -> int:
        """Of how many accounts one query may be."""

    @property
    def hides(self) -> bool:
        """Whether its queries leave out what is asked to be deleted, before it is."""

    @property
    def settle_seconds(self) -> float:
        """For how long after it says that one is done queries may leave out what is there still."""

    def lingers(self, seconds: float) -> bool:
        """Whether one that was cancelled so many seconds after it was asked for may be carried out all the same.

        A hold waits for such a one until it is followed to its end.
        """

    async def open(self) -> None:
        """See that it can be asked and that deletions are possible."""

    async def close(self) -> None:
        """Give up all connections."""

    async def clock(self) -> ClockReading:
        """Its server's clock."""

    async def check(self) -> Sequence[Finding]:
        """What stands in the way, and what is unwise."""

    async def native_rules(self) -> Sequence[NativeRule]:
        """The rules by which it erases by itself."""

    async def facets(self, after: str | None, size: int, until: str | None) -> Facets:
        """The next accounts (and tiers) that records name, in an order of its own, as far as `until`."""

    async def measure(self, clauses: Sequence[Clause]) -> Sequence[Measured]:
        """How many records there are of each clause, as queries see them now."""

    async def total(self) -> Measured:
        """All records of the target."""

    async def single(self, key: str) -> Single:
        """One record by its key; raises NotFound."""

    def fit(self, clauses: Sequence[Clause]) -> Sequence[Clause]:
        """The same, in clauses that each fit into a query of it."""

    async def requests(self, clauses: Sequence[Clause]) -> Sequence[tuple[Mapping[str, Any], Sequence[Clause]]]:
        """The deletions that together are of just these clauses: each as JSON, and its own clauses.

        Raises Refused where something can't be said in a query of it; never without a bound of time and a term.
        """

    async def fence(self) -> str:
        """Make what deletions of one permit stand on, and without which the server refuses them; its name, or empty.

        Asked before the permit is: whoever is late with a deletion can't make it anew.
        """

    async def unfence(self, fence: str) -> bool:
        """Take it away, so that nothing more is taken on that stands on it; whether that is certain."""

    async def submit(self, permit: int, fence: str, what: Mapping[str, Any]) -> str:
        """Ask it for one deletion: the server's own name for it.

        Raises Refused where it surely did not take it on, and Unreachable where that is not known.
        """

    async def pending(self) -> Sequence[Pending]:
        """All deletions on the target that the server has and may still carry out, whosever they are."""

    async def find(self, permit: int, what: Mapping[str, Any]) -> str | None:
        """The server's name for a deletion that was asked for under that permit, if it works on it still."""

    async def cancel(self, id: str) -> str:
        """Ask it to cancel one; why it does not, empty where it said that it does. It is asked again by `pending`."""

    async def state(self, id: str, what: Mapping[str, Any], seconds: float, moved: float) -> State:
        """What it says of one that was asked for so many seconds ago, and cancelled or moved on so many ago."""

    async def forget(self, id: str) -> None:
        """Remove what the server has kept of one that is over, where it keeps anything and lets that go."""


class Known(Protocol):
    """A deletion as the control database remembers it."""

    @property
    def id(self) -> str:
        """The server's own name for it."""

    @property
    def place(self) -> tuple[str, ...]:
        """What its target was over when it was asked for."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What was asked for."""

    @property
    def seconds(self) -> float:
        """How long ago it was asked for."""

    @property
    def moved_seconds(self) -> float:
        """How long ago it moved on, or was called off."""

    @property
    def called_off(self) -> tuple[str, ...]:
        """The holds for which the server was asked to cancel it."""


class Memory(Protocol):
    """What the control database remembers of one target's deletions."""

    async def unfinished(self) -> Sequence[Known]:
        """Those that are not over; raises Unreachable."""

    async def intended(self) -> Sequence[tuple[int, float, Mapping[str, Any]]]:
        """What open permits are about to ask for: their numbers, ages in seconds, and what each wrote down before."""

    async def call_off(self, id: str, holds: Collection[str]) -> None:
        """The server was asked to cancel one, for these holds."""


def tally_of(clause: Clause, measured: Measured, shown: tuple[str | None, str | None]) -> TierTally:
    """What a clause's records come to; `shown` are its anchors as texts."""
    oldest, newest = shown
    if clause.kind == "held":
        return TierTally(held=measured.count, first=oldest)
    if clause.kind == "minimum":
        return TierTally(minimum=measured.count, first=oldest)
    if clause.kind == "unresolved":
        return TierTally(unresolved=measured.count, first=oldest)
    late = clause.late
    if clause.edge is not None and measured.oldest is not None and measured.count:
        late = max(late, (clause.edge - measured.oldest).total_seconds())
    late = max(late, 0.0) if measured.count else 0.0
    if clause.kind == "requested":
        return TierTally(first=oldest, overdue_seconds=late)
    return TierTally(due=measured.count, oldest=oldest, newest=newest, first=oldest, overdue_seconds=late)
