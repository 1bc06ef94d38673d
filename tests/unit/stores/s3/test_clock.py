"""What a server's clock says, by the Date of its answers."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from retentiond.errors import Unreachable
from retentiond.stores.clock import ServerClock

START = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)


class World:
    """A monotonic clock, this host's, and a server's, which is ahead of it by `ahead` seconds."""

    def __init__(self):
        self.now = 1000.0
        self.ahead = 0.0
        self.clock = ServerClock(lambda: self.now, self.host)

    def host(self):
        return START + timedelta(seconds=self.now - 1000.0)

    def server(self):
        return self.host() + timedelta(seconds=self.ahead)

    def ask(self, there=0.1, back=0.1):
        sent = self.now
        self.now += there
        date = format_datetime(self.server().replace(microsecond=0), usegmt=True)
        self.now += back
        self.clock.observe(date, sent, self.now)


@pytest.mark.parametrize("ahead", [0.0, 0.4, -37.5, 3600.25])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.95])
def test_earliest_is_never_later_than_the_server_and_no_more_than_two_seconds_earlier(ahead, fraction):
    world = World()
    world.ahead, world.now = ahead, world.now + fraction
    for _ in range(5):
        world.ask()
        world.now += 0.37
        assert world.server() - timedelta(seconds=2.3) <= world.clock.earliest() <= world.server()


def test_a_slow_answer_does_not_make_the_clock_seem_behind():
    world = World()
    world.ask()
    world.ask(there=8.0, back=9.0)
    assert world.clock.earliest() >= world.server() - timedelta(seconds=2.3)


def test_of_several_servers_the_one_furthest_behind_counts():
    world = World()
    for ahead in (0.0, -20.0, 0.0):
        world.ahead = ahead
        world.ask()
    assert world.clock.earliest() <= world.host() - timedelta(seconds=20)


def test_a_server_that_answers_slowly_and_is_surely_behind_counts_as_well():
    world = World()
    world.ask()
    world.ahead = -600.0
    world.ask(there=4.0, back=4.0)
    world.ahead = 0.0
    world.ask()
    assert world.clock.earliest() <= world.host() - timedelta(seconds=600)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_the_guard_is_told_of_the_one_server_that_is_off_whoever_answered_last(ahead):
    """A request may go to it: its clock is the one that would refuse it, or not."""
    world = World()
    for each in (0.0, ahead, 0.0, 0.0):
        world.ahead = each
        world.ask()
    assert abs(world.clock.reading().offset.total_seconds() - ahead) <= 1.2
    assert world.clock.latest() == world.host(), "requests that destroy nothing are signed by the last one"


def test_a_clock_that_was_set_right_is_believed_again_after_a_while():
    world = World()
    world.ahead = -600.0
    world.ask()
    world.ahead = 0.0
    world.ask()
    assert world.clock.reading().offset < timedelta(seconds=-590)
    world.now += 601
    world.ask()
    assert world.clock.reading().offset == timedelta(0)
    assert world.clock.earliest() >= world.server() - timedelta(seconds=2.3)


def test_a_clock_that_is_set_back_counts_from_the_next_answer_on():
    world = World()
    for ahead in (0.0, 0.0, -600.0):
        world.ahead = ahead
        world.ask()
    assert world.clock.earliest() <= world.server()


def test_what_this_host_is_told_of_the_time_changes_nothing():
    """An expiry is reckoned by the server's clock and the monotonic one alone."""
    world = World()
    world.ask()
    before = world.clock.earliest()
    world.host = lambda: START + timedelta(days=1)
    assert world.clock.earliest() == before


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 +9999", "0", "\x00", "1" * 400]
)
def test_a_date_that_makes_no_sense_tells_nothing(date):
    clock = ServerClock()
    clock.observe(date, 0.0, 0.1)
    assert not clock.known


def test_a_clock_that_is_off_is_told_and_one_that_agrees_is_not():
    world = World()
    world.ahead = -90.0
    world.ask()
    assert abs(world.clock.reading().offset.total_seconds() + 90) <= 1.2
    other = World()
    other.ask()
    assert other.clock.reading().offset == timedelta(0)
    assert not other.clock.reading().same_machine


@pytest.mark.parametrize("date", [None, "yesterday", ""])
def test_without_a_date_the_clock_is_unknown_and_said_to_be(date):
    clock = ServerClock()
    clock.observe(date, 0.0, 0.1)
    assert not clock.known
    with pytest.raises(Unreachable, match="have no Date") as raised:
        clock.earliest()
    assert raised.value.remedy
