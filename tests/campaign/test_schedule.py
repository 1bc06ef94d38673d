"""Schedules: what a seed stands for."""

from tests.campaign.actions import Actions
from tests.campaign.faults import Faults
from tests.campaign.schedule import RATES, draw


def test_the_same_seed_gives_the_same_schedule_and_another_one_another():
    assert draw(7, 60) == draw(7, 60)
    assert draw(7, 60).actions != draw(8, 60).actions


def test_actions_come_in_order_within_the_time_and_each_kind_at_least_once():
    schedule = draw(3, 20)
    times = [action.at for action in schedule.actions]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= 20
    assert all(count >= 1 for count in schedule.counts().values())
    assert schedule.counts()["insert"] == round(RATES["insert"] * 20)


def test_an_action_chooses_the_same_each_time():
    action = draw(3, 20).actions[0]
    assert action.random().random() == action.random().random()


def test_each_kind_is_carried_out_by_exactly_one():
    for kind in RATES:
        assert [hasattr(Actions, kind), hasattr(Faults, kind)].count(True) == 1, kind
