"""Whether anybody announces what is due, and anybody erases it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from retentiond.daemon_crew import Crew
from tests.unit.sweep.test_scheduler import MINUTE, NOW, seen, spec, unit

SOON = (unit(due=NOW + 60 * MINUTE), unit("jobs", NOW + 60 * MINUTE))


def judged(crew, *moments, allowed=True):
    return [crew.judge(moment, allowed=allowed) for moment in moments][-1]


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ({"worker": 3}, "announces what is due"),
        ({"scheduler": 2}, "erases"),
        ({"sweep": 1}, "announces what is due or erases"),
        ({}, "announces what is due or erases"),
    ],
)
def test_where_a_role_is_lacking_for_a_minute_nothing_is_swept_and_that_is_said(workers, said):
    crew = Crew(spec())
    assert judged(crew, seen(*SOON, workers=workers)) is None
    error = judged(crew, seen(*SOON, workers=workers, now=NOW + MINUTE))
    assert error.message == f"no living process {said}: nothing is swept"
    assert error.remedy.startswith("start `retentiond run --")


@pytest.mark.parametrize("workers", [{"all": 1}, {"worker": 1, "scheduler": 1}])
def test_one_that_does_both_or_one_of_each_is_enough(workers):
    crew = Crew(spec())
    assert judged(crew, *(seen(*SOON, workers=workers, now=NOW + i * MINUTE) for i in range(3))) is None


def test_one_that_is_back_within_a_minute_was_not_missed():
    crew = Crew(spec())
    gone = [seen(*SOON, workers={}, now=NOW + i * MINUTE / 2) for i in range(4)]
    assert judged(crew, gone[0], gone[1], seen(*SOON, now=NOW + 3 * MINUTE / 4), gone[2], gone[3]) is None


def test_what_is_due_for_several_intervals_and_has_no_owner_is_named_with_the_one_that_waits_longest():
    crew = Crew(spec())
    waiting = (unit(due=NOW - timedelta(hours=2)), unit("jobs", NOW - timedelta(hours=1)), unit("gone", NOW))
    assert judged(crew, seen(*waiting), seen(*waiting, now=NOW + 5 * MINUTE)) is None, "it may just have been started"
    error = judged(crew, seen(*waiting, now=NOW + 5.1 * MINUTE))
    assert "in 2 of the targets" in error.message
    assert "in logs since 2026-11-23T22:00:00" in error.message
    assert "workers.concurrency" in error.remedy


def test_what_somebody_sweeps_or_what_is_due_again_does_not_wait():
    crew = Crew(spec())
    swept = (unit(due=NOW - 60 * MINUTE, owner="other"), unit("jobs", NOW + 9 * MINUTE))
    assert judged(crew, *(seen(*swept, now=NOW + i * MINUTE) for i in range(10))) is None


def test_with_long_intervals_what_is_due_may_wait_longer():
    patient = spec()
    patient.min_interval = 60 * MINUTE
    crew = Crew(patient)
    assert judged(crew, seen(), seen(now=NOW + 299 * MINUTE)) is None
    assert judged(crew, seen(now=NOW + 301 * MINUTE)) is not None


@pytest.mark.parametrize("enforce", [True, False])
def test_where_nothing_may_be_swept_nothing_is_missed_and_waiting_begins_when_it_may(enforce):
    crew = Crew(spec(enforce=enforce))
    late = replace(seen(now=NOW + 60 * MINUTE), workers={})
    assert judged(crew, seen(workers={}), late, allowed=not enforce) is None
    assert judged(crew, late) is None
