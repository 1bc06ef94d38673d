"""Is there anybody to announce what is due, and anybody to erase it? Each process judges it for all of them. Pure.

A worker without a scheduler hears nothing and a scheduler without a worker erases nothing, and either has no fault of
its own to show: so what is due and begun by nobody has to be looked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from retentiond.control.overview import Overview
from retentiond.domain.duration import rfc3339
from retentiond.errors import RetentiondError, Unattended
from retentiond.sweep.spec import Spec

_PARTS = {
    "announces what is due": ({"all", "scheduler"}, "retentiond run --scheduler-only"),
    "erases": ({"all", "worker"}, "retentiond run --worker-only"),
}
# A process that restarts is away for a moment, and one that was killed counts as living for a minute anyway.
_LACKING = timedelta(seconds=60)
_INTERVALS = 5
_LEAST = timedelta(seconds=60)


@dataclass(slots=True)
class Crew:
    """What is known of all processes together; instants are of the control database's clock."""

    spec: Spec
    _since: datetime | None = None
    _lacking_since: datetime | None = None

    def judge(self, seen: Overview, *, allowed: bool) -> RetentiondError | None:
        """What is wrong, if anything; `allowed`: sweeps may be begun. Where they may not, nothing is expected."""
        if not allowed or not self.spec.enforce:
            self._since = self._lacking_since = None
            return None
        self._since = self._since or seen.now
        return self._nobody(seen) or self._late(seen, self._since)

    def _nobody(self, seen: Overview) -> RetentiondError | None:
        lacking = {part: remedy for part, (roles, remedy) in _PARTS.items() if not _living(seen, roles)}
        self._lacking_since = (self._lacking_since or seen.now) if lacking else None
        if self._lacking_since is None or seen.now - self._lacking_since < _LACKING:
            return None
        return Unattended(
            f"no living process {' or '.join(lacking)}: nothing is swept",
            remedy=f"start {' and '.join(f'`{each}`' for each in lacking.values())}, or `retentiond run` for both",
        )

    def _late(self, seen: Overview, since: datetime) -> RetentiondError | None:
        """What has been due and without an owner for several intervals, all of them before our eyes."""
        patience = max(_INTERVALS * self.spec.min_interval, _LEAST)
        late: dict[str, datetime] = {}
        for target in self.spec.targets:
            unit = seen.units.get(target.name)
            due = unit.next_due_at if unit is not None and unit.owner is None else None
            if due is not None and seen.now - max(due, since) > patience:
                late[target.name] = due
        if not late:
            return None
        first = min(late, key=lambda name: late[name])
        return Unattended(
            f"nobody begins what is due in {len(late)} of the targets: in {first} since {rfc3339(late[first])}",
            remedy="see `retentiond workers`, and the logs and /readyz of those that it lists; where all are busy, "
            "start another or raise workers.concurrency",
        )


def _living(seen: Overview, roles: Collection[str]) -> bool:
    return any(seen.workers.get(role) for role in roles)
