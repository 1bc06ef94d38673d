from __future__ import annotations

import json
from pathlib import Path

import pytest

from retentiond.domain.duration import FOREVER, Duration
from retentiond.errors import ConfigurationError
from retentiond.settings import default_policy, load

HOME = {"HOME": "/home/someone"}
TARGET = {
    "RETENTIOND_TARGETS__REQUEST_LOGS__STORE": "postgres",
    "RETENTIOND_TARGETS__REQUEST_LOGS__CLASS": "operational_logs",
    "RETENTIOND_TARGETS__REQUEST_LOGS__DSN": "postgresql://app:hunter2@db.example/app",
    "RETENTIOND_TARGETS__REQUEST_LOGS__TABLE": "public.request_logs",
    "RETENTIOND_TARGETS__REQUEST_LOGS__ANCHOR": "created_at",
}


def test_the_environment_alone_is_enough():
    settings = load(
        HOME
        | TARGET
        | {
            "RETENTIOND_MODE": "enforce",
            "RETENTIOND_STATE_DIR": "/var/lib/retentiond",
            "RETENTIOND_ACCOUNTS__DSN": "postgresql://app:hunter2@db.example/app",
            "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
            "RETENTIOND_ACCOUNTS__TIER_MAP": '{"hobby": "free"}',
            "RETENTIOND_HTTP__PORT": "9000",
            "RETENTIOND_GUARDS__ALLOW_SHORT_TTL": "true",
            "RETENTIOND_POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE": "P60D",
            "RETENTIOND_POLICY_APPROVED": "abc",
            "RETENTIOND_LOG_FORMAT": "console",
            "RETENTIOND_LOG_LEVEL": "DEBUG",
        }
    )
    assert settings.mode == "enforce"
    assert settings.state_folder() == Path("/var/lib/retentiond")
    assert settings.targets["request_logs"].class_name == "operational_logs"
    assert settings.accounts.tier_map == {"hobby": "free"}
    assert settings.http.port == 9000
    assert settings.guards.allow_short_ttl is True
    assert settings.policy.classes["operational_logs"].terms["free"] == Duration(days=60)
    assert settings.policy.classes["operational_logs"].terms["pro"] == Duration(days=365)
    assert (settings.policy_approved, settings.log_format, settings.log_level) == ("abc", "console", "debug")


def test_nothing_given_is_plan_mode_with_the_shipped_policy_in_the_users_folder():
    settings = load(HOME)
    assert settings.mode == "plan"
    assert settings.state_folder() == Path("/home/someone/.local/state/retentiond")
    assert "operational_logs" in settings.policy.classes
    assert load(HOME | {"XDG_STATE_HOME": "/s"}).state_folder() == Path("/s/retentiond")
    assert load({}).state_folder().is_absolute()


def test_the_shipped_policy_is_the_privacy_policy():
    policy = load({}).policy
    terms = {name: {tier: str(term) for tier, term in c.terms.items()} for name, c in policy.classes.items()}
    logs = {"free": "P90D", "pro": "P365D", "enterprise": "P365D"}
    assert terms["operational_logs"] == terms["build_logs"] == logs
    assert terms["generated_artifacts"] == {"free": "P30D", "pro": "P365D", "enterprise": "forever"}
    for name in ("account_data", "prompts", "usage_metrics"):
        assert set(terms[name].values()) == {"P30D"}
        assert policy.classes[name].after == "account_deleted"
    assert policy.classes["usage_metrics"].action == "anonymise"
    for name in ("audit_log", "invoices"):
        assert set(terms[name].values()) == {"P7Y"}
        assert policy.classes[name].minimum
    assert policy.classes["operational_logs"].bounds["enterprise"].maximum == Duration(months=84)
    assert policy.classes["generated_artifacts"].bounds["enterprise"].maximum == FOREVER
    assert set(policy.classes) == {
        "operational_logs", "build_logs", "generated_artifacts", "account_data", "prompts", "usage_metrics",
        "audit_log", "invoices",
    }  # fmt: skip
    assert (policy.tiers, policy.no_account, policy.unknown_tier) == (("free", "pro", "enterprise"), "free", "longest")
    assert policy.downgrade_grace == policy.deletion_grace == Duration(days=30)


def test_the_shipped_policy_says_that_the_audit_log_is_counsels_to_change():
    assert "counsel" in default_policy()


def test_later_sources_win_and_are_merged_deeply(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("guards:\n  min_records: 1\n  max_records: 1\n  max_fraction: 0.1\nhttp: {port: 1}\n")
    settings = load(
        {
            "RETENTIOND_CONFIG_FILE": str(file),
            "RETENTIOND_CONFIG": '{"guards": {"max_records": 2, "max_fraction": 0.2}}',
            "RETENTIOND_GUARDS__MAX_FRACTION": "0.3",
        }
    )
    guards = settings.guards
    assert (guards.min_records, guards.max_records, guards.max_fraction) == (1, 2, 0.3)
    assert settings.source_of("guards.min_records") == f"file {file} line 2"
    assert settings.source_of("guards.max_records") == "RETENTIOND_CONFIG line 1"
    assert settings.source_of("guards.max_fraction") == "environment variable RETENTIOND_GUARDS__MAX_FRACTION"
    assert settings.source_of("guards.max_clock_skew") == "default"
    assert settings.source_of("policy.classes.prompts.ttl") == "shipped default policy"


def test_a_class_can_be_changed_whole_or_by_tier_and_knows_its_source():
    settings = load(
        {"RETENTIOND_CONFIG": "policy:\n  classes:\n    build_logs:\n      ttl: P10D\n    audit_log: {ttl: P10Y}\n"}
    )
    assert set(settings.policy.classes["build_logs"].terms.values()) == {Duration(days=10)}
    assert settings.policy.classes["build_logs"].uniform
    assert settings.policy.classes["audit_log"].minimum, "what is not changed stays"
    assert settings.source_of("policy.classes.build_logs.ttl") == "RETENTIOND_CONFIG line 4"
    assert settings.source_of("policy.classes.audit_log.ttl") == "RETENTIOND_CONFIG line 5"


def test_the_shipped_policy_can_be_dropped():
    config = "policy: {base: none, tiers: [only], classes: {logs: {ttl: P1D}}}"
    policy = load({"RETENTIOND_CONFIG": config}).policy
    assert list(policy.classes) == ["logs"]
    assert policy.no_account is None


def test_a_deeper_variable_refines_the_json_of_a_higher_one():
    settings = load(
        {"RETENTIOND_GUARDS": '{"min_records": 1, "max_records": 5}', "RETENTIOND_GUARDS__MIN_RECORDS": "7"}
    )
    assert (settings.guards.min_records, settings.guards.max_records) == (7, 5)


def test_an_empty_section_changes_nothing():
    assert load({"RETENTIOND_CONFIG": "policy:\nguards:\n"}).guards.min_records == 500


def test_spans_are_seconds_or_durations():
    settings = load(
        {
            "RETENTIOND_SHUTDOWN_GRACE": "PT1M",
            "RETENTIOND_GUARDS__MAX_CLOCK_SKEW": "90",
            "RETENTIOND_SWEEP": '{"max_interval": 7200}',
        }
    )
    assert (settings.shutdown_grace, settings.guards.max_clock_skew, settings.sweep.max_interval) == (60, 90, 7200)
    assert settings.guards.max_clock_jump == settings.holds.release_grace == Duration(days=7)


def test_the_settings_can_be_described_as_json():
    described = load(HOME | TARGET).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["targets"]["request_logs"]["dsn"] == "********"
    assert described["targets"]["request_logs"]["class"] == "operational_logs"
    assert described["policy"]["classes"]["audit_log"] == {"ttl": "P7Y", "minimum": True}
    assert described["holds"]["release_grace"] == "P7D"


ACCOUNTS = {
    "RETENTIOND_ACCOUNTS__DSN": "postgresql://app:hunter2@db.example/app",
    "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
}


def test_the_digest_is_made_of_what_enters_a_verdict_and_of_no_address():
    settings = load(HOME | TARGET | ACCOUNTS)
    document = settings.digest_document()
    assert json.loads(json.dumps(document)) == document
    assert document["policy"] == settings.policy.document()
    assert document["accounts"]["table"] == "public.accounts"
    assert document["targets"]["request_logs"]["class"] == "operational_logs"
    assert "dsn" not in document["accounts"]
    assert {"dsn", "pace", "window", "region"}.isdisjoint(document["targets"]["request_logs"])
    assert "hunter2" not in json.dumps(document)


@pytest.mark.parametrize(
    ("name", "value", "changes"),
    [
        ("TARGETS__REQUEST_LOGS__DSN", "postgresql://app:other@replica.example/app", False),
        ("TARGETS__REQUEST_LOGS__PACE", '{"duty": 0.1}', False),
        ("TARGETS__REQUEST_LOGS__WINDOW", '{"from": "22:00", "to": "06:00"}', False),
        ("HTTP__PORT", "9000", False),
        ("TARGETS__REQUEST_LOGS__ANCHOR", "seen_at", True),
        ("TARGETS__REQUEST_LOGS__ACCOUNT", "account_id", True),
        ("TARGETS__REQUEST_LOGS__CLASS", "build_logs", True),
        ("TARGETS__REQUEST_LOGS__TIMEZONE", "Europe/Dublin", True),
        ("TARGETS__REQUEST_LOGS__UNIT", "ms", True),
        ("TARGETS__REQUEST_LOGS__TIER", "free", True),
        ("ACCOUNTS__TIER_MAP", '{"hobby": "free"}', True),
        ("ACCOUNTS__MISSING", "deleted", True),
        ("POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE", "P60D", True),
        ("POLICY__NO_ACCOUNT", "pro", True),
    ],
)
def test_the_digest_changes_with_what_enters_a_verdict_and_with_nothing_else(name, value, changes):
    before = load(HOME | TARGET | ACCOUNTS).digest_document()
    after = load(HOME | TARGET | ACCOUNTS | {f"RETENTIOND_{name}": value}).digest_document()
    assert (after != before) is changes


def test_settings_can_not_be_changed():
    settings = load({})
    with pytest.raises(ValueError):
        settings.mode = "enforce"
    with pytest.raises(ValueError):
        settings.guards.max_fraction = 1.0


def test_enforcing_without_a_state_folder_asks_for_a_database_and_a_signing_key():
    given = HOME | TARGET | {"RETENTIOND_MODE": "enforce", "RETENTIOND_CONTROL__DSN": "postgresql://u:p@h/d"}
    with pytest.raises(ConfigurationError) as caught:
        load(given)
    assert [problem.key for problem in caught.value.problems] == ["state_dir"]
    assert load(given | {"RETENTIOND_LEDGER__KEY": "k"}).mode == "enforce"


def test_variables_of_other_programs_are_nobodys_business():
    assert load({"PATH": "/bin", "RETENTION_X": "1", "MY_RETENTIOND_X": "1"}).mode == "plan"


def test_the_process_environment_is_not_read_beside_what_is_given(monkeypatch):
    monkeypatch.setenv("MODE", "enforce")
    monkeypatch.setenv("RETENTIOND_MODE", "enforce")
    assert load({}).mode == "plan"
