from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.domain.duration import (
    FOREVER,
    Duration,
    cutoff,
    expires_at,
    instant,
    parse_duration,
    parse_term,
    rfc3339,
    shorter,
)
from retentiond.errors import DurationError, UsageError

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None)

VECTORS = Path(__file__).parents[2] / "vectors" / "cutoff.csv"

durations = st.builds(
    Duration,
    months=st.integers(0, 240),
    days=st.integers(0, 4000),
    microseconds=st.integers(0, 400 * 3600).map(lambda seconds: seconds * 1_000_000),
).filter(lambda duration: duration.nominal() > 0)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


def vectors():
    with VECTORS.open() as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_there_are_as_many_vectors_as_were_made():
    assert len(vectors()) == 105


@pytest.mark.parametrize("row", vectors(), ids=lambda row: f"{row['now']}-{row['ttl']}")
def test_the_cutoff_is_that_of_postgresql(row):
    assert rfc3339(cutoff(instant(row["now"]), parse_term(row["ttl"]))) == row["cutoff"]


@UNHURRIED
@given(anchor=moments, now=moments, ttl=durations)
def test_nothing_before_the_cutoff_expires_later_than_now(anchor, now, ttl):
    if anchor < cutoff(now, ttl):
        assert expires_at(anchor, ttl) <= now


@UNHURRIED
@given(now=moments, ttl=durations)
def test_the_instant_just_before_the_cutoff_has_expired(now, ttl):
    assert expires_at(cutoff(now, ttl) - timedelta(microseconds=1), ttl) <= now


@UNHURRIED
@given(ttl=durations)
def test_a_printed_duration_is_read_as_the_same_one(ttl):
    assert parse_duration(str(ttl)) == ttl


@pytest.mark.parametrize(
    ("text", "duration", "canonical"),
    [
        ("P90D", Duration(days=90), "P90D"),
        ("P7Y", Duration(months=84), "P7Y"),
        ("P13M", Duration(months=13), "P1Y1M"),
        ("P1Y6M10D", Duration(months=18, days=10), "P1Y6M10D"),
        ("PT36H", Duration(microseconds=36 * 3600 * 1_000_000), "PT36H"),
        ("P2W", Duration(days=14), "P14D"),
        ("PT90M", Duration(microseconds=5400 * 1_000_000), "PT1H30M"),
        ("P1Y6M10DT5H", Duration(18, 10, 5 * 3600 * 1_000_000), "P1Y6M10DT5H"),
        ("P0Y5D", Duration(days=5), "P5D"),
    ],
)
def test_a_duration_keeps_months_days_and_time_apart(text, duration, canonical):
    assert parse_duration(text) == duration
    assert str(duration) == canonical


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("90D", 0),
        ("p90D", 0),
        ("-P1D", 0),
        (" P1D", 0),
        ("Forever", 0),
        ("P", 1),
        ("P-1D", 1),
        ("P 1D", 1),
        ("P٣D", 1),
        ("P99999999999999999999D", 1),
        ("P1D1W", 1),
        ("P1WT1H", 1),
        ("P1", 2),
        ("P1.5D", 2),
        ("P1,5D", 2),
        ("P1X", 2),
        ("P1H", 2),
        ("P1W1D", 2),
        ("PT", 2),
        ("P90d", 3),
        ("PT1D", 3),
        ("PT1Y", 3),
        ("P1D ", 3),
        ("P1DT", 4),
        ("P1D1D", 4),
        ("P1D1M", 4),
        ("P1DT1HT2H", 6),
    ],
)
def test_a_malformed_duration_is_refused_with_the_position_of_the_fault(text, position):
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert caught.value.position == position
    assert f"position {position}" in caught.value.message
    assert "P90D" in caught.value.remedy


@pytest.mark.parametrize("text", ["P0D", "PT0S", "P0Y0M", "P0W", "P10000Y", "P9999Y1M", "P4000000D"])
def test_zero_and_more_than_9999_years_are_refused(text):
    with pytest.raises(DurationError):
        parse_duration(text)


@UNHURRIED
@given(st.text(alphabet="P0123456789YMWDTHS.-+ pd", max_size=12))
def test_any_text_is_a_duration_or_a_fault_within_it(text):
    try:
        duration = parse_duration(text)
    except DurationError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert duration.nominal() > 0


def test_forever_has_no_cutoff_and_no_end():
    assert parse_term("forever") is FOREVER
    assert str(FOREVER) == "forever"
    assert cutoff(datetime.now(UTC), FOREVER) is None
    assert expires_at(datetime.now(UTC), FOREVER) is None


def test_a_cutoff_before_the_year_1_is_its_first_instant():
    first = datetime.min.replace(tzinfo=UTC)
    assert cutoff(datetime(2026, 1, 1, tzinfo=UTC), parse_term("P9000Y")) == first
    assert cutoff(datetime(2026, 1, 1, tzinfo=UTC), parse_term("P900000D")) == first


def test_an_end_beyond_the_year_9999_is_none():
    assert expires_at(datetime(2026, 1, 1, tzinfo=UTC), parse_term("P9000Y")) is None
    assert expires_at(datetime(9999, 12, 1, tzinfo=UTC), parse_term("P40D")) is None


def test_terms_have_one_order_with_forever_above_all():
    ordered = [parse_term(text) for text in ("PT1H", "P1D", "P30D", "P1M", "P365D", "P1Y", "P7Y", "forever")]
    for index, term in enumerate(ordered):
        assert not shorter(term, term)
        assert all(shorter(term, longer) and not shorter(longer, term) for longer in ordered[index + 1 :])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+02:00", datetime(2026, 1, 31, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T23:00:00-05:00", datetime(2026, 2, 1, 4, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_into_utc(text, moment):
    assert instant(text) == moment
    assert instant(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "now", "2026-02-30", "2026-01-31T12:00:00", "2026-01-31T25:00:00Z", "0001-01-01T00:00:00+01:00"]
)
def test_what_is_no_instant_or_has_no_zone_is_refused(text):
    with pytest.raises(UsageError) as caught:
        instant(text)
    assert caught.value.remedy


def test_an_instant_is_printed_in_utc_with_microseconds():
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 5, 17, 2, tzinfo=east)) == "2026-05-17T00:00:00.000000Z"


@UNHURRIED
@given(st.datetimes(timezones=st.just(UTC)))
def test_a_printed_instant_is_read_as_the_same_one(moment):
    assert instant(rfc3339(moment)) == moment
