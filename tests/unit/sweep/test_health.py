"""When a sweep yields, judged from signals."""

import pytest

from retentiond.stores.base import Vitals
from retentiond.sweep.health import PROMQL, SIGNALS, Latency, judge, pause, unreadable
from retentiond.sweep.spec import Health, Query


def strain(values, query=None, **limits):
    return judge(Health(limits=limits, query=query), Vitals(values))


def test_a_healthy_server_keeps_no_sweep_from_its_next_batch():
    assert strain({"replica_lag": 10.0, "response": 0.01, "lock_waits": 0.0}, replica_lag=10, response=1) is None


@pytest.mark.parametrize("signal", sorted(set(SIGNALS) - {"vacuum", PROMQL}))
def test_each_signal_above_its_threshold_is_told_with_its_key(signal):
    found = strain({signal: 51.0}, **{signal: 50.0})
    assert found.reason == signal
    assert f"pace.health.{signal}" in found.told
    assert "51" in found.told and "50" in found.told


def test_a_signal_that_is_off_does_not_count():
    assert strain({"replica_lag": 1e9}, response=1) is None


def test_of_several_the_one_furthest_above_is_told():
    assert strain({"replica_lag": 20.0, "response": 30.0}, replica_lag=10, response=1).reason == "response"


def test_a_vacuum_is_waited_for_until_it_has_lasted_as_long_as_allowed():
    assert strain({"vacuum": 0.0}, vacuum=600) is None
    assert strain({"vacuum": 1.0}, vacuum=600).reason == "vacuum"
    assert strain({"vacuum": 600.0}, vacuum=600) is None


def test_a_query_counts_from_its_threshold_on_also_one_of_zero():
    assert strain({PROMQL: 0.0}, Query("http://p", "e", 0)) is None
    assert strain({PROMQL: 0.1}, Query("http://p", "e", 0)).reason == PROMQL
    assert strain({PROMQL: -1.0}, Query("http://p", "e", -2)).reason == PROMQL


def test_only_what_somebody_configured_must_be_readable():
    vitals = Vitals({}, {"replica_lag": "hidden", "oldest_snapshot": "hidden"})
    limits = {"replica_lag": 10.0, "oldest_snapshot": 60.0}
    assert unreadable(Health(limits=limits), vitals) is None
    assert (
        unreadable(Health(limits=limits, configured=frozenset({"oldest_snapshot"})), vitals).reason == "oldest_snapshot"
    )


def test_one_slow_batch_is_no_strain_and_two_in_a_row_are():
    latency = Latency(budget=0.25, limit=4)
    latency.took(5.0)
    assert latency.value() == 0
    latency.took(2.0)
    assert latency.value() == 8
    latency.took(0.1)
    assert latency.value() < 4


def test_after_a_rest_one_batch_may_try_and_a_slow_one_makes_the_next_rest_longer():
    latency = Latency(budget=0.25, limit=4)
    latency.took(5.0)
    latency.took(5.0)
    for rests in (1, 2):
        latency.try_again()
        assert latency.value() == 0
        latency.took(5.0)
        assert (latency.value(), latency.rests) == (20, rests)
    latency.try_again()
    latency.took(0.2)
    assert (latency.value() < 4, latency.rests) == (True, 0)


def test_pauses_grow_and_stay_well_within_a_minute():
    pauses = [pause(number) for number in range(1000)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 1
    assert max(pauses) <= 30
