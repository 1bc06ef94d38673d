"""The ceiling of a log group: never shorter than what may be promised, and one of the values that AWS permits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retentiond.domain.accounts import TierRules
from retentiond.domain.duration import Duration, expires_at, parse_term
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.stores.cloudwatch.retention import PERMITTED, held, longest_term, rounded_up
from retentiond.stores.rulings import Untold
from tests.services.strict_logs import DAYS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = {
    "tiers": ["free", "pro"],
    "unknown_tier": "longest",
    "classes": {
        "logs": {"ttl": {"free": "P90D", "pro": "P365D"}, "override": {"pro": {"max": "P7Y"}}},
        "kept": {"ttl": {"free": "P30D", "pro": "forever"}},
        "account": {"after": "account_deleted", "ttl": "P30D"},
    },
}


def plan(data_class="logs", **more):
    policy, problems = parse_policy(POLICY, used_classes=frozenset(POLICY["classes"]))
    assert policy is not None, problems
    usual = {"tier_source": "record", "rules": TierRules({"hobby": "free"})}
    return TargetPlan("t", policy.classes[data_class], policy, NOW, **{**usual, **more})


def test_the_permitted_values_are_those_of_the_documentation():
    assert set(PERMITTED) == DAYS
    assert list(PERMITTED) == sorted(PERMITTED)


@pytest.mark.parametrize(
    ("term", "days"),
    [
        ("P1D", 1), ("PT36H", 3), ("P30D", 30), ("P31D", 60), ("P90D", 90), ("P100D", 120), ("P365D", 365),
        ("P1Y", 400), ("P2Y", 731), ("P3Y", 1096), ("P7Y", 2557), ("P10Y", 3653), ("P11Y", None), ("forever", None),
    ],
)  # fmt: skip
def test_a_term_is_rounded_up(term, days):
    assert rounded_up(parse_term(term)) == days


@given(
    st.builds(
        Duration,
        months=st.integers(0, 119),
        days=st.integers(0, 400),
        microseconds=st.integers(1, 10**12),
    ),
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
def test_no_event_goes_before_its_term_is_over_whenever_it_was(term, at):
    days = rounded_up(term)
    if days is not None:
        assert at + timedelta(days=days) >= expires_at(at, term)


@pytest.mark.parametrize(
    ("more", "account", "tier", "term"),
    [
        ({}, None, "free", "P90D"),
        ({}, None, "hobby", "P90D"),
        ({}, "1", "free", "P90D"),
        ({}, None, "pro", "P7Y"),  # a group without an account of a target that knows accounts
        ({"knows_account": False}, None, "pro", "P365D"),
        ({"has_directory": False}, "1", "pro", "P365D"),
        ({}, "1", "pro", "P7Y"),
        ({}, None, "gold", "P7Y"),
        ({}, None, None, "P7Y"),
        ({"tier_source": "constant", "tier": "free"}, "1", None, "P90D"),
        ({"tier_source": "directory"}, "1", None, "P7Y"),
        ({"tier_source": "none"}, None, None, "P7Y"),
        ({}, Untold.TAG, "free", "forever"),
        ({"data_class": "kept"}, "1", "free", "P30D"),
        ({"data_class": "kept"}, "1", "pro", "forever"),
        ({"data_class": "kept", "tier_source": "directory"}, "1", None, "forever"),
        ({"data_class": "account"}, "1", "free", "forever"),
    ],
)
def test_the_longest_term_that_the_policy_allows_a_group(more, account, tier, term):
    assert str(longest_term(plan(**more), account, tier)) == term


@pytest.mark.parametrize(
    ("hold", "bears"),
    [
        (TargetHold("h"), True),
        (TargetHold("h", accounts=frozenset({"1"})), True),
        (TargetHold("h", accounts=frozenset({"2"})), False),
        (TargetHold("h", records=frozenset({"/app/web:s"})), True),
        (TargetHold("h", records=frozenset({"/app/web"})), True),
        (TargetHold("h", records=frozenset({"/app/web2:s", "/app"})), False),
        (TargetHold("h", prefixes=("/app/",)), True),
        (TargetHold("h", prefixes=("/app/web:2026",)), True),
        (TargetHold("h", prefixes=("/app/worker",)), False),
        (TargetHold("h", accounts=frozenset({"2"}), records=frozenset({"/app/web:s"})), False),
        (TargetHold("h", since=NOW, until=NOW + timedelta(days=1)), True),
    ],
)
def test_a_hold_bears_on_a_group_if_it_may_cover_a_stream_of_it(hold, bears):
    assert held([hold], "1", "/app/web") is bears


def test_a_group_whose_account_cant_be_told_is_under_every_hold_on_an_account():
    assert held([TargetHold("h", accounts=frozenset({"2"}))], Untold.TAG, "/app/web")
    assert not held([TargetHold("h", accounts=frozenset({"2"}))], None, "/app/web")
