import copy

import pytest

from retentiond.domain.change import newly_erases

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
    "accounts": {"tier_map": {}},
    "targets": {"request_logs": {"class": "logs", "anchor": "created_at"}},
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
    ("path", "value"),
    [
        ((*LOGS, "terms", "free"), "P30D"),
        ((*LOGS, "after"), "account_deleted"),
        ((*LOGS, "bounds", "pro", "max"), "P2Y"),
        ((*LOGS, "bounds", "pro", "min"), "P1D"),
        ((*LOGS, "bounds"), {}),
        (("policy", "downgrade_grace"), None),
        (("policy", "deletion_grace"), "P1D"),
        (("policy", "no_account"), "pro"),
        (("accounts", "tier_map"), {"hobby": "free"}),
        (("targets", "request_logs", "anchor"), "updated_at"),
        (("targets", "more"), {"class": "logs", "anchor": "created_at"}),
    ],
)
def test_a_change_that_may_erase_more_is_named(path, value):
    assert newly_erases(BASE, changed(*path, value=value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*LOGS, "terms", "free"), "P91D"),
        ((*LOGS, "terms", "free"), "forever"),
        ((*LOGS, "bounds", "pro", "max"), None),
        ((*LOGS, "minimum"), True),
        (("policy", "downgrade_grace"), "P60D"),
        (("targets",), {}),
    ],
)
def test_a_change_that_can_only_keep_more_needs_no_approval(path, value):
    assert newly_erases(BASE, changed(*path, value=value)) == ()


def test_the_end_of_a_legal_minimum_is_named():
    assert newly_erases(changed(*LOGS, "minimum", value=True), BASE)
