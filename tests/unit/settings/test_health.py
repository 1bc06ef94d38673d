"""Pace by health in the configuration: thresholds, `off`, and the query."""

import pytest

from retentiond.daemon_spec import make_health
from retentiond.errors import ConfigurationError
from retentiond.settings import load

BASE = {
    "RETENTIOND_TARGETS__LOGS__STORE": "postgres",
    "RETENTIOND_TARGETS__LOGS__CLASS": "operational_logs",
    "RETENTIOND_TARGETS__LOGS__TABLE": "t",
    "RETENTIOND_TARGETS__LOGS__ANCHOR": "a",
    "RETENTIOND_TARGETS__LOGS__DSN": "postgresql://h/d",
}
HEALTH = "RETENTIOND_TARGETS__LOGS__PACE__HEALTH"


def health(**values):
    found = load(BASE | {f"{HEALTH}__{name.upper()}": value for name, value in values.items()})
    return make_health(found.targets["logs"].pace.health)


def problems(**values):
    with pytest.raises(ConfigurationError) as caught:
        health(**values)
    return caught.value.problems


def test_every_signal_is_on_by_default_and_none_of_them_must_be_readable():
    found = health()
    assert found.limits["replica_lag"] == 10
    assert found.limits["retained_wal"] == 4096 * 2**20
    assert (found.configured, found.query) == (frozenset(), None)


@pytest.mark.parametrize("off", ["off", "false", "Off"])
def test_each_can_be_switched_off(off):
    names = list(health().limits)
    assert health(**dict.fromkeys(names, off)).limits == {}
    assert health(**dict.fromkeys(names, off)).configured == frozenset()


def test_yaml_reads_off_as_false_and_that_is_off_as_well():
    found = load(BASE | {"RETENTIOND_CONFIG": "targets: {logs: {pace: {health: {replica_lag: off}}}}"})
    assert "replica_lag" not in make_health(found.targets["logs"].pace.health).limits


def test_one_that_is_set_must_be_readable():
    found = health(replica_lag="3", vacuum="off")
    assert (found.limits["replica_lag"], found.configured) == (3, frozenset({"replica_lag"}))


@pytest.mark.parametrize("value", ["0", "-1", "much", "nan"])
def test_what_is_no_threshold_is_refused_with_its_key(value):
    (problem,) = problems(lock_waits=value)
    assert problem.key.startswith("targets.logs.pace.health.lock_waits")
    assert problem.remedy


def test_who_misspells_off_is_told_of_it():
    (problem,) = problems(vacuum="offf")
    assert "number or off" in problem.message
    assert problem.remedy.endswith("or off")
    assert "offf" not in problem.message


def test_a_query_has_address_expression_threshold_and_a_secret_token(tmp_path):
    (tmp_path / "token").write_text("q9Z-bearer-7Kx\n")
    found = load(
        BASE
        | {
            f"{HEALTH}__PROMQL__URL": "http://prometheus:9090/",
            f"{HEALTH}__PROMQL__EXPRESSION": "max(node_load1)",
            f"{HEALTH}__PROMQL__THRESHOLD": "4",
            f"{HEALTH}__PROMQL__TOKEN_FILE": str(tmp_path / "token"),
        }
    )
    query = make_health(found.targets["logs"].pace.health).query
    assert (query.url, query.expression, query.threshold, query.token) == (
        "http://prometheus:9090",
        "max(node_load1)",
        4,
        "q9Z-bearer-7Kx",
    )
    assert "q9Z" not in repr(query) + repr(found) + str(found.describe()) + found.model_dump_json()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("prometheus:9090", "not the address"),
        ("http://", "not the address"),
        ("http://p:9090/api/v1/query", "not the address"),
        ("http://user:q9Z7Kx@p:9090", "password"),
    ],
)
def test_an_address_that_can_not_be_used_is_refused_and_a_password_in_it_not_repeated(url, said):
    found = problems(promql=f'{{"url": "{url}", "expression": "e", "threshold": 1}}')
    assert [said in problem.message for problem in found] == [True]
    assert "q9Z" not in str(found)


def test_pace_and_vacuum_are_no_part_of_what_is_approved():
    plain = load(BASE).digest_document()
    more = load(BASE | {f"{HEALTH}__REPLICA_LAG": "5", "RETENTIOND_TARGETS__LOGS__VACUUM": "true"})
    assert more.digest_document() == plain
