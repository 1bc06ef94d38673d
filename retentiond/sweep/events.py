"""Facts that a sweep tells whoever watches: metrics, progress, logs. The core knows none of them.

No event carries a record's or an account's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from retentiond.sweep.spec import Target


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch is committed and in the ledger."""

    target: Target
    sweep: str
    batch: str
    changed: int
    by_tier: Mapping[str, int]
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """A sweep is about to begin, and so many records were counted as due."""

    target: Target
    due: int


@dataclass(frozen=True, slots=True)
class SweepDone:
    """A sweep of one target is over; `outcome` is the shape of `sweep --json`."""

    target: Target
    sweep: str
    outcome: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Throttled:
    """The sweeper slept, and why (`duty`, `records_per_second`, or a signal of health)."""

    target: Target
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a batch of the target takes however small it is, where that is much of its budget: else 0 seconds."""

    target: Target
    seconds: float


@dataclass(frozen=True, slots=True)
class Yielding:
    """A sweep rests for what else its target's server has to do, and for how long it has; `reason` None: it goes on."""

    target: Target
    sweep: str
    reason: str | None
    told: str
    seconds: float


@dataclass(frozen=True, slots=True)
class VitalsRead:
    """How a target's server is: signals by name, in seconds or bytes."""

    target: Target
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong; `kind` is the error's name, `target` None where no single target is concerned.

    `trace` is where an unexpected one came from, without its text.
    """

    target: str | None
    kind: str
    message: str
    remedy: str | None = None
    sweep: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class GuardState:
    """A guard stops something or let it pass: a target's sweep, or everything where `target` is None."""

    guard: str
    tripped: bool
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ClocksRead:
    """How far the clocks of a target's sweep differ, in seconds."""

    target: str
    skew: float


@dataclass(frozen=True, slots=True)
class OldestSeen:
    """The oldest anchor of a target (UTC); None where there is none, or it would be dear to find."""

    target: Target
    anchor: datetime | None


Event = (
    BatchDone
    | Counted
    | SweepDone
    | Throttled
    | Overhead
    | Yielding
    | VitalsRead
    | Failed
    | GuardState
    | ClocksRead
    | OldestSeen
)

POLICY, CONTROL_ID, HOLD_NAMES = "policy", "control_id", "holds"
"""The guards that stand before everything rather than before one target's sweep."""

SWEEP_GUARDS = ("clock_skew", "clock_jump", POLICY, "directory", "fraction", "records")
"""The guards of a sweep, in the order in which it comes to them; `policy` is another one being in force."""

GUARDS = (*SWEEP_GUARDS, CONTROL_ID, HOLD_NAMES)
"""All guards."""


def guards_after(target: str, outcome: Mapping[str, object]) -> Iterator[GuardState]:
    """What the outcome of a target's sweep says of its guards; of those that it did not come to, nothing."""
    ended, error = outcome["outcome"], outcome["error"]
    if ended in ("drained", "capped"):
        yield from (GuardState(guard, tripped=False, target=target) for guard in SWEEP_GUARDS)
    elif ended == "guarded" and isinstance(error, Mapping):
        tripped = str(error.get("guard", POLICY))
        passed = SWEEP_GUARDS.index(tripped) if tripped in SWEEP_GUARDS else 0
        yield from (GuardState(guard, tripped=False, target=target) for guard in SWEEP_GUARDS[:passed])
        yield GuardState(tripped, tripped=True, target=target)


class Observer(Protocol):
    """Whoever wants to know; must not raise and must not wait."""

    def __call__(self, event: Event) -> None:
        """Take note of the event."""


def ignore(event: Event) -> None:
    """The observer that nobody set."""
    del event
