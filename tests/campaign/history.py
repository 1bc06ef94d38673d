"""What the oracle judges by: everything that was seen of a campaign from outside, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.campaign.rules import Hold, Record
from tests.campaign.stream import Transaction


@dataclass(frozen=True, slots=True)
class Permit:
    """A permit as the control database has it at the end; `xid` of the transaction that it was used in, if it was."""

    number: int
    target: str
    issued_at: datetime
    xid: int | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A hold that was told to be active, to whoever placed it."""

    id: str
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """Erasing was paused: the answer to `pause` was received, and `resume` was asked for."""

    since: datetime
    until: datetime


@dataclass(slots=True)
class History:
    """A whole campaign. `confirmed`: when it was certain that a version of an account had been committed.

    `crashes`: of which database, and when. `known`: the accounts that a sweep had seen before the campaign began. `judged_at`: before the last sweep began.
    `takeovers`: sweeps that another worker went on with. `left`: the records at the end. `observed`: keys that a trigger of the table `watched` saw go.
    """

    transactions: list[Transaction] = field(default_factory=list)
    permits: list[Permit] = field(default_factory=list)
    ledger: list[Mapping[str, Any]] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    confirmed: dict[tuple[str, int], datetime] = field(default_factory=dict)
    crashes: list[tuple[str, datetime]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    grace: bool = False
    judged_at: datetime | None = None
    left: dict[str, Sequence[Record]] = field(default_factory=dict)
    observed: Sequence[str] | None = None
    open_permits: int = 0
    takeovers: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and the evidence."""

    kind: str
    evidence: str
