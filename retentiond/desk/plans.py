"""What is due in a target, now and by a horizon, and how its promises stand: counted by the statements of sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from retentiond.desk.base import Desk
from retentiond.desk.promises import Promise, beyond
from retentiond.desk.targets import Broken, open_plan
from retentiond.domain.duration import Duration, expires_at, parse_duration, rfc3339
from retentiond.errors import DurationError, UsageError
from retentiond.stores.base import EXACT_BELOW, TierTally
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.parts import left_behind
from retentiond.sweep.plans import count_due
from retentiond.sweep.spec import Target

_FIGURES = ("records", "bytes", "oldest", "newest", "overdue_seconds", "held", "minimum", "unresolved", "blocked")
KEPT = ("held", "minimum", "unresolved", "blocked")
"""What is due and stays, by the names of its counts."""


class Watching(Protocol):
    """Who is told how far a target's count is: a terminal's progress."""

    def begin(self, name: str, doing: str, what: str, read: Callable[[], int] | None = None) -> None:
        """It begins; `read` says how many are `what` so far."""

    def end(self, name: str, told: str) -> None:
        """It is over, and what came of it."""


class _Nobody:
    """Where nobody watches."""

    def begin(self, name: str, doing: str, what: str, read: Callable[[], int] | None = None) -> None:
        pass

    def end(self, name: str, told: str) -> None:
        pass


_NOBODY = _Nobody()


@dataclass(frozen=True, slots=True)
class Planned:
    """What is due in a target now, and at the horizon if nothing were swept until then; `total` of its records.

    `as_of`: when the inventory was begun that it is judged by; None: by what there is now.
    """

    now: datetime
    due: Outcome
    until: datetime | None
    later: Outcome | None
    total: int
    as_of: datetime | None

    def document(self, tiers: Sequence[str]) -> dict[str, object]:
        """The plan of one target as JSON; `tiers` are always there, others where they have something."""
        by_tier = _by_tier(self.due, tiers)
        return {
            "now": rfc3339(self.now),
            "as_of": rfc3339(self.as_of) if self.as_of is not None else None,
            "total": {"records": self.total, "estimate": self.total >= EXACT_BELOW},
            **_figures(sum_of(self.due)),
            "by_tier": by_tier,
            "by_horizon": self._by_horizon(tiers) if self.later else None,
            "coming": self._coming(tiers) if self.later else None,
        }

    def _by_horizon(self, tiers: Sequence[str]) -> dict[str, object]:
        assert self.later is not None
        return {"estimate": True, **_figures(sum_of(self.later)), "by_tier": _by_tier(self.later, tiers)}

    def _coming(self, tiers: Sequence[str]) -> dict[str, object]:
        assert self.later is not None
        now, later = self.due.tiers, self.later.tiers
        names = [*tiers, *sorted({*now, *later} - set(tiers))]
        by_tier = {
            name: {
                "records": max(later.get(name, TierTally()).due - now.get(name, TierTally()).due, 0),
                "bytes": max(later.get(name, TierTally()).bytes - now.get(name, TierTally()).bytes, 0),
            }
            for name in names
        }
        total = {key: sum(each[key] for each in by_tier.values()) for key in ("records", "bytes")}
        return {"estimate": True, **total, "by_tier": by_tier}


def sum_of(outcome: Outcome) -> TierTally:
    """All tiers together."""
    total = TierTally()
    for tally in outcome.tiers.values():
        total = total.plus(tally)
    return total


def _figures(tally: TierTally) -> dict[str, object]:
    found = {name: getattr(tally, "due" if name == "records" else name) for name in _FIGURES}
    return found | {"overdue_seconds": round(tally.overdue_seconds, 3)}


def _by_tier(outcome: Outcome, tiers: Sequence[str]) -> dict[str, dict[str, object]]:
    more = sorted(name for name in set(outcome.tiers) - set(tiers) if has_something(outcome.tiers[name]))
    return {name: _figures(outcome.tiers.get(name, TierTally())) for name in (*tiers, *more)}


def has_something(tally: TierTally) -> bool:
    """Whether anything of the tier is due, or would be."""
    return bool(tally.due or any(getattr(tally, name) for name in KEPT))


async def looked_ahead(
    desk: Desk, target: Target, ahead: Duration | None, progress: Watching = _NOBODY
) -> Planned | Broken:
    """What is due in the target; never raises but UsageError, for a horizon that no calendar has."""
    due = Outcome(action=target.action)
    later = Outcome(action=target.action) if ahead else None
    progress.begin(target.name, "counting", "judged", lambda: due.scanned + (later.scanned if later else 0))
    try:
        store, now_plan = await open_plan(desk, target)
        await count_due(store, now_plan, due)
        until = expires_at(now_plan.now, ahead) if ahead else None
        if later is not None:
            if until is None:
                raise UsageError("the horizon lies past the year 9999", remedy="give a shorter one, such as P30D")
            await count_due(store, replace(now_plan, now=until), later)
        found = Planned(now_plan.now, due, until, later, await store.total(), store.as_of)
    except UsageError:
        raise
    except Exception as error:
        progress.end(target.name, "can't be read")
        return Broken.by(target.name, error)
    progress.end(target.name, f"{due.would} due")
    return found


def horizon(text: str, name: str) -> Duration:
    """The horizon that the text says; raises UsageError, which calls it by `name`."""
    try:
        return parse_duration(text)
    except DurationError as error:
        # The remedy of terms offers `forever`, by which nothing can be foretold.
        raise UsageError(f"{name} {error.message}", remedy="write an ISO 8601 duration such as P30D or P1Y") from error


def plan_document(target: Target, found: Planned | Broken, tiers: Sequence[str]) -> dict[str, object]:
    """One target of `plan --json`."""
    head: dict[str, object] = {"class": target.data_class.name, "action": target.action}
    if isinstance(found, Broken):
        return {**head, "error": found.document()}
    return {**head, "error": None, **found.document(tiers)}


async def judged(desk: Desk, target: Target, progress: Watching = _NOBODY) -> Promise | Broken:
    """How the target stands to its promises; never raises."""
    outcome = Outcome(action=target.action)
    progress.begin(target.name, "judging", "judged", lambda: outcome.scanned)
    try:
        store, made = await open_plan(desk, target)
        if (left := await left_behind(desk.database, store)) is not None:
            raise left
        await count_due(store, made, outcome)
        promise = await beyond(store, made, outcome, desk.spec.policy.tiers)
    except Exception as error:
        progress.end(target.name, "can't be read")
        return Broken.by(target.name, error)
    progress.end(target.name, f"{outcome.would} overdue")
    return promise
