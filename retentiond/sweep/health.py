"""When a sweep yields to what else its target's server has to do, judged from signals: pure, and what it is told by.

A signal has a threshold, and one that is above it makes the sweep rest before its next batch. Two are different:
`vacuum` is waited for until it has lasted as long as its threshold (deletes and a VACUUM hinder each other, but neither
blocks the other: a table that is always being vacuumed, or vacuumed against wraparound for days, must not keep its
records for ever), and `batch_latency` is what our own last batches tell, so that after a rest one batch tries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retentiond.stores.base import Vitals
from retentiond.sweep.spec import Health

PROMQL, LATENCY, VACUUM = "promql", "batch_latency", "vacuum"
SIGNALS: Mapping[str, str] = {
    "replica_lag": "a replica is {value:.1f} s behind, more than {limit:g} s",
    "replica_backlog": "a replica is {value:.0f} bytes of WAL behind, more than {limit:.0f}",
    "archive_backlog": "{value:.0f} bytes of WAL wait to be archived, more than {limit:.0f}",
    "retained_wal": "a replication slot retains {value:.0f} bytes of WAL, more than {limit:.0f}",
    VACUUM: "the table is being vacuumed or analyzed; it is waited for at most {limit:g} s",
    "lock_waits": "a session has waited {value:.1f} s for a lock on the table, more than {limit:g} s",
    "oldest_snapshot": "a transaction of {value:.0f} s keeps erased rows from being vacuumed, more than {limit:g} s",
    "response": "the server took {value:.2f} s to say how it is, more than {limit:g} s",
    LATENCY: "the last two batches took at least {value:.1f} times their budget, more than {limit:g}",
    PROMQL: "the expression is {value:g}, more than {limit:g}",
}
"""Every signal, and how it is told."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


@dataclass(frozen=True, slots=True)
class Strain:
    """Why a sweep yields: the signal that is furthest above its threshold, and its words."""

    reason: str
    told: str


def judge(health: Health, vitals: Vitals) -> Strain | None:
    """What keeps a sweep from its next batch; None: nothing does."""
    limits = dict(health.limits)
    if health.query is not None:
        limits[PROMQL] = health.query.threshold
    over = {
        name: _excess(value, limits[name])
        for name, value in vitals.values.items()
        if name in limits and _is_over(name, value, limits[name])
    }
    if not over:
        return None
    worst = max(over, key=lambda name: over[name])
    words = SIGNALS[worst].format(value=vitals.values[worst], limit=limits[worst])
    return Strain(worst, f"{words} (pace.health.{worst})")


def unreadable(health: Health, vitals: Vitals) -> Strain | None:
    """The first signal that somebody configured and that can't be read."""
    for name in sorted({*health.configured, *((PROMQL,) if health.query else ())}):
        if name in vitals.unread:
            return Strain(name, f"pace.health.{name} can't be read: {vitals.unread[name]}")
    return None


def _is_over(name: str, value: float, limit: float) -> bool:
    return 0 < value < limit if name == VACUUM else value > limit


def _excess(value: float, limit: float) -> float:
    return value / limit if limit > 0 else float("inf")


@dataclass(slots=True)
class Latency:
    """What the last batches say of the server, in multiples of their budget.

    One slow batch makes the next one smaller, and that mends it where the batch was too large; where a second one in a
    row is as slow, it was not the batch.
    """

    budget: float
    limit: float
    last: float = 0.0
    before: float = 0.0
    rests: int = 0
    trying: bool = False

    def took(self, seconds: float) -> None:
        """Note a batch."""
        self.before, self.last, self.trying = self.last, seconds / self.budget, False
        if self.last <= self.limit:
            self.rests = 0

    def value(self) -> float:
        """What two batches in a row have reached."""
        return 0.0 if self.trying else min(self.before, self.last)

    def try_again(self) -> None:
        """After a rest one batch may try; is it as slow as the one before, the next rest is longer."""
        self.trying = True
        self.rests += 1


def pause(number: int) -> float:
    """Seconds of the pause after so many others: twice the one before, up to where a sweep is back within a minute."""
    return float(min(_FIRST_PAUSE * 2 ** min(number, 16), _LONGEST_PAUSE))
