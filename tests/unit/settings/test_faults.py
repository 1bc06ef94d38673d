"""Each kind of fault: the exact key, the exact source, a message and a remedy; and all faults at once."""

from __future__ import annotations

import pytest

from retentiond.errors import ConfigurationError
from retentiond.settings import load

TARGET = """
targets:
  logs:
    store: postgres
    class: operational_logs
    dsn: postgresql://app:hunter2@db/app
    table: public.request_logs
    anchor: created_at
"""
VARIABLE = "environment variable RETENTIOND_"


def problems(environ, **needs):
    with pytest.raises(ConfigurationError) as caught:
        load(environ, **needs)
    assert all(
        problem.key and problem.source and problem.message and problem.remedy for problem in caught.value.problems
    )
    return caught.value.problems


def only(environ, **needs):
    found = problems(environ, **needs)
    assert len(found) == 1, found
    return found[0]


def document(text):
    return {"RETENTIOND_CONFIG": text}


@pytest.mark.parametrize(
    ("text", "key", "line", "message", "remedy"),
    [
        ("mode: enforced", "mode", 1, "'enforced' is not one of plan, enforce", "use one of"),
        ("gards: {}", "gards", 1, "no such key", "did you mean guards?"),
        ("beside: {}", "beside", 1, "no such key", "known here: mode"),
        ("_env_file: /x", "_env_file", 1, "no such key", "known here: mode"),
        ("guards:\n  max_fractoin: 1", "guards.max_fractoin", 2, "no such key", "did you mean max_fraction?"),
        ("guards: 3", "guards", 1, "a mapping was expected, not a number", "keys"),
        ("guards: {max_fraction: 2}", "guards.max_fraction", 1, "at most 1", "at most"),
        ("guards: {min_records: lots}", "guards.min_records", 1, "a whole number was expected, not text", "500"),
        ("guards: {max_clock_skew: 0}", "guards.max_clock_skew", 1, "above 0", "above"),
        ("guards: {max_clock_skew: P1M}", "guards.max_clock_skew", 1, "no fixed length", "seconds"),
        ("guards: {max_clock_jump: 7}", "guards.max_clock_jump", 1, "a duration was expected", "P7D"),
        ("guards: {max_clock_jump: P7X}", "guards.max_clock_jump", 1, "position 2", "P7D"),
        ("guards: {allow_short_ttl: [1]}", "guards.allow_short_ttl", 1, "true or false was expected, not a list", "true"),
        ("holds: {two_person: 7}", "holds.two_person", 1, "true or false was expected", "true"),
        ("state_dir: var/lib", "state_dir", 1, "not absolute", "/var/lib/retentiond"),
        ("state_dir: 5", "state_dir", 1, "a path was expected", "absolute"),
        ("sweep: {min_interval: P2D}", "sweep", 1, "min_interval is above max_interval", "lower"),
        ("http: {port: 70000}", "http.port", 1, "at most 65535", "at most"),
        ("http: {tokens: {ann: {role: king, sha256: %s}}}" % ("a" * 64), "http.tokens.ann.role", 1, "'king' is not one of", "viewer"),
        ("http: {tokens: {ann: {role: admin, sha256: abc}}}", "http.tokens.ann.sha256", 1, "form", "token new"),
        ("http: {tokens: {ann: {role: admin}}}", "http.tokens.ann.sha256", 1, "required", "RETENTIOND_HTTP__TOKENS__ANN__SHA256"),
        ("control: {dsn: [x]}", "control.dsn", 1, "text was expected, not a list", "text"),
        ("accounts: {dsn: 'postgresql://h/d'}", "accounts.query", 1, "neither table nor query", "exactly one"),
        ("accounts: {dsn: 'postgresql://h/d', table: t, query: q}", "accounts.query", 1, "both table and query", "exactly one"),
        ("accounts: {table: t}", "accounts.dsn", 1, "required, but not set", "RETENTIOND_ACCOUNTS__DSN"),
        ("accounts: {dsn: 'postgresql://h/d', table: 'a b'}", "accounts.table", 1, "not the name of a table", "schema.table"),
        ("accounts: {dsn: 'postgresql://h/d', table: t, tier_map: {hobby: fre}}", "accounts.tier_map.hobby", 1, "no tier 'fre'", "did you mean free?"),
        ("accounts: {dsn: 'postgresql://h/d', table: t, missing: gone}", "accounts.missing", 1, "'gone' is not one of", "deleted"),
        ("policy: 5", "policy", 1, "a mapping was expected, not a number", "classes"),
        ("policy: {base: nothing}", "policy.base", 1, "neither none nor default", "none"),
        ("policy:\n  base: none\n  tiers: [free]", "policy.classes", 1, "the policy is empty", "policy.base"),
        ("policy:\n  classes:\n    build_logs:\n      ttl:\n        free: P1X", "policy.classes.build_logs.ttl.free", 5, "position 2", "P90D"),
        ("policy: {classes: {build_logs: {ttl: PT90M}}}", "policy.classes.build_logs.ttl", 1, "under a day", "allow_short_ttl"),
        ("policy: {classes: {build_logs: {ttl: {free: PT23H}}}}", "policy.classes.build_logs.ttl.free", 1, "under a day", "allow_short_ttl"),
        ("policy: {no_account: trial}", "policy.no_account", 1, "'trial' is not one of", "free"),
        ("targets: [a]", "targets", 1, "a mapping was expected, not a list", "keys"),
        ("targets: {Logs: {}}", "targets.Logs", 1, "can't be the name of a target", "lower-case"),
        ("targets: {logs: 5}", "targets.logs", 1, "a mapping was expected, not a number", "keys"),
        ("mode: plan\nguards: {}\nmode: plan", "mode", 3, "stands twice", "keep one"),
    ],
)  # fmt: skip
def test_each_fault_of_a_document_names_key_line_and_remedy(text, key, line, message, remedy):
    problem = only(document(text))
    assert problem.key == key
    assert problem.source == f"RETENTIOND_CONFIG line {line}"
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "message", "remedy"),
    [
        ("store: postgres", "store: postgress", "store", 4, "'postgress' is no kind of store", "did you mean postgres?"),
        ("class: operational_logs", "class: operational_log", "class", 5, "no class 'operational_log'", "did you mean operational_logs?"),
        ("table: public.request_logs", "table: a.b.c", "table", 7, "not the name of a table", "schema.table"),
        ("    anchor: created_at\n", "", "anchor", 3, "required, but not set", "RETENTIOND_TARGETS__LOGS__ANCHOR"),
        ("anchor: created_at", "anchor: 5", "anchor", 8, "text was expected, not a number", "text"),
        ("dsn: postgresql:", "dsn: mysql:", "dsn", 6, "not the address of a Postgres database", "postgresql://"),
        ("anchor: created_at", "anchor: a\n    achor: b", "achor", 9, "no such key", "did you mean anchor?"),
        ("anchor: created_at", "anchor: a\n    tier: gold", "tier", 9, "no tier 'gold'", "known: free"),
        ("anchor: created_at", "anchor: a\n    tier: free\n    tier_column: plan", "tier_column", 10, "both tier and tier_column", "not both"),
        ("anchor: created_at", "anchor: a\n    unit: h", "unit", 9, "'h' is not one of s, ms, us", "ms"),
        ("anchor: created_at", "anchor: a\n    timezone: Mars/North", "timezone", 9, "no time zone", "UTC"),
        ("anchor: created_at", "anchor: a\n    key: []", "key", 9, "it is empty", "at least one"),
        ("anchor: created_at", "anchor: a\n    action: archive", "action", 9, "nothing says where", "archive: {bucket"),
        ("anchor: created_at", "anchor: a\n    action: shred", "action", 9, "'shred' is not one of", "delete"),
        ("anchor: created_at", "anchor: a\n    action: anonymise", "action", 9, "nothing says what to change", "columns"),
        ("anchor: created_at", "anchor: a\n    pace: {duty: 0}", "pace.duty", 9, "above 0", "above"),
        ("anchor: created_at", "anchor: a\n    pace: {min_batch: 9, max_batch: 3}", "pace", 9, "above max_batch", "lower"),
        ("anchor: created_at", "anchor: a\n    pace: {speed: 3}", "pace.speed", 9, "no such key", "duty"),
        ("anchor: created_at", "anchor: a\n    window: {from: 22:00}", "window.to", 9, "required", "WINDOW__TO"),
        ("anchor: created_at", "anchor: a\n    window: {from: 25:00, to: 06:00}", "window.from", 9, "no time of day", "23:59"),
        ("anchor: created_at", "anchor: a\n    window: {from: 06:00, to: 06:00}", "window", 9, "closes when it opens", "differ"),
        ("anchor: created_at", "anchor: a\n    window: {from: 01:00, to: 06:00, days: [noday]}", "window.days.0", 9, "'noday' is not one of", "mon"),
        ("anchor: created_at", "anchor: a\n    window: {from: 01:00, to: 06:00, timezone: Moon}", "window.timezone", 9, "no time zone", "UTC"),
        ("anchor: created_at", "anchor: a\n    action: anonymise\n    anonymise: {columns: {ip: {cut: 1}}}", "anonymise.columns.ip", 10, "not a way to anonymise", "truncate_ip"),
    ],
)  # fmt: skip
def test_each_fault_of_a_target_names_key_line_and_remedy(old, new, key, line, message, remedy):
    problem = only(document(TARGET.replace(old, new)))
    assert problem.key == f"targets.logs.{key}"
    assert problem.source == f"RETENTIOND_CONFIG line {line}"
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("name", "value", "key", "message"),
    [
        ("GUARDS__MAX_FRACTION", "lots", "guards.max_fraction", "a number was expected"),
        ("GUARDS__MAX_FRACTOIN", "1", "guards.max_fractoin", "no such key"),
        ("TARGTS__A__STORE", "postgres", "targts", "no such key"),
        ("MODE_FILE", "/x", "mode_file", "only a secret can come from a file"),
        ("MODE", "", "mode", "empty"),
        ("HTTP__TOKENS", '{"ann": ', "http.tokens", "not JSON"),
        ("HTTP__TOKENS", '{"ann": {}, "ann": {}}', "http.tokens", "a key stands twice"),
        ("CONTROL__DSN_FILE", "/nonexistent/secret", "control.dsn", "can't be read: No such file"),
        ("LOG_LEVEL", "loud", "RETENTIOND_LOG_LEVEL", "not one of debug"),
        ("LOG_FORMAT", "xml", "RETENTIOND_LOG_FORMAT", "not one of json"),
        ("CONFIG_FILE", "/nonexistent/r.yaml", "RETENTIOND_CONFIG_FILE", "can't be read: No such file"),
        ("A____B", "1", "RETENTIOND_A____B", "names no key"),
        ("POLICY__CLASSES__BUILD_LOGS__TTL", "90", "policy.classes.build_logs.ttl", "position 0"),
        ("POLICY__CLASSES__BUILD_LOGS__TTL", '{"free": 90', "policy.classes.build_logs.ttl", "not JSON"),
    ],
)
def test_each_fault_of_a_variable_names_the_variable(name, value, key, message):
    problem = only({f"RETENTIOND_{name}": value})
    assert problem.key == key
    assert problem.source == VARIABLE + name
    assert message in problem.message


def test_a_fault_in_a_file_names_the_file_and_the_line(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("# mine\nguards:\n  max_fraction: lots\n")
    problem = only({"RETENTIOND_CONFIG_FILE": str(file)})
    assert (problem.key, problem.source) == ("guards.max_fraction", f"file {file} line 3")


def test_malformed_yaml_names_line_and_column(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("guards:\n  max_fraction: [1\nmode: plan\n")
    problem = only({"RETENTIOND_CONFIG_FILE": str(file)})
    assert problem.source.startswith(f"file {file} line 3")
    assert "line 3 column" in problem.message


def test_a_file_that_is_no_text_is_a_problem(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in only({"RETENTIOND_CONFIG_FILE": str(file)}).message


def test_a_fault_of_the_shipped_policy_that_a_change_brings_about_names_it_as_the_source():
    found = problems({"RETENTIOND_POLICY__TIERS": '["pro", "enterprise"]'})
    assert ("policy.no_account", "shipped default policy") in {(problem.key, problem.source) for problem in found}


def test_a_class_that_a_target_uses_needs_a_term_for_every_tier():
    text = TARGET + "policy:\n  tiers: [free, pro, enterprise, gold]\n"
    problem = only(document(text))
    assert problem.key == "policy.classes.operational_logs.ttl.gold"
    assert problem.source == "shipped default policy"


@pytest.mark.parametrize(
    ("dsn", "table"),
    [
        ("postgres://other:pw@DB:5432/app", "request_logs"),
        ("postgresql://app:hunter2@db/app?sslmode=require", "PUBLIC.Request_Logs"),
        ("postgresql://app@db/app", '"public"."request_logs"'),
    ],
)
def test_two_targets_over_the_same_records_are_refused_however_they_are_written(dsn, table):
    again = TARGET.replace("targets:\n", "").replace("  logs:", "  again:").lstrip("\n")
    again = again.replace("postgresql://app:hunter2@db/app", dsn).replace("public.request_logs", f"'{table}'")
    problem = only(document(TARGET + again))
    assert problem.key == "targets.again"
    assert problem.source == "RETENTIOND_CONFIG line 9"
    assert "same records as targets.logs" in problem.message


def test_tables_of_the_same_name_in_other_schemas_or_databases_are_other_records():
    again = TARGET.replace("targets:\n", "").replace("  logs:", "  again:").lstrip("\n")
    load(document(TARGET + again.replace("public.", "private.")))
    load(document(TARGET + again.replace("@db/app", "@db/other")))
    load(document(TARGET + again.replace("public.request_logs", "'\"Request_Logs\"'")))


def test_columns_to_anonymise_are_refused_where_the_record_would_be_deleted():
    problem = only(document(TARGET + "    anonymise: {columns: {ip: null}}\n"))
    assert (problem.key, problem.source) == ("targets.logs.action", "RETENTIOND_CONFIG line 3")
    assert "the action is delete" in problem.message


def test_the_class_s_own_action_applies_where_the_target_has_none():
    load(document(TARGET.replace("operational_logs", "usage_metrics") + "    anonymise: {columns: {ip: null}}\n"))


def test_a_target_that_only_variables_give_says_what_is_not_set():
    problem = only({"RETENTIOND_TARGETS__LOGS__CLASS": "build_logs"})
    assert (problem.key, problem.source) == ("targets.logs.store", "not set")
    assert "RETENTIOND_TARGETS__LOGS__STORE" in problem.remedy


def test_enforcing_without_targets_is_a_problem_that_names_what_set_the_mode():
    problem = only({"RETENTIOND_MODE": "enforce", "RETENTIOND_STATE_DIR": "/s"})
    assert (problem.key, problem.source) == ("targets", "environment variable RETENTIOND_MODE")


def test_a_command_may_need_targets_or_accounts_in_any_mode():
    found = problems({}, command_needs=frozenset({"targets", "accounts"}))
    assert [problem.key for problem in found] == ["targets", "accounts"]


def test_short_terms_can_be_allowed():
    load(document("guards: {allow_short_ttl: true}\npolicy: {classes: {build_logs: {ttl: PT1H}}}"))


def test_a_fault_in_another_guard_hides_no_short_term():
    text = "guards: {max_fraction: x}\npolicy: {classes: {build_logs: {ttl: PT1H}}}"
    assert {problem.key for problem in problems(document(text))} == {
        "guards.max_fraction", "policy.classes.build_logs.ttl",
    }  # fmt: skip


def test_a_fault_in_another_key_of_a_target_does_not_hide_that_its_tier_is_given_twice():
    found = problems(document(TARGET.replace("created_at", "5\n    tier: free\n    tier_column: plan")))
    assert {problem.key for problem in found} == {"targets.logs.anchor", "targets.logs.tier_column"}


def test_a_fault_in_the_address_of_the_directory_does_not_hide_that_its_table_is_missing():
    found = problems(document("accounts: {dsn: 'mysql://h/d'}"))
    assert {problem.key for problem in found} == {"accounts.dsn", "accounts.query"}


def test_a_secret_given_directly_and_by_a_file_is_refused(tmp_path):
    (tmp_path / "s").write_text("postgresql://h/d")
    problem = only({"RETENTIOND_CONTROL__DSN": "postgresql://h/d", "RETENTIOND_CONTROL__DSN_FILE": str(tmp_path / "s")})
    assert problem.key == "control.dsn"
    assert "given twice" in problem.message


def test_all_problems_of_all_sources_are_told_at_once(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("mode: enforced\ntargets:\n  a: {store: oracle}\n  B: {}\nmode: plan\n")
    found = problems(
        {
            "RETENTIOND_CONFIG_FILE": str(file),
            "RETENTIOND_CONFIG": "policy: {classes: {build_logs: {ttl: P1X}, audit_log: {minimum: maybe}}}\nhttp: {port: x}",
            "RETENTIOND_GARDS__X": "1",
            "RETENTIOND_LEDGER__KEY_FILE": "/nonexistent",
            "RETENTIOND_LOG_LEVEL": "loud",
        }
    )
    assert {problem.key for problem in found} == {
        "mode", "targets.a.store", "targets.B", "policy.classes.build_logs.ttl", "policy.classes.audit_log.minimum",
        "http.port", "gards", "ledger.key", "RETENTIOND_LOG_LEVEL",
    }  # fmt: skip


def test_a_document_that_can_not_be_read_hides_no_fault_elsewhere_and_invents_none():
    environ = {"RETENTIOND_CONFIG": "a: [", "RETENTIOND_MODE": "enforce", "RETENTIOND_HTTP__PORT": "x"}
    assert [problem.key for problem in problems(environ)] == ["RETENTIOND_CONFIG", "http.port"]
