"""Facts that a sweep tells whoever watches: metrics, progress, logs. The core knows none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
class SweepDone:
    """A sweep of one target is over; `outcome` is the shape of `sweep --json`."""

    target: Target
    sweep: str
    outcome: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Throttled:
    """The sweeper slept, and why (`duty`, `records_per_second`)."""

    target: Target
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong; `kind` is the error's name."""

    target: str | None
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class GuardState:
    """A guard tripped, or let go."""

    guard: str
    tripped: bool


Event = BatchDone | SweepDone | Throttled | Failed | GuardState


class Observer(Protocol):
    """Whoever wants to know; must not raise and must not wait."""

    def __call__(self, event: Event) -> None:
        """Take note of the event."""


def ignore(event: Event) -> None:
    """The observer that nobody set."""
    del event
