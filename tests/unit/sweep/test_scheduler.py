"""Whose turn it is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from retentiond.control.overview import Overview, UnitView
from retentiond.domain.permit import Unit
from retentiond.sweep.scheduler import Turns

NOW = datetime(2026, 11, 24, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def spec(*, enforce=True):
    return SimpleNamespace(
        targets=(SimpleNamespace(name="logs"), SimpleNamespace(name="jobs")),
        enforce=enforce,
        min_interval=MINUTE,
        max_interval=60 * MINUTE,
    )


def unit(name="logs", due=NOW, owner=None):
    return UnitView(Unit(name), owner, due, None, None)


def seen(*units, now=NOW, **more):
    made = Overview(
        now=now,
        control_id="c",
        mode="enforce",
        paused=False,
        epoch=1,
        digest="d",
        approved_at=None,
        holds={},
        reviews_overdue=0,
        pending=(),
        release_due=False,
        activations=(),
        waiting={},
        ledger_entries=0,
        heartbeat_at=None,
        units={each.unit.target: each for each in units or (unit(), unit("jobs", NOW + MINUTE))},
        open_shards=(),
        orphans=(),
        workers={"all": 1},
    )
    return replace(made, **more)


@pytest.fixture
def turns():
    made = Turns(spec(), "me")
    made.due(seen(), ())
    return made


def test_what_is_due_by_the_control_databases_clock_is_begun_once(turns):
    assert list(turns.due(seen(), ())) == ["logs"]
    assert list(turns.due(seen(), ("logs",))) == []
    assert list(turns.due(seen(now=NOW + MINUTE), ())) == ["logs", "jobs"]


def test_a_unit_that_another_worker_has_is_left_to_it(turns):
    assert list(turns.due(seen(unit(owner="other"), unit("jobs", NOW + MINUTE)), ())) == []
    assert list(turns.due(seen(unit(owner="me"), unit("jobs", NOW + MINUTE)), ())) == ["logs"]


def test_a_sweep_that_wrote_nothing_is_tried_again_after_the_interval_and_not_at_every_tick(turns):
    turns.began("logs", seen())
    turns.ended("logs", NOW, seconds=1, drained=False)
    assert list(turns.due(seen(now=NOW + MINUTE / 2), ())) == []
    assert "logs" in turns.due(seen(now=NOW + MINUTE), ())


def test_what_the_control_database_says_afterwards_counts_more_than_the_interval(turns):
    turns.began("logs", seen())
    turns.ended("logs", NOW, seconds=1, drained=False)
    woken = unit(due=NOW + timedelta(seconds=1))
    assert list(turns.due(seen(woken, unit("jobs", NOW + MINUTE), now=NOW + timedelta(seconds=2)), ())) == ["logs"]


@pytest.mark.parametrize("change", [{"epoch": 2}, {"approved_at": NOW}, {"paused": True}])
def test_something_newly_allowed_ends_the_waiting(turns, change):
    turns.began("logs", seen())
    turns.ended("logs", NOW, seconds=1, drained=False)
    assert list(turns.due(seen(**change), ())) == ["logs"]


def test_a_target_is_swept_once_more_when_something_was_allowed_while_it_was_being_swept(turns):
    turns.began("logs", seen())
    turns.due(seen(epoch=2), ("logs",))
    turns.ended("logs", NOW, seconds=1, drained=True)
    later = (unit(due=NOW + 60 * MINUTE), unit("jobs", NOW + 60 * MINUTE))
    assert list(turns.due(seen(*later, epoch=2), ())) == ["logs"]
    turns.began("logs", seen(*later, epoch=2))
    turns.ended("logs", NOW, seconds=1, drained=True)
    assert list(turns.due(seen(*later, epoch=2), ())) == []


def test_plan_mode_counts_again_after_twenty_times_what_counting_took():
    turns = Turns(spec(enforce=False), "me")
    turns.began("logs", seen())
    turns.ended("logs", NOW, seconds=30, drained=True)
    turns.began("jobs", seen())
    turns.ended("jobs", NOW, seconds=86_400, drained=True)
    assert list(turns.due(seen(now=NOW + 9 * MINUTE), ())) == []
    assert list(turns.due(seen(now=NOW + 10 * MINUTE), ())) == ["logs"]
    assert list(turns.due(seen(now=NOW + 60 * MINUTE), ())) == ["logs", "jobs"]


def test_whose_last_turn_is_longest_ago_is_first(turns):
    both = (unit(), unit("jobs"))
    assert list(turns.due(seen(*both), ())) == ["logs", "jobs"]
    turns.began("logs", seen(*both))
    turns.ended("logs", NOW, seconds=1, drained=False)
    assert list(turns.due(seen(*both, now=NOW + MINUTE), ())) == ["jobs", "logs"]
    turns.began("jobs", seen(*both, now=NOW + MINUTE))
    turns.ended("jobs", NOW + MINUTE, seconds=1, drained=False)
    assert list(turns.due(seen(*both, now=NOW + 2 * MINUTE), ())) == ["logs", "jobs"]


def test_what_was_announced_is_announced_again_after_a_while_if_it_is_still_due(turns):
    turns.announced(Unit("logs"), seen(), new=True)
    assert list(turns.due(seen(now=NOW + MINUTE / 2), ())) == []
    assert "logs" in turns.due(seen(now=NOW + MINUTE), ())


def test_what_was_in_the_queue_already_is_announced_again_soon_since_its_job_may_just_be_over(turns):
    turns.announced(Unit("logs"), seen(), new=False)
    assert list(turns.due(seen(now=NOW + timedelta(seconds=1)), ())) == []
    assert list(turns.due(seen(now=NOW + timedelta(seconds=2)), ())) == ["logs"]


def test_a_shard_is_announced_once_a_minute_until_somebody_has_it(turns):
    shard = Unit("logs", "1/2")
    assert list(turns.shards_due(seen(open_shards=(shard,)))) == [shard]
    turns.announced(shard, seen(open_shards=(shard,)), new=True)
    assert list(turns.shards_due(seen(open_shards=(shard,), now=NOW + MINUTE / 2))) == []
    assert list(turns.shards_due(seen(open_shards=(shard,), now=NOW + MINUTE))) == [shard]
    turns.announced(shard, seen(open_shards=(shard,), now=NOW + MINUTE), new=True)
    assert list(turns.shards_due(seen(open_shards=(), now=NOW + MINUTE))) == []
    assert list(turns.shards_due(seen(open_shards=(shard,), now=NOW + MINUTE))) == [shard]


def test_a_shard_of_a_target_that_is_configured_no_more_is_not_announced(turns):
    kept = Unit("logs", "1/2")
    assert list(turns.shards_due(seen(open_shards=(Unit("gone", "1/2"), kept)))) == [kept]


def test_a_target_that_another_worker_sweeps_while_something_is_allowed_is_announced_when_it_is_free(turns):
    turns.due(seen(unit(owner="other"), epoch=2), ())
    later = unit(due=NOW + 60 * MINUTE)
    assert list(turns.due(seen(later, unit("jobs", NOW + MINUTE), epoch=2), ())) == ["logs"]


def test_when_what_was_missing_is_back_nothing_waits(turns):
    turns.began("logs", seen())
    turns.ended("logs", NOW, seconds=1, drained=False)
    turns.forgive()
    assert list(turns.due(seen(), ())) == ["logs"]
