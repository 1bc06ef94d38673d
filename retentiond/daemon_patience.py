"""What the daemon says of targets whose sweeps yield: in the log at first, and after a while by `/readyz`.

A yielding that outlasts one sweep goes on in the next: it is over when a batch is done, or the server is well.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from retentiond.errors import RetentiondError, Strained
from retentiond.sweep.events import Yielding

log = structlog.get_logger()

NOT_READY_SECONDS = 900.0
_AGAIN_SECONDS = 600.0
HEALTH = "health"
"""The part of a target's check that fails while its sweeps have yielded for long."""


class Faults(Protocol):
    """Where faults stand (`daemon_watch.Watch`)."""

    def fault(self, check: str, error: BaseException, *, part: str = "") -> None:
        """Let the check fail."""

    def clear(self, check: str, part: str = "") -> bool:
        """The part of the check is well."""

    def stands(self, check: str, part: str) -> bool:
        """Whether it fails."""


@dataclass(slots=True)
class _Rest:
    """Since when the sweeps of a target yield (monotonic), why, and when that was last logged."""

    since: float
    reason: str
    logged: float


@dataclass(slots=True)
class Patience:
    """The rests of all targets."""

    faults: Faults
    _rests: dict[str, _Rest] = field(default_factory=dict)

    def __call__(self, event: Yielding) -> None:
        """Note that a sweep rests, or goes on."""
        name, now = event.target.name, time.monotonic()
        if event.reason is None:
            self.goes_on(name)
            return
        rest = self._rests.setdefault(name, _Rest(now - event.seconds, "", now))
        if rest.reason != event.reason or now - rest.logged >= _AGAIN_SECONDS:
            rest.reason, rest.logged = event.reason, now
            seconds = round(now - rest.since, 1)
            log.info("yielding", sweep=event.sweep, target=name, reason=event.reason, why=event.told, seconds=seconds)
        if now - rest.since >= NOT_READY_SECONDS and not self.faults.stands(_check(name), HEALTH):
            self.faults.fault(_check(name), _too_long(name, event.told), part=HEALTH)

    def goes_on(self, target: str) -> None:
        """The target's sweeps yield no more."""
        rest = self._rests.pop(target, None)
        if rest is not None:
            log.info("going on", target=target, reason=rest.reason, seconds=round(time.monotonic() - rest.since, 1))
            self.faults.clear(_check(target), HEALTH)

    def swept(self, target: str, outcome: Mapping[str, object]) -> None:
        """A sweep is over: unless it was the rest that ended it, so is the rest."""
        error = outcome.get("error")
        if not (isinstance(error, Mapping) and error["kind"] == Strained().kind):
            self.goes_on(target)


def _check(target: str) -> str:
    return f"target {target}"


def _too_long(target: str, told: str) -> RetentiondError:
    return Strained(
        f"sweeps of target {target} have yielded for more than {NOT_READY_SECONDS / 60:.0f} minutes: {told}",
        remedy="see what the server is busy with; the thresholds are in pace.health of the target",
    )
