"""Log groups as a target: each fault is named with its key and what to write instead."""

import pytest

from retentiond.errors import ConfigurationError
from retentiond.settings import load

TARGET = """
state_dir: /tmp/s
accounts: {dsn: postgresql://x/y, table: public.accounts}
targets:
  logs:
    store: cloudwatch
    class: operational_logs
"""


def loaded(text):
    return load({"RETENTIOND_CONFIG": TARGET + text}).targets["logs"]


def test_a_template_of_names_tells_account_and_tier():
    target = loaded('    groups: "/app/{tier}/{account}-{service}"\n')
    assert (target.has_tier, target.knows_account) == (True, True)
    names = target.names()
    assert names.read("/app/free/12-web") == ("12", "free")
    assert names.read("/app/free/web") is None
    assert names.read("/app/free/12-web/more") is None
    assert names.head == "/app/"


def test_a_name_without_fields_is_one_group_and_no_other_that_begins_so():
    names = loaded("    groups: /app/web\n").names()
    assert names.read("/app/web") == (None, None)
    assert names.read("/app/web-2") is None


def test_the_defaults_are_slow_and_manage_retention():
    target = loaded("    groups: /app/web\n")
    assert (target.retention, target.pace.records_per_second, target.pace.duty) == ("manage", 5.0, 1.0)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", "groups", "required"),
        ('    groups: "/app/{account"\n', "groups", "nothing closes"),
        ('    groups: "/app/{a}{b}"\n', "groups", "nothing stands between"),
        ('    groups: "/app/{date:%Y}"\n', "groups", "decides nothing"),
        ('    groups: "/app/{tier}"\n    tier: free\n', "groups", "also given by `tier`"),
        ('    groups: "/app/{tier}"\n    tags: {tier: plan}\n', "tags", "also given by `groups`"),
        ('    groups: "/app/{account}"\n    account: "1"\n', "account", "also given by `groups`"),
        ('    groups: /app/a\n    tags: {account: a}\n    account: "1"\n', "account", "also given by `tags`"),
        ("    groups: /app/a\n    tags: {}\n", "tags", "no tag is named"),
        ("    groups: /app/a\n    action: anonymise\n", "action", "deleted whole"),
        ("    groups: /app/a\n    retention: sometimes\n", "retention", "manage"),
        ("    groups: /app/a\n    pace: {records_per_second: 0}\n", "pace.records_per_second", "must be above 0"),
        ("    groups: /app/a\n    bucket: b\n", "bucket", ""),
        ("    groups: /app/a\n    endpoint_url: logs.example\n", "endpoint_url", "not the address"),
        ("    groups: /app/a\n    access_key_id: a\n", "secret_access_key", "not given"),
    ],
)
def test_each_fault_is_named(text, key, message):
    with pytest.raises(ConfigurationError) as caught:
        loaded(text)
    faults = {problem.key: problem for problem in caught.value.problems}
    assert f"targets.logs.{key}" in faults, faults
    assert message in f"{faults[f'targets.logs.{key}'].message} {faults[f'targets.logs.{key}'].remedy}"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("/app/{tier}", "/app/web", True),
        ("/app/{tier}", "/app/x/web", False),
        ("/app/{tier}", "/app/x/{service}", True),
        ("/app/{tier}", "/other/{tier}", False),
        ("/app/web", "/app/web", True),
        ("/app/web", "/app/web2", False),
    ],
)
def test_two_targets_over_the_same_groups_are_refused(one, other, both):
    text = f'    groups: "{one}"\n  more:\n    store: cloudwatch\n    class: operational_logs\n    groups: "{other}"\n'
    if not both:
        assert loaded(text)
        return
    with pytest.raises(ConfigurationError, match="targets"):
        loaded(text)


def test_groups_of_another_region_are_others():
    more = "    groups: /app/a\n    region: eu-west-1\n  more:\n    store: cloudwatch\n    class: operational_logs\n"
    assert loaded(more + "    groups: /app/a\n    region: us-east-1\n")
