"""The configuration of targets: windows in time zones, names of tables, what is anonymised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.stores.config import Pace, Unfit, Window
from retentiond.stores.postgres.config import PostgresTarget, parse_table

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None)

GIVEN = {"store": "postgres", "class": "logs", "dsn": "postgresql://h/d", "table": "t", "anchor": "a"}


def window(**given):
    return Window.model_validate({"from": "22:00", "to": "06:00"} | given)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-05-15T21:59:59", False),
        ("2026-05-15T22:00:00", True),
        ("2026-05-16T00:00:00", True),
        ("2026-05-16T05:59:59", True),
        ("2026-05-16T06:00:00", False),
        ("2026-05-16T12:00:00", False),
    ],
)
def test_a_window_may_go_over_midnight(instant, is_open):
    assert window().open_at(at(instant)) is is_open


def test_a_window_belongs_to_the_day_on_which_it_opens():
    friday = window(days=["fri"])  # 15 May 2026 is a Friday
    assert friday.open_at(at("2026-05-15T23:00:00"))
    assert friday.open_at(at("2026-05-16T05:00:00"))
    assert not friday.open_at(at("2026-05-15T05:00:00"))
    assert not friday.open_at(at("2026-05-16T23:00:00"))


def test_the_next_opening_is_the_first_one_to_come_and_now_while_it_is_open():
    assert window().next_opening(at("2026-05-15T12:00:00")) == at("2026-05-15T22:00:00")
    assert window().next_opening(at("2026-05-15T23:00:00")) == at("2026-05-15T23:00:00")
    assert window(days=["fri"]).next_opening(at("2026-05-16T12:00:00")) == at("2026-05-22T22:00:00")


def test_a_window_is_in_its_own_time_zone_also_over_a_change_of_the_clock():
    dublin = window(timezone="Europe/Dublin")
    assert dublin.next_opening(at("2026-01-10T12:00:00")) == at("2026-01-10T22:00:00")
    assert dublin.next_opening(at("2026-07-10T12:00:00")) == at("2026-07-10T21:00:00")
    assert dublin.open_at(at("2026-03-29T04:59:00"))
    assert not dublin.open_at(at("2026-03-29T05:00:00"))


def test_a_window_in_the_hour_that_a_change_of_the_clock_leaves_out_opens_the_next_time():
    night = {"from": "01:30", "to": "02:00", "timezone": "Europe/Dublin"}  # 29 March 2026: 01:00 is followed by 02:00
    assert window(**night).next_opening(at("2026-03-29T00:00:00")) == at("2026-03-30T00:30:00")
    assert window(**night, days=["sun"]).next_opening(at("2026-03-28T12:00:00")) == at("2026-04-05T00:30:00")


@UNHURRIED
@given(
    instant=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    opens=st.times(),
    closes=st.times(),
    days=st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
    zone=st.sampled_from(["UTC", "Europe/Dublin", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_a_window_opens_at_its_next_opening_and_not_before(instant, opens, closes, days, zone):
    given = {"from": f"{opens:%H:%M}", "to": f"{closes:%H:%M}", "timezone": zone, "days": sorted(days)}
    if given["from"] == given["to"]:
        return
    found = Window.model_validate(given)
    opening = found.next_opening(instant)
    assert instant <= opening <= instant + timedelta(days=15)
    assert found.open_at(opening)
    assert opening == instant or not found.open_at(opening - timedelta(microseconds=1))


def test_the_default_pace_is_that_of_the_interface():
    assert Pace().model_dump() == {
        "records_per_second": 0, "duty": 0.5, "batch_seconds": 0.25, "min_batch": 1, "max_batch": 50_000,
        "shards": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [{"duty": 1.1}, {"duty": -1}, {"batch_seconds": 0}, {"min_batch": 0}, {"records_per_second": -1}, {"duty": "nan"}],
)
def test_a_pace_that_can_not_be_kept_is_refused(given):
    with pytest.raises(ValueError):
        Pace.model_validate(given)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("logs", (None, "logs")),
        ("Public.Request_Logs", ("public", "request_logs")),
        ('public."Request Logs"', ("public", "Request Logs")),
        ('"a.b"."c""d"', ("a.b", 'c"d')),
        ("größe", (None, "größe")),
        ("t$1", (None, "t$1")),
    ],
)
def test_the_name_of_a_table_is_read_as_postgresql_reads_it(text, found):
    assert parse_table(text) == found


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a.b.c", "a b", "1a", '"a', '""', "a;drop table b", 'a"b"', "a--"]
)
def test_what_is_no_name_of_a_table_is_refused(text):
    with pytest.raises(Unfit):
        parse_table(text)


def test_what_becomes_of_each_column_is_read_from_the_four_forms():
    columns = {"a": None, "b": "gone", "c": {"hash": True}, "d": {"truncate_ip": True}, "e": False, "f": 7}
    target = PostgresTarget.model_validate(GIVEN | {"anonymise": {"columns": columns, "marker": "done"}})
    assert {name: (rule.method, rule.value) for name, rule in target.rules().items()} == {
        "a": ("null", None), "b": ("constant", "gone"), "c": ("hash", None), "d": ("truncate_ip", None),
        "e": ("constant", "false"), "f": ("constant", "7"),
    }  # fmt: skip


def test_a_single_key_column_may_be_written_as_text():
    assert PostgresTarget.model_validate(GIVEN | {"key": "id"}).key == ("id",)
    assert PostgresTarget.model_validate(GIVEN | {"key": ["a", "b"]}).key == ("a", "b")


def test_anonymising_without_columns_removes_the_account_reference_where_there_is_one():
    assert PostgresTarget.model_validate(GIVEN | {"account": "account_id"}).refuse("anonymise") is None
    assert PostgresTarget.model_validate(GIVEN).refuse("anonymise") is not None
