"""Prometheus metrics: an observer that counts what sweeps tell, and gauges that the daemon sets.

Every series of a configured target exists from the start, and labels are bounded by the configuration. What can't be
known yet is NaN (an age, a next expiry) or 0 (an instant that never was). Nothing else knows the metrics library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from retentiond.control.workers import ROLES
from retentiond.errors import kinds
from retentiond.sweep.events import (
    GUARDS,
    BatchDone,
    ClocksRead,
    Event,
    Failed,
    GuardState,
    OldestSeen,
    Overhead,
    SweepDone,
    Throttled,
    VitalsRead,
    Yielding,
)
from retentiond.sweep.health import SIGNALS
from retentiond.sweep.spec import Target

_PREFIX = "retentiond"
_NAN = float("nan")
_BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_SWEEP_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200)
_ACTIVATION_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 120, 600, 3600)
_HOLD_STATES = ("pending", "active", "releasing", "released")
_REASONS = ("duty", "records_per_second", *SIGNALS)
_UNKNOWN = "unknown"
_CONTROL = "control database"


class Metrics:
    """All series of one process, in a registry of its own."""

    def __init__(self, targets: Sequence[Target], tiers: Sequence[str], *, version: str, mode: str) -> None:
        self.registry = CollectorRegistry()
        self._tiers = (*tiers, "none", _UNKNOWN)
        self._make_counters()
        self._make_target_gauges()
        self._make_state_gauges()
        self._anchors: dict[str, datetime | None] = {}
        self._skews: dict[str, float] = {}
        self._tripped: dict[str, set[str | None]] = {guard: set() for guard in GUARDS}
        self._build.labels(version).set(1)
        for each in ("plan", "enforce"):
            self._mode.labels(each).set(each == mode)
        for target in targets:
            self._make_series(target)
        for kind in kinds():
            self._errors.labels(kind)
        for guard in GUARDS:
            self._guard.labels(guard).set(0)
        for state in _HOLD_STATES:
            self._holds.labels(state).set(0)
        for role in ROLES:
            self._workers.labels(role).set(0)

    def _make_counters(self) -> None:
        of_records = ("target", "class", "tier")
        self._erased = self._counter("records_erased", "Records deleted", of_records)
        self._anonymised = self._counter("records_anonymised", "Records anonymised", of_records)
        self._archived = self._counter("records_archived", "Records archived and then deleted", of_records)
        self._bytes = self._counter("bytes_erased", "Bytes of the records that were acted on", ("target", "class"))
        self._errors = self._counter("errors", "Errors by kind; `unexpected` is a defect", ("kind",))
        self._throttled = self._counter("throttle_seconds", "Seconds of rest between batches", ("target", "reason"))
        self._sweeps = self._histogram("sweep_duration_seconds", "Duration of sweeps", _SWEEP_SECONDS, ("target",))
        self._batches = self._histogram("batch_duration_seconds", "Duration of batches", _BATCH_SECONDS, ("target",))
        self._activation = self._histogram(
            "hold_activation_seconds",
            "From a hold's placement to when it was active; every replica counts each of them",
            _ACTIVATION_SECONDS,
            (),
        )
        self._entries = _Absolute(f"{_PREFIX}_ledger_entries", "Entries of the ledger")
        self.registry.register(self._entries)

    def _make_target_gauges(self) -> None:
        self._held = self._of_target("records_held", "Due records that a hold keeps, at the last sweep")
        self._unresolved = self._of_target("records_unresolved", "Records that can't be resolved and are kept")
        self._orphans = self._of_target("orphans", "Objects that no row of the paired target owns, at the last sweep")
        self._overdue = self._of_target("overdue_records", "Records due and not erased, as last counted")
        self._behind = self._of_target(
            "overdue_seconds", "How far the oldest unheld expired record is past its term, at the last sweep"
        )
        self._age = self._of_target("oldest_record_age_seconds", "Age of the oldest record by its anchor; NaN: unknown")
        self._success = self._of_target("last_success_timestamp_seconds", "When a sweep last drained it; 0: never")
        self._next = self._of_target(
            "next_expiry_timestamp_seconds", "When a record can next be due, or has to be looked for; NaN: unknown"
        )
        of_signal = ("target", "reason")
        self._yielding = self._gauge("yielding", "1 while a sweep rests for this signal of its server", of_signal)
        self._vitals = self._gauge(
            "health_signal", "Signals of a target's server as last read, in seconds or bytes; NaN: not read", of_signal
        )
        self._overhead = self._of_target(
            "batch_overhead_seconds", "What a batch takes however small it is, where that is much of its budget; else 0"
        )
        self._native = self._of_target(
            "native_expiry_conflicts", "Rules by which the store itself would erase what must stay; NaN: not seen"
        )
        self._requests = self._of_target(
            "requests_unfinished", "Deletions that the store has taken on and has not been seen to have carried out"
        )
        self._request_age = self._of_target(
            "request_age_seconds", "For how long the oldest such deletion has been waiting; 0: there is none"
        )
        self._batch_records = self._of_target("batch_records", "Records acted on by the last batch")

    def _make_state_gauges(self) -> None:
        self._guard = self._gauge("guard_tripped", "1 while the guard stops something", ("guard",))
        self._holds = self._gauge("holds", "Legal holds by state", ("state",))
        self._reviews = self._gauge("holds_review_overdue", "Holds whose review date is past", ())
        self._pending = self._gauge("hold_pending_seconds", "How long the longest has been pending; 0: none is", ())
        self._verified = self._gauge(
            "ledger_verified_timestamp_seconds", "When the whole ledger was last found to hold together; 0: never", ()
        )
        self._skew = self._gauge(
            "clock_skew_seconds", "The largest difference between the clocks involved, as last read", ()
        )
        self._workers = self._gauge(
            "workers", "Living processes by role, in the mode that is in force, on this control database", ("role",)
        )
        self._paused = self._gauge("paused", "1 while erasing is paused", ())
        self._mode = self._gauge("mode", "1 for the mode that this process runs in", ("mode",))
        self._build = self._gauge("build_info", "The version of the software", ("version",))

    def _make_series(self, target: Target) -> None:
        name = target.name
        for tier in self._tiers:
            for counter in (self._erased, self._anonymised, self._archived):
                counter.labels(name, target.data_class.name, tier)
        self._bytes.labels(name, target.data_class.name)
        of_records = (self._held, self._unresolved, self._orphans, self._overdue, self._behind)
        asked = (self._requests, self._request_age)
        gauges = (*of_records, *asked, self._success, self._batch_records, self._overhead)
        for series in (*gauges, self._sweeps, self._batches):
            series.labels(name)
        self._next.labels(name).set(_NAN)
        self._native.labels(name).set(_NAN)
        self._age.labels(name).set_function(self._age_of(name))
        for reason in _REASONS:
            self._throttled.labels(name, reason)
        for reason in SIGNALS:
            self._yielding.labels(name, reason)
            self._vitals.labels(name, reason).set(_NAN)

    def __call__(self, event: Event) -> None:
        """Count the event."""
        if isinstance(event, BatchDone):
            self._batch(event)
        elif isinstance(event, SweepDone):
            self._sweeps.labels(event.target.name).observe(_number(event.outcome["seconds"]))
            self._yields(event.target.name, None)
            self.observe_outcome(event.target.name, event.outcome)
        elif isinstance(event, Throttled):
            self._throttled.labels(event.target.name, event.reason).inc(event.seconds)
        elif isinstance(event, Overhead):
            self._overhead.labels(event.target.name).set(event.seconds)
        elif isinstance(event, Yielding):
            self._yields(event.target.name, event.reason)
        elif isinstance(event, VitalsRead):
            for reason in SIGNALS:
                self._vitals.labels(event.target.name, reason).set(event.values.get(reason, _NAN))
        elif isinstance(event, Failed):
            self._errors.labels(event.kind).inc()
        elif isinstance(event, GuardState):
            tripped = self._tripped.setdefault(event.guard, set())
            tripped.add(event.target) if event.tripped else tripped.discard(event.target)
            self._guard.labels(event.guard).set(bool(tripped))
        elif isinstance(event, ClocksRead):
            self._read_clocks(event.target, event.skew)
        elif isinstance(event, OldestSeen):
            self._anchors[event.target.name] = event.anchor

    def observe_requests(self, target: str, number: int, seconds: float) -> None:
        """How many deletions of a target its store has still to carry out, and the age of the oldest."""
        self._requests.labels(target).set(number)
        self._request_age.labels(target).set(seconds)

    def observe_state(
        self,
        *,
        holds: Mapping[str, int],
        reviews_overdue: int,
        pending_seconds: float,
        paused: bool,
        ledger_entries: int,
        skew_seconds: float,
        workers: Mapping[str, int],
    ) -> None:
        """Set what the control database says; `skew_seconds` between its clock and this host's."""
        for state in _HOLD_STATES:
            self._holds.labels(state).set(holds.get(state, 0))
        for role in ROLES:
            self._workers.labels(role).set(workers.get(role, 0))
        self._reviews.set(reviews_overdue)
        self._pending.set(pending_seconds)
        self._paused.set(paused)
        self._entries.value = ledger_entries
        self._read_clocks(_CONTROL, skew_seconds)

    def observe_target(
        self, target: str, *, next_due: datetime | None, last_success: datetime | None, awaiting: int | None
    ) -> None:
        """Set when the target is due again and was last drained, and how many of its records wait for an approval."""
        self._next.labels(target).set(next_due.timestamp() if next_due else _NAN)
        if last_success is not None:
            self._success.labels(target).set(last_success.timestamp())
        if awaiting is not None:
            self._overdue.labels(target).set(awaiting)

    def observe_outcome(self, target: str, outcome: Mapping[str, object]) -> None:
        """Set what a sweep has counted (the shape of `sweep --json`); one that did not come to count sets nothing."""
        left = sum(_number(outcome.get(key)) for key in ("failed", "locked", "blocked", "would_erase"))
        drained = outcome["outcome"] == "drained"
        if drained or left:
            self._held.labels(target).set(_number(outcome.get("held")))
            self._unresolved.labels(target).set(_number(outcome.get("unresolved")))
            self._orphans.labels(target).set(_number(outcome.get("orphans")))
            self._overdue.labels(target).set(left)
        behind = outcome.get("overdue_seconds")
        if isinstance(behind, (int, float)):
            self._behind.labels(target).set(behind)
        elif drained and not left:
            self._behind.labels(target).set(0)

    def observe_native_expiry(self, target: str, conflicts: int | None) -> None:
        """Set how many rules of the target's store are against a hold or a legal minimum; None: they can't be seen."""
        self._native.labels(target).set(_NAN if conflicts is None else conflicts)

    def observe_activation(self, seconds: float) -> None:
        """Count a hold that became active so long after it was placed."""
        self._activation.observe(seconds)

    def observe_verified(self) -> None:
        """The ledger has just been found to hold together."""
        self._verified.set_to_current_time()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text of all series and its content type, Prometheus' or OpenMetrics' by the Accept header."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def kind(self, accept: str) -> str:
        """Which Accept headers get the same text."""
        return choose_encoder(accept)[1]

    def _batch(self, event: BatchDone) -> None:
        name, class_name = event.target.name, event.target.data_class.name
        counter = {"anonymise": self._anonymised, "archive": self._archived}.get(event.target.action, self._erased)
        for tier, count in event.by_tier.items():
            counter.labels(name, class_name, tier if tier in self._tiers else _UNKNOWN).inc(count)
        self._bytes.labels(name, class_name).inc(event.bytes)
        self._batches.labels(name).observe(event.seconds)
        self._batch_records.labels(name).set(event.changed)

    def _yields(self, target: str, reason: str | None) -> None:
        for each in SIGNALS:
            self._yielding.labels(target, each).set(each == reason)

    def _read_clocks(self, of: str, skew: float) -> None:
        self._skews[of] = skew
        self._skew.set(max(self._skews.values()))

    def _age_of(self, target: str) -> Callable[[], float]:
        def age() -> float:
            anchor = self._anchors.get(target)
            return (datetime.now(UTC) - anchor).total_seconds() if anchor else _NAN

        return age

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _of_target(self, name: str, text: str) -> Gauge:
        return self._gauge(name, text, ("target",))

    def _histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str]) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


class _Absolute(Collector):
    """A counter whose value is kept elsewhere: the library's own can only be added to."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self.value = 0

    def collect(self) -> Iterable[Metric]:
        """The one sample."""
        yield CounterMetricFamily(self._name, self._text, value=self.value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
