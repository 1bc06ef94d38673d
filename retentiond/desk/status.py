"""How all of it is: the mode, the pause, the holds, what waits for an operator; and each target and its sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retentiond.control import approvals, flags, overview, workers
from retentiond.control.database import Tx
from retentiond.control.flags import Flags
from retentiond.control.overview import Overview, UnitView
from retentiond.desk.base import Desk
from retentiond.desk.workers import anchors_of, work_document
from retentiond.domain.duration import rfc3339

_STATES = ("pending", "active", "releasing", "released")


@dataclass(frozen=True, slots=True)
class Standing:
    """The control database as it is, and how many questions wait in it."""

    seen: Overview
    flags: Flags
    waiting: int

    def document(self, desk: Desk) -> dict[str, object]:
        """As JSON; nothing in it changes while nothing happens."""
        seen, flags_ = self.seen, self.flags
        return {
            "mode": desk.rules.mode,
            "mode_in_force": seen.mode,
            "paused": flags_.paused,
            "paused_by": flags_.paused_by,
            "paused_at": _shown(flags_.paused_at),
            "paused_reason": flags_.paused_reason,
            "policy": {"digest": desk.spec.digest, "in_force": seen.digest},
            "targets": len(desk.spec.targets),
            "holds": {state: seen.holds.get(state, 0) for state in _STATES},
            "holds_review_overdue": seen.reviews_overdue,
            "waiting": self.waiting,
            "ledger_entries": seen.ledger_entries,
            "workers": dict(seen.workers),
        }


async def look(tx: Tx) -> Standing:
    """How things stand; raises StateMissing."""
    return Standing(await overview.read(tx), await flags.read(tx), len(await approvals.waiting(tx)))


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target's unit, what its workers are at, and how its last sweep ended, as `sweep --json` shows it."""

    unit: UnitView | None
    running: tuple[dict[str, Any], ...]
    last: Mapping[str, Any] | None
    waiting: int | None

    @property
    def next_due_at(self) -> str | None:
        """When something of it can be due; None: never, or not known."""
        return _shown(self.unit.next_due_at) if self.unit else None

    @property
    def last_success_at(self) -> str | None:
        """When a sweep last drained it."""
        return _shown(self.unit.last_success_at) if self.unit else None

    def sweeps(self) -> dict[str, object]:
        """Its sweeps as JSON."""
        return {
            "running": list(self.running),
            "last": dict(self.last) if self.last is not None else None,
            "finished_at": _shown(self.unit.finished_at) if self.unit else None,
            "last_success_at": self.last_success_at,
            "next_due_at": self.next_due_at,
        }


async def look_at_targets(desk: Desk, tx: Tx) -> dict[str, TargetView]:
    """All targets by name."""
    seen = await overview.read(tx)
    names = [target.name for target in desk.spec.targets]
    last = await overview.outcomes(tx, names)
    anchors, running = anchors_of(desk), dict[str, list[dict[str, Any]]]()
    for each in await workers.everybody(tx):
        for work in each.works:
            document = work_document(work, anchors.get(work.unit.target))
            kept = {name: value for name, value in document.items() if name not in _OF_THE_LEASE}
            running.setdefault(work.unit.target, []).append({"worker": each.worker.name, **kept})
    return {
        name: TargetView(seen.units.get(name), tuple(running.get(name, ())), last.get(name), seen.waiting.get(name))
        for name in names
    }


_OF_THE_LEASE = ("target", "lease_seconds", "crashes")


def _shown(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None
