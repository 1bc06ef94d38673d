"""Rules by which a store erases by itself, against holds and the policy."""

from datetime import UTC, datetime

import pytest

from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.domain.native_expiry import NativeRule, judge_rules
from retentiond.domain.policy import parse_policy

NOW = datetime(2026, 3, 31, tzinfo=UTC)


def data_class(ttl, **more):
    document = {"tiers": ["free", "pro"], "classes": {"logs": {"ttl": ttl, **more}}}
    policy, faults = parse_policy(document, used_classes=frozenset(["logs"]))
    assert policy is not None, faults
    return policy.classes["logs"]


def hold(state=HoldState.ACTIVE, **scope):
    return Hold("h1", "2026-17", "r", Scope(**scope), state, "x", NOW)


def told(rule, ttl=None, holds=(), **more):
    found = judge_rules([rule], target="t", data_class=data_class(ttl or "P90D", **more), holds=holds)
    return [(each.severity, each.hold) for each in found]


@pytest.mark.parametrize(
    ("prefix", "scope", "against"),
    [
        ("", {"everything": True}, True),
        ("a/", {"accounts": ("7",)}, True),
        ("a/", {"classes": ("logs",)}, True),
        ("a/", {"classes": ("other",)}, False),
        ("a/", {"targets": ("other",)}, False),
        ("a/", {"until": datetime(2020, 1, 1, tzinfo=UTC)}, True),
        ("a/", {"prefixes": {"t": ("a/b/",)}}, True),
        ("a/", {"prefixes": {"t": ("a",)}}, True),
        ("a/", {"prefixes": {"t": ("b/",)}}, False),
        ("a/", {"prefixes": {"other": ("a/",)}}, False),
        ("a/", {"records": {"t": ("b/x", "a/x")}}, True),
        ("a/", {"records": {"t": ("b/x",)}}, False),
        ("a/", {"records": {"t": ("b/x",)}, "prefixes": {"t": ("a/x",)}}, True),
    ],
)
def test_a_rule_is_against_each_hold_whose_records_it_may_reach(prefix, scope, against):
    assert told(NativeRule("r", prefix, 90), holds=[hold(**scope)]) == ([("conflict", "h1")] if against else [])


@pytest.mark.parametrize("state", list(HoldState))
def test_a_hold_that_is_pending_or_in_its_grace_counts_and_a_released_one_does_not(state):
    found = told(NativeRule("r", "", 90), holds=[hold(state, everything=True)])
    assert bool(found) is (state is not HoldState.RELEASED)


@pytest.mark.parametrize(
    ("days", "ttl", "severity"),
    [
        (90, "P90D", None),
        (89, "P90D", "sooner"),
        (91, "P90D", "later"),
        (2557, "P7Y", None),
        (2556, "P7Y", "sooner"),
        (2558, "P7Y", "later"),
        (31, "P1M", None),
        (30, "P1M", "sooner"),
        (90, {"free": "P30D", "pro": "P90D"}, "later"),
        (89, {"free": "P30D", "pro": "P90D"}, "sooner"),
        (36500, "forever", "sooner"),
        (0, "PT36H", "sooner"),
        (2, "PT36H", "later"),
    ],
)
def test_a_rule_sooner_or_later_than_the_promise_is_told(days, ttl, severity):
    assert told(NativeRule("r", "", days), ttl) == ([(severity, None)] if severity else [])


def test_an_account_s_own_longer_term_counts():
    override = {"pro": {"max": "P1Y"}}
    assert told(NativeRule("r", "", 90), {"free": "P90D", "pro": "P90D"}, override=override) == [("sooner", None)]


def test_a_rule_sooner_than_a_legal_minimum_is_a_conflict_and_one_that_is_later_is_none():
    assert told(NativeRule("r", "", 2556), "P7Y", minimum=True) == [("conflict", None)]
    assert told(NativeRule("r", "", 2557), "P7Y", minimum=True) == []
    assert told(NativeRule("r", "", 3000), "P7Y", minimum=True) == [("later", None)]
    assert told(NativeRule("r", at=NOW), "P7Y", minimum=True) == [("conflict", None)]


def test_a_rule_for_what_counts_from_a_deletion_or_on_a_day_is_told():
    assert told(NativeRule("r", "", 3000), after="account_deleted") == [("sooner", None)]
    assert told(NativeRule("r", at=NOW)) == [("sooner", None)]


def test_each_rule_is_judged_against_each_hold():
    rules = [NativeRule("a", "a/", 90), NativeRule("b", "b/", 90)]
    holds = [hold(everything=True), hold(prefixes={"t": ("b/",)})]
    found = judge_rules(rules, target="t", data_class=data_class("P90D"), holds=holds)
    assert [each.rule.name for each in found] == ["a", "b", "b"]
    assert "matter 2026-17" in found[0].why
