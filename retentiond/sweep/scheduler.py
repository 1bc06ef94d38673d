"""Whose turn it is: which units are to be announced to all workers now, or counted here in plan mode. Pure.

The control database says when a unit is due (`next_due_at`), and a sweep under enforcement moves that on. What it
can't say is kept here: what was announced, or came to nothing (plan mode, a defect, a control database that went away),
has its turn again only after a while, since an announcement may be lost; and a target that was being swept while
something was newly allowed is swept once more. Two processes that plan announce the same, which counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from retentiond.control.overview import Overview, UnitView
from retentiond.domain.permit import Unit
from retentiond.sweep.spec import Spec

_AGAIN = timedelta(seconds=60)
"""What is still due so long after it was announced is announced again."""

_SOON = timedelta(seconds=2)
_UNKNOWN = datetime.min.replace(tzinfo=UTC)

_PLAN_SHARE = 20
"""In plan mode a count is repeated after this many times its own duration: 5 % of the time."""


@dataclass(slots=True)
class Turns:
    """The turns of one process; `worker` is its name in leases."""

    spec: Spec
    worker: str
    _not_before: dict[str, datetime] = field(default_factory=dict)
    _was_due: dict[str, datetime | None] = field(default_factory=dict)
    _began: dict[str, datetime] = field(default_factory=dict)
    _again: set[str] = field(default_factory=set)
    _shards: dict[Unit, datetime] = field(default_factory=dict)
    _allowed: tuple[object, ...] | None = None

    def due(self, seen: Overview, working: Collection[str]) -> Sequence[str]:
        """The targets whose turn it is, those whose last one is longest ago first; `working` are being swept here."""
        if seen.allowed != self._allowed:
            if self._allowed is not None:
                self._again |= {*working, *(name for name, unit in seen.units.items() if unit.owner is not None)}
                self.forgive()
            self._allowed = seen.allowed
        names = [target.name for target in self.spec.targets if target.name not in working]
        due = [name for name in names if self._is_due(name, seen.units.get(name), seen.now)]
        return sorted(due, key=lambda name: self._began.get(name, _UNKNOWN))

    def shards_due(self, seen: Overview) -> Sequence[Unit]:
        """The shards of divided sweeps to announce now; those of targets that are not configured stay as they are."""
        self._shards = {unit: at for unit, at in self._shards.items() if unit in seen.open_shards and at > seen.now}
        known = {target.name for target in self.spec.targets}
        return [unit for unit in seen.open_shards if unit.target in known and unit not in self._shards]

    def announced(self, unit: Unit, seen: Overview, *, new: bool) -> None:
        """All workers have been told of it; not `new`: an earlier word of it is still in the queue, maybe just over."""
        after = min(self.spec.min_interval, _AGAIN) if new else _SOON
        if unit.shard:
            self._shards[unit] = seen.now + after
            return
        self.began(unit.target, seen)
        self._not_before[unit.target] = seen.now + after

    def began(self, target: str, seen: Overview) -> None:
        """The target is being swept from now on."""
        unit = seen.units.get(target)
        # A unit that has no row yet will have one, whose word then counts.
        self._was_due[target] = unit.next_due_at if unit else _UNKNOWN
        self._began[target] = seen.now
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
        self._shards.clear()

    def _is_due(self, target: str, unit: UnitView | None, now: datetime) -> bool:
        if unit is not None and unit.owner not in (None, self.worker):
            return False
        if target in self._again:
            return True
        next_due = unit.next_due_at if unit else None
        not_before = self._not_before.get(target)
        if not_before is not None and now < not_before and self._was_due.get(target) == next_due:
            return False
        return not self.spec.enforce or next_due is None or next_due <= now
