"""Which holds a changed configuration would get records from under."""

import copy
from datetime import UTC, datetime

import pytest

from retentiond.domain.change import evaded
from retentiond.domain.holds import Hold, HoldState, Scope

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOGS = {"store": "postgres", "class": "logs", "table": "public.logs", "anchor": "created_at", "timezone": "UTC",
        "unit": None, "account": "account_id", "key": None}  # fmt: skip
CONFIGURATION = {"policy": {"classes": {"logs": {}, "traces": {}}}, "targets": {"reqlogs": LOGS}}


def hold(name="h", state=HoldState.ACTIVE, matter="m", **scope):
    return Hold(name, matter, "r", Scope(**scope), state, "counsel", NOW)


def with_targets(**targets):
    return {**copy.deepcopy(CONFIGURATION), "targets": targets}


RENAMED = with_targets(rq=LOGS)
SINCE = {"since": NOW}


@pytest.mark.parametrize(
    ("scope", "new", "why"),
    [
        ({"targets": ("reqlogs",)}, RENAMED, "no target reqlogs"),
        ({"records": {"reqlogs": ("1",)}}, RENAMED, "no target reqlogs"),
        ({"prefixes": {"reqlogs": ("a",)}}, RENAMED, "no target reqlogs"),
        ({"targets": ("reqlogs",)}, with_targets(), "no target reqlogs"),
        ({"classes": ("logs",)}, {"policy": {"classes": {"traces": {}}}, "targets": {}}, "no class logs"),
        ({"classes": ("logs",)}, with_targets(reqlogs=LOGS | {"class": "traces"}), "class of target reqlogs"),
        ({"classes": ("logs",)}, with_targets(rq=LOGS | {"class": "traces"}), "those of target rq now"),
        ({"targets": ("reqlogs",)}, with_targets(reqlogs=LOGS | {"table": "public.other"}), "table of target"),
        ({"records": {"reqlogs": ("1",)}}, with_targets(reqlogs=LOGS | {"key": ["uid"]}), "key of target"),
        ({"targets": ("reqlogs",)} | SINCE, with_targets(reqlogs=LOGS | {"anchor": "seen"}), "anchor of target"),
        (SINCE, with_targets(reqlogs=LOGS | {"timezone": "Europe/Dublin"}), "timezone of target"),
        ({"accounts": ("1",)}, with_targets(reqlogs=LOGS | {"account": "org_id"}), "account of target"),
    ],
)  # fmt: skip
def test_a_hold_whose_records_go_by_another_name_is_evaded(scope, new, why):
    (found,) = evaded([hold(**scope)], CONFIGURATION, new)
    assert why in str(found)
    assert "hold h (matter m)" in str(found)


@pytest.mark.parametrize(
    ("scope", "new"),
    [
        ({"targets": ("reqlogs",)}, CONFIGURATION),
        ({"targets": ("reqlogs",)}, with_targets(reqlogs=LOGS | {"class": "traces", "anchor": "seen"})),
        ({"classes": ("logs",)}, RENAMED),
        ({"classes": ("logs", "traces")}, with_targets(reqlogs=LOGS | {"class": "traces"})),
        ({"accounts": ("1",)}, RENAMED),
        ({"accounts": ("1",)}, with_targets(reqlogs=LOGS | {"account": None})),
        ({"everything": True}, with_targets(rq=LOGS | {"class": "traces"})),
        ({"classes": ("traces",)}, with_targets(reqlogs=LOGS | {"anchor": "seen"})),
    ],
)
def test_a_hold_that_keeps_what_it_kept_lets_the_configuration_pass(scope, new):
    assert evaded([hold(**scope)], CONFIGURATION, new) == ()


def test_before_the_first_configuration_in_force_only_lost_names_count():
    assert evaded([hold(targets=("reqlogs",))], None, CONFIGURATION) == ()
    assert len(evaded([hold(targets=("reqlogs",))], None, RENAMED)) == 1


def test_a_released_hold_is_past():
    assert evaded([hold(state=HoldState.RELEASED, targets=("reqlogs",))], CONFIGURATION, RENAMED) == ()


OLD = {"targets": ("reqlogs",), "accounts": ("1", "2"), "since": NOW}


@pytest.mark.parametrize(
    ("new", "passes"),
    [
        ({"targets": ("rq",)}, True),
        (OLD | {"targets": ("rq",)}, True),
        (OLD | {"targets": ("rq",), "accounts": ("1", "2", "3")}, True),
        (OLD | {"targets": ("rq",), "accounts": ("1",)}, False),
        (OLD | {"targets": ("rq",), "since": datetime(2026, 2, 1, tzinfo=UTC)}, False),
        (OLD | {"targets": ("rq",), "until": datetime(2027, 1, 1, tzinfo=UTC)}, False),
        (OLD | {"records": {"rq": ("1",)}, "targets": ()}, False),
        (OLD | {"targets": ("gone",)}, False),
    ],
)
def test_a_hold_in_its_grace_gives_way_to_one_of_its_matter_that_is_as_wide(new, passes):
    old = hold("old", HoldState.RELEASING, **OLD)
    found = evaded([old, hold("new", **new)], CONFIGURATION, RENAMED)
    assert ("old" not in [each.hold.id for each in found]) is passes
    assert evaded([old, hold("new", matter="another", **new)], CONFIGURATION, RENAMED)
    assert evaded([hold("old", **OLD), hold("new", **new)], CONFIGURATION, RENAMED)


def test_listed_records_are_compared_whatever_their_targets_are_called():
    old = hold("old", HoldState.RELEASING, records={"reqlogs": ("1", "2")})
    assert evaded([old, hold(records={"rq": ("1", "2")})], CONFIGURATION, RENAMED) == ()
    assert evaded([old, hold(records={"rq": ("1",)})], CONFIGURATION, RENAMED)
    assert evaded([old, hold(prefixes={"rq": ("1", "2")})], CONFIGURATION, RENAMED)


OBJECTS = {"class": "traces", "store": "s3", "bucket": "b", "prefix": "a/", "key": "{account}/{f:path}"}


def with_objects(**changes):
    return with_targets(builds=OBJECTS | changes)


@pytest.mark.parametrize(
    ("scope", "change", "evades"),
    [
        ({"targets": ("builds",)}, {"bucket": "c"}, True),
        ({"prefixes": {"builds": ("a/",)}}, {"prefix": "b/"}, True),
        ({"records": {"builds": ("a/x",)}}, {"key": "{job}/{f:path}"}, True),
        ({"accounts": ("1",)}, {"key": "{f:path}"}, True),
        ({"accounts": ("1",)}, {"key": "{job}/{account}"}, True),
        ({"accounts": ("1",)}, {"tags": {"account": "owner"}}, True),
        ({"accounts": ("1",)}, {"pair_key": "path"}, True),
        ({"accounts": ("1",)}, {"bucket": "c"}, False),
        ({"since": NOW}, {"key": "{date:%Y}/{account}/{f:path}"}, True),
        ({"since": NOW}, {"tags": {"tier": "plan"}}, False),
        ({"classes": ("traces",)}, {"class": "logs"}, True),
        ({"everything": True}, {"bucket": "c", "key": "{f:path}"}, False),
    ],
)
def test_of_objects_what_tells_account_and_date_matters_as_columns_do(scope, change, evades):
    assert bool(evaded([hold(**scope)], with_objects(), with_objects(**change))) is evades


def test_objects_that_another_target_takes_over_stay_under_the_hold():
    hers = hold(targets=("builds",))
    new = with_targets(builds=OBJECTS, more=OBJECTS | {"prefix": "a/b/"})
    assert "the records of target builds are those of target more now" in str(evaded([hers], with_objects(), new))
    apart = with_targets(builds=OBJECTS, more=OBJECTS | {"prefix": "b/"})
    assert evaded([hers], with_objects(), apart) == ()


GROUPS = {"class": "logs", "store": "cloudwatch", "groups": "/app/{account}", "tags": None, "account": None}


@pytest.mark.parametrize(
    ("scope", "change", "evades"),
    [
        ({"targets": ("app",)}, {"groups": "/other/{account}"}, True),
        ({"records": {"app": ("/app/1:s",)}}, {"groups": "/app/{name}"}, True),
        ({"accounts": ("1",)}, {"groups": "/app/{name}"}, True),
        ({"accounts": ("1",)}, {"tags": {"account": "owner"}}, True),
        ({"accounts": ("1",)}, {"retention": "leave"}, False),
        ({"since": NOW}, {"groups": "/app/{name}"}, False),
        ({"everything": True}, {"groups": "/other/{name}"}, False),
    ],
)
def test_of_log_groups_what_tells_the_account_matters_as_columns_do(scope, change, evades):
    assert bool(evaded([hold(**scope)], with_targets(app=GROUPS), with_targets(app=GROUPS | change))) is evades


def test_log_groups_that_another_target_takes_over_stay_under_the_hold():
    hers, before = hold(targets=("app",)), with_targets(app=GROUPS)
    new = with_targets(app=GROUPS, more=GROUPS | {"groups": "/app/web"})
    assert "the records of target app are those of target more now" in str(evaded([hers], before, new))
    assert evaded([hers], before, with_targets(app=GROUPS, more=GROUPS | {"groups": "/other/{name}"})) == ()
