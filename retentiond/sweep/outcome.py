"""What a sweep of one target came to, summed over its batches; the shape of `sweep --json` (3-interface)."""

from __future__ import annotations

from dataclasses import dataclass, field

from retentiond.errors import Guarded, RetentiondError
from retentiond.stores.base import Tally


@dataclass(slots=True)
class Outcome:
    """Running totals of one sweep of one target."""

    outcome: str = "drained"
    action: str = "delete"
    changed: int = 0
    would: int = 0
    bytes: int = 0
    held: int = 0
    minimum: int = 0
    unresolved: int = 0
    blocked: int = 0
    locked: int = 0
    failed: int = 0
    in_doubt: int = 0
    batches: int = 0
    seconds: float = 0.0
    error: dict[str, object] | None = None
    by_tier: dict[str, int] = field(default_factory=dict)

    def judged(self, found: Tally) -> None:
        """Add a window that was judged in plan mode."""
        self.would += found.selected
        self._kept(found)
        self._tiers(found)

    def erased(self, found: Tally) -> None:
        """Add a batch that was committed."""
        self.changed += found.changed
        self.bytes += found.bytes
        self.failed += found.failed
        self.locked += found.locked
        self.batches += 1
        self._kept(found)
        self._tiers(found)

    def kept_as(self, counted: Outcome) -> None:
        """Nothing was due: what was kept is as it was counted."""
        self.held, self.minimum = counted.held, counted.minimum
        self.unresolved, self.blocked = counted.unresolved, counted.blocked

    def broken(self, error: RetentiondError, outcome: str) -> None:
        """The sweep ended early, and why."""
        self.outcome = outcome
        self.error = {"kind": error.kind, "message": error.message, "remedy": error.remedy}
        if isinstance(error, Guarded):
            self.error["guard"] = error.guard

    def document(self, *, plan_mode: bool) -> dict[str, object]:
        """The JSON of this target."""
        shown: dict[str, object] = {
            "outcome": self.outcome,
            "erased": self.changed if self.action == "delete" else 0,
            "anonymised": self.changed if self.action == "anonymise" else 0,
            "archived": 0,
            "bytes": self.bytes,
            "held": self.held,
            "minimum": self.minimum,
            "unresolved": self.unresolved,
            "blocked": self.blocked,
            "locked": self.locked,
            "failed": self.failed,
            "in_doubt": self.in_doubt,
            "batches": self.batches,
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "by_tier": dict(sorted(self.by_tier.items())),
        }
        if plan_mode:
            shown["would_erase"] = self.would
        return shown

    def _kept(self, found: Tally) -> None:
        self.held += found.held
        self.minimum += found.minimum
        self.unresolved += found.unresolved
        self.blocked += found.blocked

    def _tiers(self, found: Tally) -> None:
        for tier, count in found.by_tier.items():
            self.by_tier[tier] = self.by_tier.get(tier, 0) + count
