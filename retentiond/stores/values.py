"""What stores and sweepers hand one another: windows, tallies, findings; all of it frozen.

`stores.base` has the contract itself and gives these names on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from retentiond.errors import Refused

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
class Archived:
    """An object that has a batch's records: where it is, and the SHA-256 (hexadecimal) of it and of its manifest.

    `version`: its version id, None where the bucket keeps none. `size` in bytes, as it is stored.
    """

    bucket: str
    key: str
    version: str | None
    size: int
    sha256: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What a window held. `by_tier` counts what is due (or was erased); instants are RFC 3339 texts in UTC.

    `after` is where the walk goes on, None when it is at its end; `changed` counts records acted on. Only counting
    fills in `tiers` and `overdue_seconds`: how far the oldest unheld due record is past its term (or its account past
    the grace of its deletion), 0.0 where nothing is due. `verified` says how it is known what went; `whole` has the
    bounds of partitions that went as such, `archived` the object that has what went.

    `gone` counts what was due and was not there any more when it was to go. `in_doubt` counts what was asked for and
    not answered: it may still go, so the permit must not end before it can't. `next_due` is the earliest instant at
    which something that was seen and is not due yet can become so, as far as it depends on what was seen (None: never);
    only stores that `rest` fill it in. `requests`: how many calls to the server it took, where those are counted.
    `orphans`: those that no record of the target that they are paired with owns.
    `refusal`: why those that `failed` did, where the server said it.
    `requested` counts what the store was asked to erase and has not been seen to have erased yet.
    `ceilings`: in how many groups of records the time after which the store erases by itself changes (or was changed),
    by that time in days as a text, or `never`. Such a group is no record: it is in none of the counts but `failed`,
    `locked` and `in_doubt`. `shortened`: in how many of them it becomes finite or shorter, which erases. Only counting
    fills in `groups`: in how many it is set here at all.
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
    archived: Archived | None = None
    gone: int = 0
    in_doubt: int = 0
    next_due: str | None = None
    requests: int = 0
    orphans: int = 0
    refusal: Refused | None = None
    requested: int = 0
    ceilings: Mapping[str, int] = field(default_factory=dict)
    shortened: int = 0
    groups: int = 0

    @property
    def acts(self) -> bool:
        """Whether anything is to be done that takes a permit."""
        return bool(self.selected or self.ceilings)

    @property
    def done(self) -> int:
        """On how many records, and groups of them, it acted."""
        return self.changed + sum(self.ceilings.values())

    def by(self, tiers: Mapping[str, TierTally]) -> Tally:
        """With these tiers, and all that they tell in sum."""
        whole = TierTally()
        for tier in tiers.values():
            whole = whole.plus(tier)
        return replace(
            self,
            selected=whole.due,
            held=whole.held,
            minimum=whole.minimum,
            unresolved=whole.unresolved,
            bytes=whole.bytes,
            oldest=whole.oldest,
            newest=whole.newest,
            by_tier={label: tier.due for label, tier in tiers.items() if tier.due},
            tiers=tiers,
            overdue_seconds=whole.overdue_seconds,
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a batch that nobody wrote the outcome of.

    `committed`: all that was prepared happened; `aborted`: nothing did; `looked`: what is gone by now is in `found`
    (`changed`, `by_tier`, `bytes`, `oldest`, `newest`, `ids_digest`); `in progress`: it is not over; `unknown`: that
    can't be told, and never will be. `taken`: the requests of it that the store has and works on still.
    """

    kind: Literal["committed", "aborted", "looked", "in progress", "unknown"]
    found: Tally | None = None
    taken: tuple[Taken, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """A deletion that a store has taken on and carries out by itself: its own `id` for it, and what was `asked`.

    `asked` is a JSON document that the store alone reads; it names accounts, and is kept until the deletion is over.
    `selected` is how many records it was about, by tier.
    """

    id: str
    asked: Mapping[str, Any]
    by_tier: Mapping[str, int] = field(default_factory=dict)

    @property
    def selected(self) -> int:
        """How many records it was about."""
        return sum(self.by_tier.values())


Stage = Literal["requested", "hidden", "erased", "verified", "cancelled", "failed"]
"""How far such a deletion is: taken on; no longer seen by queries; carried out, as the store says; seen to be carried
out, by counting again; called off before it was; or over without having done all of it. The last three are ends."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a deletion is, and why it is not further. At its end `found` says what went (`changed`, `by_tier`, …)."""

    stage: Stage
    told: str = ""
    found: Tally | None = None


@dataclass(frozen=True, slots=True)
class Intended:
    """What a batch is about to ask for: how many records, and as JSON all that is needed to look for them afterwards.

    `shortened`: of how many groups of records, as in a `Tally`.
    The document names records; it is kept for as long as the permit is open, and never enters the ledger.
    """

    selected: int
    document: Mapping[str, Any]
    shortened: int = 0


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
