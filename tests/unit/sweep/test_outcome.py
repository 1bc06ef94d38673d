"""What an outcome says of its windows and batches taken together."""

import pytest

from retentiond.errors import Blind, Guarded
from retentiond.stores.base import Tally, TierTally
from retentiond.sweep.outcome import Outcome

FREE = TierTally(
    due=2, held=1, bytes=20, oldest="2020-01-02", newest="2020-01-03", first="2020-01-01", overdue_seconds=5.0
)
LATER = TierTally(due=1, bytes=10, oldest="2020-01-05", newest="2020-01-06", first="2020-01-04", overdue_seconds=3.0)


def counted(*tallies):
    outcome = Outcome()
    for tally in tallies:
        outcome.judged(tally)
    return outcome


def test_the_tiers_of_windows_are_added_up_and_the_extremes_kept():
    both = FREE.plus(LATER)
    assert (both.due, both.held, both.bytes, both.overdue_seconds) == (3, 1, 30, 5.0)
    assert (both.oldest, both.newest, both.first) == ("2020-01-02", "2020-01-06", "2020-01-01")
    assert TierTally().plus(FREE) == FREE


def test_overdue_seconds_are_the_largest_of_all_windows_and_none_where_nothing_is_due():
    windows = [Tally(selected=1, overdue_seconds=7.0, tiers={"free": FREE}), Tally(selected=1, overdue_seconds=2.0)]
    assert counted(*windows).document(plan_mode=True)["overdue_seconds"] == 7.0
    assert counted().document(plan_mode=True)["overdue_seconds"] == 0.0


def test_a_drained_sweep_is_not_overdue_whatever_its_guard_had_counted():
    outcome = Outcome(counted=counted(Tally(selected=3, overdue_seconds=9.0)))
    outcome.erased(Tally(selected=3, changed=3, oldest="2020-01-01", newest="2020-01-02"))
    document = outcome.document(plan_mode=False)
    assert (document["overdue_seconds"], document["oldest"], document["newest"]) == (0.0, "2020-01-01", "2020-01-02")


def test_a_guarded_sweep_is_as_overdue_as_its_guard_counted():
    outcome = Outcome(counted=counted(Tally(selected=3, overdue_seconds=9.0)))
    outcome.broken(Guarded("fraction", "too many"), "guarded")
    assert outcome.document(plan_mode=False)["overdue_seconds"] == 9.0


@pytest.mark.parametrize("ending", ["blind", "failed", "paused", "capped"])
def test_where_nobody_has_counted_it_is_not_known_rather_than_nought(ending):
    outcome = Outcome()
    outcome.broken(Blind("can't be judged"), ending)
    assert outcome.document(plan_mode=False)["overdue_seconds"] is None


def test_a_drained_sweep_that_left_blocked_records_is_as_overdue_as_those():
    outcome = Outcome(counted=counted(Tally(selected=3, blocked=1, overdue_seconds=9.0)))
    outcome.erased(Tally(selected=3, changed=3, blocked=1, overdue_seconds=4.0))
    assert outcome.document(plan_mode=False)["overdue_seconds"] == 4.0


def test_how_overdue_blocked_records_are_is_not_known_where_no_batch_has_told():
    outcome = Outcome()
    outcome.erased(Tally(selected=3, changed=3, blocked=1))
    assert outcome.document(plan_mode=False)["overdue_seconds"] is None
