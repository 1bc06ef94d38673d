from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.domain.duration import FOREVER, Duration, parse_term
from retentiond.domain.policy import Bounds, parse_policy

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None)

GOOD = {
    "tiers": ["free", "pro"],
    "no_account": "free",
    "classes": {
        "logs": {"ttl": {"free": "P90D", "pro": "P365D"}, "override": {"pro": {"min": "P1D", "max": "P7Y"}}},
        "audit": {"ttl": "P7Y", "minimum": True},
        "people": {"ttl": "P30D", "after": "account_deleted", "action": "anonymise"},
    },
}
USED = frozenset({"logs", "audit", "people"})


def changed(path: str, value: object) -> dict:
    """The good document with one value replaced."""
    document = copy.deepcopy(GOOD)
    *above, last = path.split(".")
    at = document
    for name in above:
        at = at.setdefault(name, {})
    at[last] = value
    return document


def faults(document, used=USED):
    policy, problems = parse_policy(document, used_classes=used)
    assert (policy is None) == bool(problems)
    return problems


def test_a_policy_is_read_whole():
    policy, problems = parse_policy(GOOD, used_classes=USED)
    assert problems == ()
    assert policy.tiers == ("free", "pro")
    assert list(policy.classes) == ["audit", "logs", "people"]
    logs, audit, people = (policy.classes[name] for name in ("logs", "audit", "people"))
    assert dict(logs.terms) == {"free": Duration(days=90), "pro": Duration(days=365)}
    assert dict(logs.bounds) == {"pro": Bounds(Duration(days=1), Duration(months=84))}
    assert (logs.uniform, logs.minimum, logs.after, logs.action) == (False, False, "anchor", None)
    assert dict(audit.terms) == dict.fromkeys(("free", "pro"), Duration(months=84))
    assert (audit.uniform, audit.minimum) == (True, True)
    assert (people.after, people.action) == ("account_deleted", "anonymise")


def test_what_is_left_out_has_the_defaults_of_the_semantics():
    document = {"tiers": ["free"], "classes": {"logs": {"ttl": "P1D"}}}
    policy, _ = parse_policy(document, used_classes=frozenset({"logs"}))
    assert policy.downgrade_grace == Duration(days=30)
    assert policy.deletion_grace == Duration(days=30)
    assert policy.unknown_tier == "longest"
    assert policy.no_account is None


@pytest.mark.parametrize("value", ["none", "0", 0])
def test_the_downgrade_grace_can_be_switched_off(value):
    policy, _ = parse_policy(changed("downgrade_grace", value), used_classes=USED)
    assert policy.downgrade_grace is None


def test_the_candidates_are_all_tiers_terms_and_the_maxima_of_overrides():
    policy, _ = parse_policy(GOOD, used_classes=USED)
    assert [str(term) for term in policy.classes["logs"].candidates()] == ["P90D", "P365D", "P7Y"]
    assert [str(term) for term in policy.classes["audit"].candidates()] == ["P7Y"]


def test_an_override_without_a_maximum_may_be_forever():
    policy, _ = parse_policy(changed("classes.logs.override", {"pro": {}}), used_classes=USED)
    assert policy.classes["logs"].candidates()[-1] is FOREVER


def test_bounds_are_inclusive_on_both_sides():
    bounds = Bounds(parse_term("P30D"), parse_term("P7Y"))
    assert [bounds.admit(parse_term(text)) for text in ("P29D", "P30D", "P7Y", "P85M", "forever")] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert Bounds(None, None).admit(FOREVER)


def test_a_later_source_may_take_an_override_away():
    policy, problems = parse_policy(changed("classes.logs.override.pro", None), used_classes=USED)
    assert problems == ()
    assert dict(policy.classes["logs"].bounds) == {}


def test_policies_that_mean_the_same_have_the_same_document():
    other = changed("classes.audit.ttl", {"pro": "P84M", "free": "P7Y"})
    other["classes"] = dict(reversed(other["classes"].items()))
    one, _ = parse_policy(GOOD, used_classes=USED)
    two, _ = parse_policy(other, used_classes=USED)
    ours, theirs = one.document(), two.document()
    ours["classes"]["audit"].pop("uniform")
    theirs["classes"]["audit"].pop("uniform")
    assert ours == theirs


@pytest.mark.parametrize(
    ("path", "value", "key", "message", "remedy"),
    [
        ("tiers", [], "policy.tiers", "no tier", "list the plans"),
        ("tiers", "free", "policy.tiers", "a list was expected, not text", "list the plans"),
        ("tiers", ["free", "pro", "free"], "policy.tiers.2", "listed twice", "once"),
        ("tiers", ["free", "pro", 3], "policy.tiers.2", "can't be the name", "lower-case"),
        ("tiers", ["free", "pro", "longest"], "policy.tiers.2", "a rule", "another name"),
        ("tirs", [], "policy.tirs", "no key 'tirs'", "did you mean tiers?"),
        ("downgrade_grace", "P1X", "policy.downgrade_grace", "position 2", "P90D"),
        ("downgrade_grace", "forever", "policy.downgrade_grace", "forever", "none"),
        ("downgrade_grace", False, "policy.downgrade_grace", "a duration was expected", "P90D"),
        ("deletion_grace", "none", "policy.deletion_grace", "position 0", "P90D"),
        ("deletion_grace", "forever", "policy.deletion_grace", "forever", "P30D"),
        ("unknown_tier", "longst", "policy.unknown_tier", "'longst' is not one of", "did you mean longest?"),
        ("no_account", "fre", "policy.no_account", "'fre' is not one of", "did you mean free?"),
        ("classes", {}, "policy.classes", "the policy is empty", "at least one class"),
        ("classes", None, "policy.classes", "the policy is empty", "at least one class"),
        ("classes", [], "policy.classes", "a mapping was expected, not a list", "keys"),
        ("classes.Logs", {"ttl": "P1D"}, "policy.classes.Logs", "can't be the name of a class", "lower-case"),
        ("classes.logs", None, "policy.classes.logs", "a mapping was expected, not nothing", "keys"),
        ("classes.audit.ttl", None, "policy.classes.audit.ttl", "has no TTL", "one per tier"),
        ("classes.audit.ttl", 90, "policy.classes.audit.ttl", "a duration was expected, not a number", "P90D"),
        ("classes.audit.ttl", "P0D", "policy.classes.audit.ttl", "zero", "P90D"),
        ("classes.audit.ttl", "-P1D", "policy.classes.audit.ttl", "position 0", "P90D"),
        ("classes.audit.ttl", "P1W1D", "policy.classes.audit.ttl", "position 2", "P90D"),
        ("classes.logs.ttl", {"free": "P1D"}, "policy.classes.logs.ttl.pro", "no TTL for the tier pro", "add pro"),
        ("classes.logs.ttl.free", "90 days", "policy.classes.logs.ttl.free", "position 0", "P90D"),
        ("classes.logs.ttl.por", "P1D", "policy.classes.logs.ttl.por", "no tier 'por'", "did you mean pro?"),
        ("classes.logs.override", "P7Y", "policy.classes.logs.override", "a mapping was expected", "keys"),
        (
            "classes.logs.override",
            {"gold": {}},
            "policy.classes.logs.override.gold",
            "no tier 'gold'",
            "known: free, pro",
        ),
        ("classes.logs.override.pro.mox", "P1D", "policy.classes.logs.override.pro.mox", "no key 'mox'", "max"),
        ("classes.logs.override.pro.max", "7y", "policy.classes.logs.override.pro.max", "position 0", "P7Y"),
        (
            "classes.logs.override.pro.min",
            "P8Y",
            "policy.classes.logs.override.pro",
            "longer than the maximum",
            "shorter",
        ),
        ("classes.audit.minimum", "maybe", "policy.classes.audit.minimum", "true or false was expected", "true"),
        ("classes.audit.minimum", 1, "policy.classes.audit.minimum", "true or false was expected", "true"),
        ("classes.audit.mininum", True, "policy.classes.audit.mininum", "no key", "did you mean minimum?"),
        (
            "classes.people.after",
            "deleted",
            "policy.classes.people.after",
            "'deleted' is not one of",
            "account_deleted",
        ),
        ("classes.people.action", "erase", "policy.classes.people.action", "'erase' is not one of", "delete"),
        (
            "classes.audit.override",
            {"pro": {"max": "P10Y"}},
            "policy.classes.audit.override.pro",
            "legal minimum",
            "P7Y",
        ),
    ],
)
def test_each_fault_of_a_policy_names_its_key_and_the_remedy(path, value, key, message, remedy):
    found = [problem for problem in faults(changed(path, value)) if problem.key == key]
    assert len(found) == 1
    assert message in found[0].message
    assert remedy in found[0].remedy


def test_all_faults_are_reported_at_once():
    document = changed("classes.logs.ttl.free", "P1X")
    document["classes"]["audit"]["minimum"] = "maybe"
    document["classes"]["people"]["after"] = "never"
    document["unknown_tier"] = "gold"
    assert {problem.key for problem in faults(document)} == {
        "policy.classes.logs.ttl.free",
        "policy.classes.audit.minimum",
        "policy.classes.people.after",
        "policy.unknown_tier",
    }


def test_a_class_that_no_target_uses_needs_no_completeness():
    document = changed("classes.logs.ttl", {"free": "P1D"})
    document["classes"]["audit"] = {}
    policy, problems = parse_policy(document, used_classes=frozenset({"people"}))
    assert problems == ()
    assert dict(policy.classes["logs"].terms) == {"free": Duration(days=1)}
    assert dict(policy.classes["audit"].terms) == {}


def test_a_class_that_no_target_uses_must_still_be_right_in_what_it_says():
    assert [problem.key for problem in faults(changed("classes.logs.ttl.free", "P1X"), used=frozenset())] == [
        "policy.classes.logs.ttl.free"
    ]


def test_a_legal_minimum_may_be_lengthened_by_an_override():
    assert faults(changed("classes.audit.override", {"pro": {"min": "P7Y", "max": "P10Y"}})) == ()


nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["free", "P1D", "forever"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["free", "ttl", "override", "logs", "tiers", "classes", "min", "x"]), inner)
    ),
    max_leaves=8,
)
places = st.sampled_from(
    ["tiers", "classes", "no_account", "unknown_tier", "downgrade_grace", "deletion_grace", "classes.logs",
     "classes.logs.ttl", "classes.logs.override", "classes.logs.override.pro", "classes.audit.minimum", "x"]
)  # fmt: skip


@UNHURRIED
@given(place=places, value=nonsense)
def test_whatever_stands_in_a_policy_gives_a_policy_or_problems(place, value):
    policy, problems = parse_policy(changed(place, value), used_classes=USED)
    assert (policy is None) == bool(problems)
    assert all(problem.key.startswith("policy") and problem.message and problem.remedy for problem in problems)
