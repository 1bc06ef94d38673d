"""What a sweep of one target came to, summed over its batches; the shape of `sweep --json` (3-interface)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retentiond.errors import Guarded, RetentiondError
from retentiond.stores.base import Tally, TierTally, earliest, latest

_ADDED = ("bytes", "held", "minimum", "unresolved", "blocked", "locked", "failed", "in_doubt", "batches")
_WORSE = ("drained", "capped", "paused", "guarded", "blind", "failed")


@dataclass(slots=True)
class Outcome:
    """Running totals of one sweep of one target.

    `oldest` and `newest` are anchors of what is due (or was erased), RFC 3339 in UTC. `tiers` are filled
    in by counting alone, `overdue_seconds` by that and by what batches left blocked; in a sweep that erases, `counted`
    is what its guard counted before the first batch. `gone`, `requested`, `requests` and `orphans` are as in a `Tally`,
    and so is `next_due`, the earliest of all windows. `basis` is what the verdicts rested on (`sweep.rest`); None: on
    more than one thing, or that is not told. `trace` is where an unexpected error came from, `upkeep` what a large
    sweep left to be vacuumed. `ceilings` are as in a `Tally`: what was told to erase by itself, or would be;
    `shortened` and `groups` as well.
    """

    outcome: str = "drained"
    action: str = "delete"
    scanned: int = 0
    changed: int = 0
    would: int = 0
    bytes: int = 0
    would_bytes: int = 0
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    blocked: int = 0
    locked: int = 0
    failed: int = 0
    in_doubt: int = 0
    gone: int = 0
    requested: int = 0
    requests: int = 0
    orphans: int = 0
    next_due: str | None = None
    basis: str | None = None
    batches: int = 0
    seconds: float = 0.0
    overdue_seconds: float = 0.0
    oldest: str | None = None
    newest: str | None = None
    error: dict[str, object] | None = None
    by_tier: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, TierTally] = field(default_factory=dict)
    counted: Outcome | None = None
    trace: str | None = None
    upkeep: dict[str, object] | None = None
    ceilings: dict[str, int] = field(default_factory=dict)
    shortened: int = 0
    groups: int = 0

    def judged(self, found: Tally) -> None:
        """Add a window that was judged and not touched."""
        self.would += found.selected
        self.would_bytes += found.bytes
        self.gone += found.gone
        self.overdue_seconds = max(self.overdue_seconds, found.overdue_seconds)
        for tier, tally in found.tiers.items():
            self.tiers[tier] = self.tiers.get(tier, TierTally()).plus(tally)
        self._both(found)

    def erased(self, found: Tally) -> None:
        """Add a batch that was committed."""
        self.changed += found.changed
        self.bytes += found.bytes
        self.failed += found.failed
        self.locked += found.locked
        self.gone += found.gone
        self.batches += 1
        self.overdue_seconds = max(self.overdue_seconds, found.overdue_seconds)
        self._both(found)

    def looked(self, found: Tally) -> None:
        """Add a window of a sweep that erases, in which nothing was due."""
        self.overdue_seconds = max(self.overdue_seconds, found.overdue_seconds)
        self.gone += found.gone
        self._both(found)

    def with_batch(self, found: Tally) -> Outcome:
        """What it comes to with that batch."""
        both = replace(self, by_tier=dict(self.by_tier), ceilings=dict(self.ceilings))
        both.erased(found)
        return both

    def resume(self, shown: Mapping[str, Any]) -> None:
        """Begin with what an earlier worker has erased in the same sweep; what it kept is met again."""
        self.changed += _changed(shown)
        self.bytes += shown["bytes"]
        self.batches += shown["batches"]
        self.oldest, self.newest = earliest(self.oldest, shown["oldest"]), latest(self.newest, shown["newest"])
        for tier, count in shown["by_tier"].items():
            self.by_tier[tier] = self.by_tier.get(tier, 0) + count

    def make_up_to(self, shown: Mapping[str, Any]) -> None:
        """Take over what was written of the same sweep, where that is more: a batch whose end was not heard of."""
        if shown["batches"] > self.batches:
            self.changed, self.bytes, self.batches, self.by_tier = 0, 0, 0, {}
            self.resume(shown)

    def add(self, shown: Mapping[str, Any]) -> None:
        """Add what was shown by `document` of a part of the same sweep; the worst end is that of the whole."""
        self.changed += _changed(shown)
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + shown[name])
        self.overdue_seconds = max(self.overdue_seconds, shown["overdue_seconds"] or 0.0)
        self.oldest = earliest(self.oldest, shown["oldest"])
        self.newest = latest(self.newest, shown["newest"])
        for tier, count in shown["by_tier"].items():
            self.by_tier[tier] = self.by_tier.get(tier, 0) + count
        if _WORSE.index(shown["outcome"]) > _WORSE.index(self.outcome):
            self.outcome, self.error = shown["outcome"], shown["error"]
        # What an earlier version has left has none of these.
        self.gone += shown.get("already_gone", 0)
        self.requested += shown.get("requested", 0)
        self.requests += shown.get("requests", 0)
        self.orphans += shown.get("orphans", 0)
        self.next_due = earliest(self.next_due, shown.get("next_due"))
        if self.basis != shown.get("basis"):
            self.basis = None

    def kept_as(self, counted: Outcome) -> None:
        """Nothing was due: what was kept is as it was counted."""
        self.held, self.minimum = counted.held, counted.minimum
        self.unresolved, self.blocked, self.orphans = counted.unresolved, counted.blocked, counted.orphans
        self.overdue_seconds = counted.overdue_seconds
        self.requests += counted.requests
        self.next_due = counted.next_due

    def rested(self, shown: Mapping[str, Any]) -> None:
        """Nothing can be due yet: what is kept is as the last sweep has found it."""
        for name in ("held", "minimum", "unresolved", "blocked"):
            setattr(self, name, shown[name])
        self.orphans = shown.get("orphans", 0)
        self.overdue_seconds = shown["overdue_seconds"] or 0.0

    def broken(self, error: RetentiondError, outcome: str) -> None:
        """The sweep ended early, and why."""
        self.outcome = outcome
        self.error = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
        if isinstance(error, Guarded):
            self.error["guard"] = error.guard

    @property
    def overdue(self) -> float | None:
        """Seconds that the oldest unheld due record is past its term, as last known; None: nobody has looked.

        A drained sweep has left nothing that is due but what is blocked; one that ended early left at most what its
        guard had counted.
        """
        if self.outcome != "drained":
            return self.counted.overdue_seconds if self.counted is not None else None
        if not self.would and not self.blocked and not self.requested:
            return 0.0
        # A record that can't be told how late it is has no term that ends, and is neither due nor blocked.
        return self.overdue_seconds or None

    def document(self, *, plan_mode: bool) -> dict[str, object]:
        """The JSON of this target."""
        shown: dict[str, object] = {
            "outcome": self.outcome,
            "erased": self.changed if self.action == "delete" else 0,
            "anonymised": self.changed if self.action == "anonymise" else 0,
            "archived": self.changed if self.action == "archive" else 0,
            "bytes": self.bytes,
            "held": self.held,
            "minimum": self.minimum,
            "unresolved": self.unresolved,
            "blocked": self.blocked,
            "orphans": self.orphans,
            "locked": self.locked,
            "failed": self.failed,
            "in_doubt": self.in_doubt,
            "requested": self.requested,
            "batches": self.batches,
            "seconds": round(self.seconds, 3),
            "overdue_seconds": self.overdue,
            "oldest": self.oldest,
            "newest": self.newest,
            "error": self.error,
            "upkeep": self.upkeep,
            "by_tier": dict(sorted(self.by_tier.items())),
        }
        if self.ceilings:
            shown["retention"] = dict(sorted(self.ceilings.items()))
        if plan_mode:
            shown["would_erase"] = self.would
            shown["would_erase_bytes"] = self.would_bytes
        return shown

    def state(self) -> dict[str, object]:
        """The same with what others who go on with the sweep, or look at it later, must know: kept beside the unit."""
        return {
            **self.document(plan_mode=False),
            "already_gone": self.gone,
            "requests": self.requests,
            "next_due": self.next_due,
            "basis": self.basis,
        }

    def evidence(self) -> dict[str, str | int | None]:
        """What the ledger is told of a sweep that a guard or an error ended; `due` None: it had not been counted."""
        kept = self.counted or self
        return {
            "outcome": self.outcome,
            "due": self.counted.would if self.counted is not None else None,
            "changed": self.changed,
            "held": kept.held,
            "minimum": kept.minimum,
            "unresolved": kept.unresolved,
            "blocked": kept.blocked,
            "failed": self.failed,
        }

    def _both(self, found: Tally) -> None:
        self.scanned += found.scanned
        self.held += found.held
        self.minimum += found.minimum
        self.unresolved += found.unresolved
        self.blocked += found.blocked
        self.requested += found.requested
        self.requests += found.requests
        self.orphans += found.orphans
        self.next_due = earliest(self.next_due, found.next_due)
        self.oldest = earliest(self.oldest, found.oldest)
        self.newest = latest(self.newest, found.newest)
        for tier, count in found.by_tier.items():
            self.by_tier[tier] = self.by_tier.get(tier, 0) + count
        self.shortened += found.shortened
        self.groups += found.groups
        for days, groups in found.ceilings.items():
            self.ceilings[days] = self.ceilings.get(days, 0) + groups


def _changed(shown: Mapping[str, Any]) -> int:
    return int(shown["erased"] + shown["anonymised"] + shown["archived"])
