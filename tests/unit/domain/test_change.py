import copy
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retentiond.domain.change import newly_erases, surely_no_shorter
from retentiond.domain.duration import Duration, cutoff

BASE = {
    "policy": {
        "tiers": ["free", "pro"],
        "unknown_tier": "longest",
        "no_account": "free",
        "downgrade_grace": "P30D",
        "deletion_grace": "P30D",
        "classes": {
            "logs": {
                "terms": {"free": "P90D", "pro": "P1Y"},
                "uniform": False,
                "bounds": {"pro": {"min": None, "max": "P7Y"}},
                "minimum": False,
                "after": "anchor",
                "action": None,
            }
        },
    },
    "accounts": {"tier_map": {}, "id": "id", "deleted_at": "deleted_at", "missing": "unknown"},
    "targets": {"request_logs": {"class": "logs", "anchor": "created_at", "timezone": "UTC", "action": None}},
}


def changed(*path, value):
    document = copy.deepcopy(BASE)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


LOGS = ("policy", "classes", "logs")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ((*LOGS, "terms", "free"), "P30D", "policy.classes.logs.ttl.free becomes shorter: P90D, now P30D"),
        ((*LOGS, "terms", "pro"), "P365D", "policy.classes.logs.ttl.pro becomes shorter: P1Y, now P365D"),
        ((*LOGS, "after"), "account_deleted", "policy.classes.logs.after changes"),
        ((*LOGS, "action"), "anonymise", "policy.classes.logs.action changes"),
        ((*LOGS, "uniform"), True, "policy.classes.logs.uniform changes"),
        ((*LOGS, "bounds", "pro", "max"), "P2Y", "policy.classes.logs.override.pro changes"),
        ((*LOGS, "bounds", "pro", "max"), None, "policy.classes.logs.override.pro changes"),
        ((*LOGS, "bounds", "pro", "min"), "P1D", "policy.classes.logs.override.pro changes"),
        ((*LOGS, "bounds", "free"), {"min": "P1D", "max": None}, "policy.classes.logs.override.free changes"),
        ((*LOGS, "bounds"), {}, "policy.classes.logs.override.pro changes"),
        (("policy", "tiers"), ["free", "pro", "team"], "policy.tiers changes"),
        (("policy", "unknown_tier"), "free", "policy.unknown_tier changes from longest to free"),
        (("policy", "no_account"), "pro", "policy.no_account changes from free to pro"),
        (("policy", "downgrade_grace"), None, "policy.downgrade_grace becomes shorter: P30D, now None"),
        (("policy", "downgrade_grace"), "P29D", "policy.downgrade_grace becomes shorter"),
        (("policy", "downgrade_grace"), "P1M", "policy.downgrade_grace becomes shorter"),
        (("policy", "deletion_grace"), "P1D", "policy.deletion_grace becomes shorter"),
        (("accounts", "tier_map"), {"hobby": "free"}, "accounts changes in tier_map"),
        (("accounts", "id"), "uuid", "accounts changes in id"),
        (("accounts", "missing"), "deleted", "accounts changes in missing"),
        (("accounts",), None, "accounts is taken away"),
        (("targets", "request_logs", "anchor"), "updated_at", "targets.request_logs changes in anchor"),
        (("targets", "request_logs", "unit"), "ms", "targets.request_logs changes in unit"),
        (("targets", "request_logs", "timezone"), "Asia/Tokyo", "targets.request_logs changes in timezone"),
        (("targets", "request_logs", "key"), "{account}/{file}", "targets.request_logs changes in key"),
        (("targets", "request_logs", "action"), "anonymise", "targets.request_logs changes in action"),
        (("targets", "request_logs", "table"), "other", "targets.request_logs changes in table"),
        (("targets", "more"), {"class": "logs", "anchor": "created_at"}, "targets.more is new"),
    ],
)
def test_a_change_that_may_erase_more_is_named(path, value, named):
    (found,) = newly_erases(BASE, changed(*path, value=value))
    assert found.startswith(named)


def test_a_directory_that_is_new_is_named():
    assert newly_erases(changed("accounts", value=None), BASE) == ("accounts is new",)


def test_a_class_that_is_new_is_named_with_its_target():
    new = changed("policy", "classes", "more", value=BASE["policy"]["classes"]["logs"])
    new["targets"]["more"] = {"class": "more"}
    assert newly_erases(BASE, new) == ("targets.more is new", "policy.classes.more is new")


def test_a_class_that_no_target_uses_needs_no_approval():
    assert newly_erases(BASE, changed("policy", "classes", "more", value={"terms": {}})) == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*LOGS, "terms", "free"), "P91D"),
        ((*LOGS, "terms", "free"), "P3M2D"),
        ((*LOGS, "terms", "free"), "forever"),
        ((*LOGS, "minimum"), True),
        (("policy", "downgrade_grace"), "P60D"),
        (("policy", "deletion_grace"), "P31D"),
        (("targets",), {}),
    ],
)
def test_a_change_that_can_only_keep_more_needs_no_approval(path, value):
    assert newly_erases(BASE, changed(*path, value=value)) == ()


def test_a_missing_account_that_counts_as_deleted_no_more_needs_no_approval():
    assert newly_erases(changed("accounts", "missing", value="deleted"), BASE) == ()


def test_the_end_of_a_legal_minimum_is_named():
    assert newly_erases(changed(*LOGS, "minimum", value=True), BASE) == (
        "policy.classes.logs is no legal minimum any more",
    )


def test_a_legal_minimum_that_becomes_shorter_is_named():
    old = changed(*LOGS, "minimum", value=True)
    new = copy.deepcopy(old)
    new["policy"]["classes"]["logs"]["terms"]["pro"] = "P6M"
    assert newly_erases(old, new) == ("policy.classes.logs.ttl.pro becomes shorter: P1Y, now P6M",)


DURATIONS = st.builds(
    Duration, st.integers(0, 40), st.integers(0, 800), st.integers(0, 2).map(lambda n: n * 43_200_000_000)
).filter(lambda duration: duration != Duration())


@given(DURATIONS, DURATIONS, st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_a_term_that_is_surely_no_shorter_expires_nothing_earlier(new, old, now):
    if surely_no_shorter(new, old):
        assert cutoff(now, new) <= cutoff(now, old)
