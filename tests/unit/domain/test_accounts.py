"""Each sentence of 2-semantics, "Tiers", about unknown tiers, overrides and the downgrade grace."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retentiond.domain.accounts import (
    UNKNOWN,
    AccountFacts,
    Surveyed,
    TierRules,
    account_hash,
    longest,
    of_nobody,
    resolve,
)
from retentiond.domain.duration import cutoff, parse_term
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.domain.verdict import Kind, RecordFacts, judge

NOW = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
TTL = {"free": "P90D", "pro": "P365D", "enterprise": "P365D"}
BOUNDS = {"pro": {"max": "P3Y"}, "enterprise": {"min": "P30D", "max": "P7Y"}}


def policy_of(ttl=TTL, override=BOUNDS, *, allow_short=False, **more):
    data_class = {"ttl": ttl, "override": override, **more.pop("of_class", {})}
    document = {"tiers": list(TTL), "classes": {"logs": data_class}, **more}
    policy, faults = parse_policy(document, used_classes=frozenset(["logs"]), allow_short=allow_short)
    assert policy is not None, faults
    return policy


def resolved(policy, tier="free", override=None, *, in_grace=False, tier_map=None):
    facts = AccountFacts(True, tier, override, in_grace=in_grace)
    return resolve(policy, policy.classes["logs"], TierRules(tier_map or {}), facts, NOW)


def test_an_override_within_the_bounds_of_its_own_tier_is_the_term():
    assert str(resolved(policy_of(), "enterprise", "P7Y").term) == "P7Y"
    assert str(resolved(policy_of(), "pro", "P30D").term) == "P30D"


@pytest.mark.parametrize(
    "override", ["ninety days", "", "P0D", "-P1D", "P1W1D", "(no JSON object)", "P99Y", "forever", "PT1H"]
)
def test_a_malformed_override_or_one_out_of_bounds_for_every_tier_is_unresolved(override):
    for tier in (*TTL, "gold", None):
        for in_grace in (False, True):
            found = resolved(policy_of(), tier, override, in_grace=in_grace)
            assert (found.cutoff, found.term) == (None, None)
            assert "override" in found.fault


def test_any_override_of_a_class_that_allows_none_is_unresolved():
    assert resolved(policy_of(override={}), "free", "P1Y").fault


def test_an_override_valid_only_for_another_tier_is_ignored_after_the_downgrade_grace():
    found = resolved(policy_of(), "free", "P7Y")
    assert (str(found.term), found.rule, found.fault) == ("P90D", "tier", None)
    assert str(resolved(policy_of(), "pro", "P7Y").term) == "P365D"


@pytest.mark.parametrize("override", [None, "P7Y", "P10D", "P2Y"])
def test_within_the_downgrade_grace_the_longest_term_applies_bounds_included(override):
    for tier in (*TTL, "gold"):
        found = resolved(policy_of(), tier, override, in_grace=True)
        assert (str(found.term), found.rule) == ("P7Y", "downgrade_grace")


def test_a_mapped_tier_has_the_bounds_of_the_tier_it_is_mapped_to():
    rules = {"business": "enterprise"}
    assert str(resolved(policy_of(), "business", "P7Y", tier_map=rules).term) == "P7Y"
    assert resolved(policy_of(), "business", "P7Y").tier == UNKNOWN


def test_an_unknown_tier_gets_the_longest_term_and_its_valid_override_none():
    for tier in ("gold", None):
        found = resolved(policy_of(), tier, "P10D")
        assert (found.tier, str(found.term), found.fault) == (UNKNOWN, "P7Y", None)


def test_an_unknown_tier_is_unresolved_where_the_longest_term_is_forever():
    found = resolved(policy_of({**TTL, "pro": "forever"}), "gold")
    assert found.cutoff is None
    assert "forever" in found.fault


def test_a_bound_without_a_maximum_makes_the_longest_term_forever():
    assert resolved(policy_of(override={"pro": {}}), "gold").fault
    assert resolved(policy_of(override={"pro": {}}), "free", in_grace=True).cutoff is None


def test_an_unknown_tier_can_be_given_a_tiers_term():
    assert str(resolved(policy_of(unknown_tier="free"), "gold").term) == "P90D"


def test_one_ttl_for_all_is_the_term_of_an_unknown_tier_too():
    assert str(resolved(policy_of("P7Y", {}), "gold").term) == "P7Y"


def test_a_record_of_nobody_gets_the_tier_of_the_policy_or_else_the_longest_term():
    free, unset = policy_of(no_account="free"), policy_of()
    assert str(of_nobody(free, free.classes["logs"], NOW).term) == "P90D"
    assert str(of_nobody(unset, unset.classes["logs"], NOW).term) == "P7Y"


def test_an_override_whose_bounds_have_no_minimum_may_not_be_under_a_day():
    assert resolved(policy_of(), "pro", "PT23H").fault
    assert str(resolved(policy_of(), "pro", "PT24H").term) == "PT24H"
    assert str(resolved(policy_of(allow_short=True), "pro", "PT23H").term) == "PT23H"
    assert str(resolved(policy_of(override={"pro": {"min": "PT1H"}}), "pro", "PT2H").term) == "PT2H"


def test_allowing_short_terms_changes_the_policys_document():
    assert policy_of().document() != policy_of(allow_short=True).document()


TERMS = st.sampled_from(["P10D", "P30D", "P90D", "P1M", "P1Y", "P7Y", "forever"])
ENDS = st.none() | TERMS
RAW = st.sampled_from([*TTL, "hobby", "gold", None])
OVERRIDES = st.none() | TERMS | st.sampled_from(["ninety", "P99Y", "PT36H", "P1D"])


@st.composite
def policies(draw):
    bounds = {}
    for tier in draw(st.sets(st.sampled_from(list(TTL)))):
        low, high = draw(ENDS), draw(ENDS)
        if low and high and cutoff_of(high) > cutoff_of(low):
            low, high = high, low
        bounds[tier] = {name: end for name, end in (("min", low), ("max", high)) if end}
    ttl = draw(TERMS | st.fixed_dictionaries(dict.fromkeys(TTL, TERMS)))
    return policy_of(ttl, bounds, unknown_tier=draw(st.sampled_from(["longest", "free"])))


def cutoff_of(text):
    return cutoff(NOW, parse_term(text)) or datetime.min.replace(tzinfo=UTC)


def edge(found):
    return found.cutoff or datetime.min.replace(tzinfo=UTC)


@given(policies(), RAW, OVERRIDES)
def test_no_grace_ever_shortens_a_term(policy, tier, override):
    plain, graced = resolved(policy, tier, override), resolved(policy, tier, override, in_grace=True)
    assert edge(graced) <= edge(plain)


@given(policies(), RAW, OVERRIDES)
def test_no_account_has_a_term_beyond_the_longest_and_a_fault_never_a_cutoff(policy, tier, override):
    found = resolved(policy, tier, override)
    assert found.cutoff is None or found.cutoff >= (cutoff(NOW, longest(policy.classes["logs"], NOW)) or found.cutoff)
    assert found.fault is None or found.cutoff is None


@given(policies(), RAW, OVERRIDES)
def test_an_override_changes_a_term_only_within_its_own_tiers_bounds(policy, tier, override):
    found, without = resolved(policy, tier, override), resolved(policy, tier)
    if found.rule == "override" and found.fault is None:
        assert policy.classes["logs"].bounds[found.tier].admit(found.term)
        assert str(found.term) == override
    elif found.rule != "override":
        assert found == without


# --- What is remembered ---

KEY = b"k" * 32


def remembering(**more):
    return Surveyed(key=KEY, **more)


def test_an_account_whose_tier_is_not_that_of_the_survey_is_in_its_grace():
    surveyed = remembering(tiers={"1": "pro", "2": None})
    seen = {account: surveyed.in_grace(account, tier) for account, tier in (("1", "pro"), ("2", "free"), ("3", "free"))}
    assert seen == {"1": False, "2": True, "3": True}
    assert surveyed.in_grace("1", "free")


def test_where_the_directory_dates_its_changes_nothing_is_compared():
    assert not remembering().in_grace("1", "free")
    assert remembering(recent=frozenset(["1"])).in_grace("1", "free")


def test_without_a_downgrade_grace_nothing_is_in_it():
    facts = AccountFacts(True, "free")
    surveyed = remembering(recent=frozenset(["1"]), tiers={"1": "pro"})
    assert not surveyed.applied("1", facts, has_grace=False).in_grace
    assert surveyed.applied("1", facts, has_grace=True).in_grace


def plan_of(policy, **more):
    return TargetPlan("logs", policy.classes["logs"], policy, NOW, **more)


def judged(plan, account="1", age=timedelta(days=1)):
    facts = plan.surveyed.applied(account, AccountFacts(), has_grace=True)
    return judge(plan, RecordFacts("r", NOW - age, account), facts)


def missing(account="1", days=31):
    return remembering(missing={account_hash(KEY, account): NOW - timedelta(days=days)})


def test_a_missing_account_that_counts_as_deleted_is_due_after_the_grace():
    assert judged(plan_of(policy_of(), surveyed=missing(days=29))).kind is Kind.KEEP
    found = judged(plan_of(policy_of(), surveyed=missing(days=31)))
    assert (found.kind, found.reason) == (Kind.ERASE, "account_erasure")
    assert any("missing since" in line for line in found.considered)


def test_a_missing_account_keeps_what_the_law_keeps():
    policy = policy_of("P7Y", {}, of_class={"minimum": True})
    assert judged(plan_of(policy, surveyed=missing(days=400))).kind is Kind.MINIMUM


def test_a_class_that_counts_from_deletion_counts_from_when_the_account_was_first_missed():
    policy = policy_of("P60D", {}, of_class={"after": "account_deleted"}, deletion_grace="P90D")
    assert judged(plan_of(policy, surveyed=missing(days=59))).kind is Kind.KEEP
    found = judged(plan_of(policy, surveyed=missing(days=61)))
    assert (found.kind, found.reason) == (Kind.ERASE, "expired")


def test_an_account_that_never_was_in_the_directory_is_unknown_and_not_deleted():
    found = judged(plan_of(policy_of(), surveyed=missing("2", days=400)))
    assert (found.kind, found.tier, found.rule) == (Kind.KEEP, UNKNOWN, "unknown_tier")


def test_an_account_that_is_back_in_the_directory_is_not_missing():
    plan = plan_of(policy_of(), surveyed=missing(days=400))
    facts = plan.surveyed.applied("1", AccountFacts(True, "pro"), has_grace=True)
    assert facts == replace(AccountFacts(True, "pro"), in_grace=False)


def test_an_account_is_remembered_by_a_keyed_hash():
    assert len(account_hash(KEY, "1")) == 16
    assert account_hash(KEY, "1") != account_hash(b"l" * 32, "1")
