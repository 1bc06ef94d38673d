"""What the daemon says of sweeps that yield: the log at first, `/readyz` after a while, and nothing when it is over."""

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from retentiond import daemon_patience
from retentiond.daemon_patience import NOT_READY_SECONDS
from retentiond.daemon_watch import Watch, target_check
from retentiond.errors import Strained
from retentiond.metrics import Metrics
from retentiond.sweep.events import BatchDone, SweepDone, VitalsRead, Yielding
from tests.unit.test_metrics import LOGS, outcome, value

STRAINED = {"kind": "strained", "message": "m", "remedy": "r"}


@pytest.fixture
def watch():
    return Watch(Metrics((LOGS,), ("free",), version="1", mode="enforce"))


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=10_000.0)
    monkeypatch.setattr(daemon_patience.time, "monotonic", lambda: found.now)
    return found


def yields(reason="replica_lag", seconds=0.0):
    return Yielding(LOGS, "s", reason, f"{reason} is high", seconds)


def done(ended="capped", **more):
    return SweepDone(LOGS, "s", outcome(ended, **{"erased": 0, "anonymised": 0, "archived": 0, "upkeep": None, **more}))


def test_a_rest_is_logged_when_it_begins_when_its_reason_changes_and_when_it_ends(watch):
    with capture_logs() as logs:
        for event in (yields(), yields(), yields("vacuum"), yields("vacuum"), yields(None)):
            watch(event)
    assert [entry["event"] for entry in logs] == ["yielding", "yielding", "going on"]
    assert logs[0]["why"] == "replica_lag is high"


def test_a_short_rest_is_ready_and_a_long_one_is_not_until_it_is_over(watch, clock):
    watch(yields())
    watch.require(target_check("logs"))
    clock.now += NOT_READY_SECONDS
    watch(yields())
    with pytest.raises(Strained, match="replica_lag is high") as caught:
        watch.require(target_check("logs"))
    assert caught.value.remedy
    watch(yields(None))
    watch.require(target_check("logs"))


def test_a_fault_that_stands_is_counted_once(watch, clock):
    watch(yields())
    clock.now += NOT_READY_SECONDS
    for _ in range(5):
        watch(yields())
    assert value(watch.metrics, "errors_total", kind="strained") == 1


def test_a_rest_goes_on_over_sweeps_that_it_ends_and_ends_with_a_batch_or_another_outcome(watch, clock):
    for over in (BatchDone(LOGS, "s", "b", 5, {"free": 5}, 7, 0.1), done("drained"), done("paused")):
        watch(yields())
        clock.now += NOT_READY_SECONDS / 2
        watch(done(error=STRAINED))
        watch(yields())
        clock.now += NOT_READY_SECONDS / 2
        watch(yields())
        with pytest.raises(Strained):
            watch.require(target_check("logs"))
        watch(over)
        watch.require(target_check("logs"))


def test_metrics_say_for_which_signal_a_sweep_rests_and_how_each_was_read(watch):
    assert value(watch.metrics, "yielding", target="logs", reason="replica_lag") == 0
    assert value(watch.metrics, "throttle_seconds_total", target="logs", reason="promql") == 0
    watch(VitalsRead(LOGS, {"replica_lag": 12.5}))
    watch(yields())
    assert value(watch.metrics, "yielding", target="logs", reason="replica_lag") == 1
    assert value(watch.metrics, "health_signal", target="logs", reason="replica_lag") == 12.5
    watch(yields("vacuum"))
    assert value(watch.metrics, "yielding", target="logs", reason="replica_lag") == 0
    watch(done())
    assert value(watch.metrics, "yielding", target="logs", reason="vacuum") == 0
