"""Whose turn it is: which targets this process begins to sweep now. Pure; the loop asks it once a tick.

The control database says when a unit is due (`next_due_at`), and a sweep under enforcement moves that on. What it can't
say is kept here: a sweep that wrote nothing (plan mode, a defect, a control database that went away) is not begun again
at every tick, and a target that was being swept while something was newly allowed is swept once more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from retentiond.control.overview import Overview, UnitView
from retentiond.sweep.spec import Spec

_PLAN_SHARE = 20
"""In plan mode a count is repeated after this many times its own duration: 5 % of the time."""


@dataclass(slots=True)
class Turns:
    """The turns of one process; `worker` is its name in leases."""

    spec: Spec
    worker: str
    _not_before: dict[str, datetime] = field(default_factory=dict)
    _was_due: dict[str, datetime | None] = field(default_factory=dict)
    _again: set[str] = field(default_factory=set)
    _allowed: tuple[object, ...] | None = None

    def due(self, seen: Overview, working: Collection[str]) -> Sequence[str]:
        """The targets to begin now; `working` are being swept."""
        if seen.allowed != self._allowed:
            if self._allowed is not None:
                self._again |= set(working)
                self._not_before.clear()
            self._allowed = seen.allowed
        names = [target.name for target in self.spec.targets if target.name not in working]
        return [name for name in names if self._is_due(name, seen.units.get(name), seen.now)]

    def began(self, target: str, seen: Overview) -> None:
        """The target is being swept from now on."""
        unit = seen.units.get(target)
        self._was_due[target] = unit.next_due_at if unit else None
        self._again.discard(target)

    def ended(self, target: str, now: datetime, *, seconds: float, drained: bool) -> None:
        """The sweep took so many seconds; `now` by the control database's clock."""
        wait = self.spec.min_interval
        if drained and not self.spec.enforce:
            wait = min(max(wait, timedelta(seconds=seconds * _PLAN_SHARE)), self.spec.max_interval)
        self._not_before[target] = now + wait

    def forgive(self) -> None:
        """Begin what is due without waiting: what failed may have failed for want of what is there again."""
        self._not_before.clear()

    def _is_due(self, target: str, unit: UnitView | None, now: datetime) -> bool:
        if unit is not None and unit.owner not in (None, self.worker):
            return False
        if target in self._again:
            return True
        next_due = unit.next_due_at if unit else None
        not_before = self._not_before.get(target)
        if not_before is not None and now < not_before and self._was_due.get(target) in (None, next_due):
            return False
        return not self.spec.enforce or next_due is None or next_due <= now
