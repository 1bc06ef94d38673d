"""What the observer makes of events; the whole exposition is tested on the real daemon."""

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retentiond.metrics import Metrics
from retentiond.sweep.events import BatchDone, ClocksRead, GuardState, OldestSeen, SweepDone, guards_after

LOGS = SimpleNamespace(name="logs", data_class=SimpleNamespace(name="operational_logs"), action="delete")
JOBS = SimpleNamespace(name="jobs", data_class=SimpleNamespace(name="build_logs"), action="anonymise")


@pytest.fixture
def metrics():
    return Metrics((LOGS, JOBS), ("free", "pro"), version="1", mode="enforce")


def value(metrics, name, **labels):
    for family in text_string_to_metric_families(metrics.exposition("")[0].decode()):
        for sample in family.samples:
            if sample.name == f"retentiond_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"no {name} {labels}")


def outcome(ended="drained", **more):
    counts = dict.fromkeys(("held", "unresolved", "failed", "locked", "blocked"), 0)
    return {"outcome": ended, "error": None, "seconds": 1.0, **counts, **more}


def guarded(guard):
    return outcome("guarded", error={"kind": "guarded", "guard": guard, "message": "m", "remedy": "r"})


def test_a_batch_counts_by_its_action_and_an_unheard_of_tier_as_unknown(metrics):
    metrics(BatchDone(LOGS, "s", "b", 5, {"free": 3, "made up": 2}, 70, 0.1))
    metrics(BatchDone(JOBS, "s", "b", 1, {"pro": 1}, 10, 0.1))
    assert value(metrics, "records_erased_total", target="logs", tier="free") == 3
    assert value(metrics, "records_erased_total", target="logs", tier="unknown") == 2
    assert value(metrics, "records_anonymised_total", target="jobs", tier="pro") == 1
    assert value(metrics, "bytes_erased_total", target="logs", **{"class": "operational_logs"}) == 70
    assert value(metrics, "batch_records", target="logs") == 5


def test_overdue_seconds_keep_their_last_value_until_counted_or_drained(metrics):
    metrics(SweepDone(LOGS, "s", outcome("capped", overdue_seconds=90.5)))
    metrics(SweepDone(LOGS, "s", outcome("blind")))
    assert value(metrics, "overdue_seconds", target="logs") == 90.5
    metrics(SweepDone(LOGS, "s", outcome("drained", would_erase=3)))
    assert value(metrics, "overdue_seconds", target="logs") == 90.5
    assert value(metrics, "overdue_records", target="logs") == 3
    metrics(SweepDone(LOGS, "s", outcome()))
    assert value(metrics, "overdue_seconds", target="logs") == 0
    assert value(metrics, "overdue_records", target="logs") == 0


def test_a_sweep_that_counted_nothing_leaves_what_was_counted(metrics):
    metrics(SweepDone(LOGS, "s", outcome(held=7, unresolved=2)))
    for ended in ("blind", "paused", "guarded", "failed"):
        metrics(SweepDone(LOGS, "s", outcome(ended)))
    assert value(metrics, "records_held", target="logs") == 7
    assert value(metrics, "records_unresolved", target="logs") == 2


def test_one_targets_guard_does_not_reset_anothers(metrics):
    for target, ended in (("logs", guarded("fraction")), ("jobs", outcome())):
        for state in guards_after(target, ended):
            metrics(state)
    assert value(metrics, "guard_tripped", guard="fraction") == 1
    for state in guards_after("logs", outcome()):
        metrics(state)
    assert value(metrics, "guard_tripped", guard="fraction") == 0


def test_a_guard_says_nothing_of_those_that_come_after_it_and_clears_those_before(metrics):
    for ended in (guarded("fraction"), guarded("clock_skew")):
        for state in guards_after("logs", ended):
            metrics(state)
    assert value(metrics, "guard_tripped", guard="fraction") == 1
    assert value(metrics, "guard_tripped", guard="clock_skew") == 1
    for state in guards_after("logs", guarded("records")):
        metrics(state)
    assert value(metrics, "guard_tripped", guard="clock_skew") == 0
    metrics(GuardState("policy", tripped=True))
    assert value(metrics, "guard_tripped", guard="policy") == 1
    assert list(guards_after("logs", outcome("blind"))) == []


def test_the_oldest_records_age_grows_between_sweeps_and_is_nan_where_unknown(metrics):
    assert math.isnan(value(metrics, "oldest_record_age_seconds", target="logs"))
    metrics(OldestSeen(LOGS, datetime.now(UTC) - timedelta(days=1)))
    first = value(metrics, "oldest_record_age_seconds", target="logs")
    assert 86_400 <= first < value(metrics, "oldest_record_age_seconds", target="logs") < 90_000
    metrics(OldestSeen(LOGS, None))
    assert math.isnan(value(metrics, "oldest_record_age_seconds", target="logs"))


def test_the_clock_skew_is_the_largest_of_those_last_read(metrics):
    metrics(ClocksRead("logs", 3.0))
    metrics(ClocksRead("jobs", 1.0))
    assert value(metrics, "clock_skew_seconds") == 3.0
    metrics(ClocksRead("logs", 0.5))
    assert value(metrics, "clock_skew_seconds") == 1.0
