"""Prometheus metrics: an observer that counts what sweeps tell, and gauges that the daemon sets.

Every series of a configured target exists from the start, and labels are bounded by the configuration. The only module
that knows the metrics library.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from retentiond.sweep.events import BatchDone, Event, Failed, GuardState, SweepDone, Throttled
from retentiond.sweep.spec import Target

_PREFIX = "retentiond"
_BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_SWEEP_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200)
_HOLD_STATES = ("pending", "active", "releasing", "released")
_REASONS = ("duty", "records_per_second")


class Metrics:
    """All series of one process, in a registry of its own."""

    def __init__(self, targets: Sequence[Target], tiers: Sequence[str], *, version: str, mode: str) -> None:
        self.registry = CollectorRegistry()
        of_records = ("target", "class", "tier")
        self._erased = self._counter("records_erased", "Records deleted", of_records)
        self._anonymised = self._counter("records_anonymised", "Records anonymised", of_records)
        self._archived = self._counter("records_archived", "Records archived and then deleted", of_records)
        self._bytes = self._counter("bytes_erased", "Bytes of the records that were acted on", ("target",))
        self._errors = self._counter("errors", "Errors by kind", ("kind",))
        self._throttled = self._counter("throttle_seconds", "Seconds of rest between batches", ("target", "reason"))
        self._held = self._gauge("records_held", "Due records that a hold keeps, at the last sweep", ("target",))
        self._unresolved = self._gauge("records_unresolved", "Records that can't be resolved and are kept", ("target",))
        self._overdue = self._gauge("overdue_records", "Records due and not erased, as last counted", ("target",))
        self._success = self._gauge(
            "last_success_timestamp_seconds", "When a sweep last drained the target", ("target",)
        )
        self._next = self._gauge("next_expiry_timestamp_seconds", "When the target is due again", ("target",))
        self._sweeps = self._histogram("sweep_duration_seconds", "Duration of sweeps", _SWEEP_SECONDS)
        self._batches = self._histogram("batch_duration_seconds", "Duration of batches", _BATCH_SECONDS)
        self._batch_records = self._gauge("batch_records", "Records acted on by the last batch", ("target",))
        self._guard = self._gauge("guard_tripped", "1 while the guard stops something", ("guard",))
        self._holds = self._gauge("holds", "Legal holds by state", ("state",))
        self._reviews = self._gauge("holds_review_overdue", "Holds whose review date is past", ())
        self._entries = self._gauge("ledger_entries_total", "Entries of the ledger", ())
        self._paused = self._gauge("paused", "1 while erasing is paused", ())
        self._mode = self._gauge("mode", "1 for the mode that this process runs in", ("mode",))
        self._build = self._gauge("build_info", "The version of the software", ("version",))
        self._build.labels(version).set(1)
        for each in ("plan", "enforce"):
            self._mode.labels(each).set(each == mode)
        self._make_series(targets, (*tiers, "none", "unknown"))

    def _make_series(self, targets: Sequence[Target], tiers: Sequence[str]) -> None:
        for target in targets:
            for tier in tiers:
                for counter in (self._erased, self._anonymised, self._archived):
                    counter.labels(target.name, target.data_class.name, tier)
            for series in (
                self._bytes,
                self._held,
                self._unresolved,
                self._overdue,
                self._success,
                self._next,
                self._sweeps,
                self._batches,
                self._batch_records,
            ):
                series.labels(target.name)
            for reason in _REASONS:
                self._throttled.labels(target.name, reason)
        self._guard.labels("fraction").set(0)
        for state in _HOLD_STATES:
            self._holds.labels(state).set(0)

    def __call__(self, event: Event) -> None:
        """Count the event."""
        if isinstance(event, BatchDone):
            self._batch(event)
        elif isinstance(event, SweepDone):
            self._sweep(event)
        elif isinstance(event, Throttled):
            self._throttled.labels(event.target.name, event.reason).inc(event.seconds)
        elif isinstance(event, Failed):
            self._errors.labels(event.kind).inc()
        elif isinstance(event, GuardState):
            self._guard.labels(event.guard).set(event.tripped)

    def observe_state(
        self, *, holds: Mapping[str, int], reviews_overdue: int, paused: bool, ledger_entries: int
    ) -> None:
        """Set what the control database says."""
        for state in _HOLD_STATES:
            self._holds.labels(state).set(holds.get(state, 0))
        self._reviews.set(reviews_overdue)
        self._paused.set(paused)
        self._entries.set(ledger_entries)

    def observe_next(self, target: str, at: datetime | None) -> None:
        """Set when a target is due again."""
        self._next.labels(target).set(at.timestamp() if at else float("nan"))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text of all series and its content type, Prometheus' or OpenMetrics' by the Accept header."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def _batch(self, event: BatchDone) -> None:
        name, class_name = event.target.name, event.target.data_class.name
        counter = {"anonymise": self._anonymised, "archive": self._archived}.get(event.target.action, self._erased)
        for tier, count in event.by_tier.items():
            counter.labels(name, class_name, tier).inc(count)
        self._bytes.labels(name).inc(event.bytes)
        self._batches.labels(name).observe(event.seconds)
        self._batch_records.labels(name).set(event.changed)

    def _sweep(self, event: SweepDone) -> None:
        name, outcome = event.target.name, event.outcome
        self._held.labels(name).set(_number(outcome["held"]))
        self._unresolved.labels(name).set(_number(outcome["unresolved"]))
        self._sweeps.labels(name).observe(_number(outcome["seconds"]))
        self._overdue.labels(name).set(sum(_number(outcome.get(key, 0)) for key in ("failed", "locked", "would_erase")))
        if outcome["outcome"] == "drained":
            self._success.labels(name).set(time.time())

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, ("target",), registry=self.registry, buckets=buckets)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
