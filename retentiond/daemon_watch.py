"""What the daemon knows of itself: its observer, and the faults that stand until they are mended.

A fault is said once in the log when it begins, changes and ends, counted each time it is met, and shown by `/readyz`
under the name of its check for as long as it stands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from retentiond.daemon_patience import Patience
from retentiond.errors import Blind, Guarded, RetentiondError, Unexpected
from retentiond.metrics import Metrics
from retentiond.sweep.events import BatchDone, Event, Failed, GuardState, SweepDone, Yielding, guards_after

log = structlog.get_logger()
LOOK = "look"
"""The part of a target's check that a look at it fails, when there was no sweep yet."""

_BROKEN = ("guarded", "blind", "failed")
_TOLD = ("outcome", "erased", "anonymised", "archived", "held", "unresolved", "seconds")


class Watch:
    """The observer of all sweeps: metrics, logs without record or account ids, last outcomes, guards, faults."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.outcomes: dict[str, Mapping[str, object]] = {}
        self.guards: dict[str, set[str | None]] = {}
        self.ticked_at = time.monotonic()
        """When a tick of the loop last went well, by the monotonic clock."""
        self._faults: dict[tuple[str, str], RetentiondError] = {}
        self._patience = Patience(self)

    def __call__(self, event: Event) -> None:
        """Count, note and log the event."""
        self.metrics(event)
        if isinstance(event, BatchDone) and event.changed:
            log.info(
                "batch done",
                sweep=event.sweep,
                target=event.target.name,
                batch=event.batch,
                records=event.changed,
                bytes=event.bytes,
                seconds=round(event.seconds, 3),
            )
            self._patience.goes_on(event.target.name)
        elif isinstance(event, Yielding):
            self._patience(event)
        elif isinstance(event, SweepDone):
            self._sweep_done(event)
        elif isinstance(event, Failed):
            log.warning(
                "failed",
                sweep=event.sweep,
                target=event.target,
                kind=event.kind,
                message=event.message,
                remedy=event.remedy,
                **({"trace": event.trace} if event.trace else {}),
            )
        elif isinstance(event, GuardState):
            standing = self.guards.setdefault(event.guard, set())
            standing.add(event.target) if event.tripped else standing.discard(event.target)

    def _sweep_done(self, event: SweepDone) -> None:
        name, outcome = event.target.name, event.outcome
        self.outcomes[name] = outcome
        self._patience.swept(name, outcome)
        for part in ("", LOOK):
            self.clear(target_check(name), part)
        told = {key: outcome[key] for key in _TOLD}
        log.info("sweep done", sweep=event.sweep, target=name, **told)
        if upkeep := outcome.get("upkeep"):
            log.info("upkeep", sweep=event.sweep, target=name, **dict(upkeep) if isinstance(upkeep, Mapping) else {})

    def restore(self, target: str, outcome: Mapping[str, object]) -> None:
        """Take over how the target's last sweep ended before this process began."""
        self.outcomes[target] = outcome
        self.metrics.observe_outcome(target, outcome)
        for state in guards_after(target, outcome):
            self(state)

    def defect(self, error: BaseException) -> None:
        """Count and log an error that stands for nothing any more."""
        self.metrics(Failed(None, Unexpected.of(error).kind, ""))
        log.error("unexpected", exc_info=error)

    def stand(self, check: str, error: RetentiondError) -> None:
        """Let that check fail with what is meant to be so: neither counted nor logged."""
        self._faults[check, ""] = error

    def fault(self, check: str, error: BaseException, *, part: str = "") -> None:
        """Let that check fail with the error until `clear` of the same part; a defect is logged with its traceback."""
        ours = error if isinstance(error, RetentiondError) else Unexpected.of(error)
        self.metrics(Failed(None, ours.kind, ours.message))
        before = self._faults.get((check, part))
        self._faults[check, part] = ours
        if before is not None and before.message == ours.message:
            return
        told = {"check": check, "kind": ours.kind, "message": ours.message, "remedy": ours.remedy}
        if ours is error:
            log.warning("not well", **told)
        else:
            log.error("not well", **told, exc_info=error)

    def stands(self, check: str, part: str) -> bool:
        """Whether that part of the check fails."""
        return (check, part) in self._faults

    def clear(self, check: str, part: str = "") -> bool:
        """That part of the check is well; whether it was not."""
        if self._faults.pop((check, part), None) is None:
            return False
        log.info("well again", check=check)
        return True

    def require(self, check: str) -> None:
        """Raise the first fault that stands under that check."""
        for (name, _), error in self._faults.items():
            if name == check:
                raise error

    def require_swept(self, target: str) -> None:
        """Raise what ended the target's last sweep, if something did that must be mended."""
        self.require(target_check(target))
        outcome = self.outcomes.get(target, {})
        error = outcome.get("error")
        if outcome.get("outcome") in _BROKEN and isinstance(error, Mapping):
            raise Blind(str(error["message"]), remedy=str(error["remedy"] or "see the log of the sweep"))

    def require_guard(self, *guards: str) -> None:
        """Raise Guarded while one of these guards stops something."""
        for guard in guards:
            if standing := self.guards.get(guard):
                names = sorted(name for name in standing if name is not None)
                of = f" of {', '.join(names)}" if names else ""
                raise Guarded(
                    guard,
                    f"the guard {guard} stops the sweeps{of}",
                    remedy=self._remedy_of(names) or "see the log for what it found",
                )

    def _remedy_of(self, targets: list[str]) -> str | None:
        for name in targets:
            error = self.outcomes.get(name, {}).get("error")
            if isinstance(error, Mapping) and error["remedy"]:
                return str(error["remedy"])
        return None


def target_check(target: str) -> str:
    """The name of a target's check."""
    return f"target {target}"
