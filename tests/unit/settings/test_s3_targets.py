"""The configuration of objects in S3 as targets, and what is refused of it."""

import pytest

from retentiond.errors import ConfigurationError
from retentiond.settings import load
from retentiond.stores.s3.config import S3Target, service_of

TARGET = """
targets:
  artifacts:
    store: s3
    class: generated_artifacts
    bucket: artifacts
    key: "{account}/{job}/{file:path}"
"""
GIVEN = {"store": "s3", "class": "logs", "bucket": "b"}


def of(**given):
    return S3Target.model_validate(GIVEN | given)


def problems(text, **environ):
    with pytest.raises(ConfigurationError) as caught:
        load({"RETENTIOND_CONFIG": text, **environ})
    return caught.value.problems


def only(text, **environ):
    (problem,) = problems(text, **environ)
    assert problem.remedy
    return problem


def test_the_example_of_the_interface_is_a_target():
    target = load(
        {"RETENTIOND_CONFIG": TARGET + "    endpoint_url: https://s3.example.com\n    region: us-east-1\n"}
    ).targets["artifacts"]
    assert isinstance(target, S3Target)
    assert (target.knows_account, target.has_tier, target.uploads, target.unfenced) == (True, False, True, False)
    assert target.template().match("a1/j/x/y").account == "a1"


def test_it_can_all_be_set_by_single_variables(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    name = "RETENTIOND_TARGETS__ARTIFACTS__"
    settings = load(
        {
            f"{name}STORE": "s3",
            f"{name}CLASS": "generated_artifacts",
            f"{name}BUCKET": "artifacts",
            f"{name}KEY": "{account}/{job}/{file:path}",
            f"{name}ENDPOINT_URL": "http://127.0.0.1:9000",
            f"{name}ACCESS_KEY_ID": "AKIAHUNTER2",
            f"{name}SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret"),
            f"{name}UPLOADS": "false",
        }
    )
    target = settings.targets["artifacts"]
    assert target.secret_access_key.get_secret_value() == "hunter2"
    assert target.uploads is False
    assert "hunter2" not in str(settings.describe()).lower()
    assert "hunter2" not in str(settings.digest_document()).lower()


def test_where_and_by_whom_objects_are_reached_enters_no_verdict():
    more = "    endpoint_url: https://s3.example.com\n    access_key_id: a\n    secret_access_key: b\n    addressing: path\n"
    more += "    inventory: {id: daily, max_age: P1D}\n"
    one, other = (load({"RETENTIOND_CONFIG": text}).digest_document() for text in (TARGET, TARGET + more))
    assert one == other
    for change in ("    prefix: a/\n", "    uploads: false\n", "    pairs_with: rows\n    pair_key: key\n"):
        rows = "  rows: {store: postgres, class: build_logs, dsn: 'postgresql://h/d', table: t, anchor: a}\n"
        assert load({"RETENTIOND_CONFIG": TARGET + change + rows}).digest_document() != one


@pytest.mark.parametrize(
    ("more", "key", "message"),
    [
        ("    bucket: s3://artifacts\n", "bucket", "not the name of a bucket"),
        ("    bucket: artifacts/builds\n", "bucket", "not the name of a bucket"),
        ("    bucket: 'arn:aws:s3:eu-west-1:1:accesspoint/x'\n", "bucket", "an access point"),
        ("    key: '{account}{job}'\n", "key", "nothing stands between account and job"),
        ("    key: 'artifacts/'\n", "key", "has no field"),
        ("    endpoint_url: s3.example.com\n", "endpoint_url", "not the address of an endpoint"),
        ("    endpoint_url: 'https://me:hunter2@s3.example.com'\n", "endpoint_url", "not the address"),
        ("    endpoint_url: 'https://s3.example.com:x'\n", "endpoint_url", "not the address"),
        ("    endpoint_url: 'https://s3.example.com?x'\n", "endpoint_url", "not the address"),
        ("    access_key_id: a\n", "secret_access_key", "secret_access_key is not given"),
        ("    secret_access_key: a\n", "secret_access_key", "access_key_id is not given"),
        ("    session_token: a\n", "session_token", "there are none"),
        ("    account: a1\n", "account", "account is also given by `key`"),
        ("    tags: {account: owner}\n", "tags", "account is also given by `key`"),
        ("    tags: {}\n", "tags", "no tag is named"),
        ("    tags: {account: '', tier: plan}\n", "tags.account", "it is empty"),
        ("    tier: free\n    tags: {tier: plan}\n", "tags", "tier is also given by `tier`"),
        ("    tier: free\n    key: '{tier}/{f:path}'\n", "key", "tier is also given by `tier`"),
        ("    key: '{job}/{f:path}'\n    account: a\n    tags: {account: b}\n", "account", "also given by `tags`"),
        ("    pairs_with: rows\n", "pair_key", "pair_key is not given"),
        ("    pair_key: path\n", "pair_key", "pairs_with is not given"),
        ("    pairs_with: rows\n    pair_key: path\n", "pairs_with", "'rows' is no target"),
        ("    pairs_with: artifacts\n    pair_key: path\n", "pairs_with", "'artifacts' is no Postgres target"),
        ("    action: anonymise\n", "action", "anonymise does not apply to objects"),
        ("    action: archive\n", "action", "can't archive"),
        ("    addressing: host\n", "addressing", "not one of auto, path, virtual"),
        ("    table: t\n", "table", "there is no such key"),
        ("    region_group: 'EU '\n", "region_group", "not of the form"),
    ],
)
def test_a_fault_is_told_by_its_key_with_a_remedy(more, key, message):
    base = "".join(line for line in TARGET.splitlines(keepends=True) if line.split(":")[0] + ":" not in more)
    problem = only(base + more)
    assert problem.key == f"targets.artifacts.{key}"
    assert message in problem.message
    assert "hunter2" not in str(problem)


def test_the_class_s_action_does_not_apply_to_objects_either():
    problem = only(TARGET.replace("generated_artifacts", "usage_metrics"))
    assert (problem.key, problem.remedy) == ("targets.artifacts.action", "set the target's action to delete")


def test_one_fault_hides_no_other():
    found = problems(TARGET + "    endpoint_url: x\n    account: a\n    session_token: t\n    uploads: maybe\n")
    assert {problem.key.rpartition(".")[2] for problem in found} == {
        "endpoint_url", "account", "session_token", "uploads",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ({}, {}, True),
        ({"prefix": "a/"}, {}, True),
        ({"prefix": "a/"}, {"prefix": "a/b/"}, True),
        ({"prefix": "a/"}, {"prefix": "ab/"}, False),
        ({"prefix": "a"}, {"prefix": "ab/"}, True),
        ({"key": "a/{f:path}"}, {"prefix": "a/"}, True),
        ({"key": "a/{f:path}"}, {"key": "b/{f:path}"}, False),
        ({"key": "a/{account}/{f:path}"}, {"prefix": "a/", "key": "{account}/{f:path}"}, True),
        ({"bucket": "c"}, {}, False),
        ({"endpoint_url": "https://s3.eu-west-1.amazonaws.com"}, {}, True),
        ({"endpoint_url": "https://S3.example.com/"}, {"endpoint_url": "https://s3.example.com:443"}, True),
        ({"endpoint_url": "http://localhost:9000"}, {"endpoint_url": "http://127.0.0.1:9000"}, True),
        ({"endpoint_url": "http://localhost:9000"}, {"endpoint_url": "http://127.0.0.1:9001"}, False),
        ({"endpoint_url": "https://x.supabase.co/storage/v1/s3"}, {}, False),
    ],
)
def test_targets_overlap_where_the_keys_of_one_begin_with_those_of_the_other(one, other, meet):
    assert of(**one).overlaps(of(**other)) is meet
    assert of(**other).overlaps(of(**one)) is meet


def test_two_targets_over_the_same_objects_are_refused_by_both_names():
    again = TARGET.replace("targets:\n", "").replace("artifacts:", "builds:", 1) + "    prefix: builds/\n"
    problem = only(TARGET + again.lstrip("\n"))
    assert problem.key == "targets.builds"
    assert "same records as targets.artifacts" in problem.message
    assert "targets.artifacts" in problem.remedy


def test_objects_and_rows_never_overlap():
    rows = "  rows: {store: postgres, class: build_logs, dsn: 'postgresql://h/d', table: artifacts, anchor: a}\n"
    assert set(load({"RETENTIOND_CONFIG": TARGET + rows}).targets) == {"artifacts", "rows"}


@pytest.mark.parametrize(
    ("region", "group"),
    [
        ("eu-west-1", "eu"),
        ("us-east-1", "us"),
        ("us-gov-west-1", "us-gov"),
        ("ap-southeast-2", "ap"),
        ("auto", None),
        ("garage", None),
        (None, None),
    ],
)
def test_the_group_of_regions_is_what_the_region_s_name_begins_with_unless_it_is_given(region, group):
    assert of(region=region).group_of_regions() == group
    assert of(region=region, region_group="eu").group_of_regions() == "eu"


def test_services_are_told_apart_by_host_port_and_path():
    assert service_of(None) == service_of("https://bucket.s3.dualstack.us-east-1.amazonaws.com") == "aws"
    assert service_of("https://amazonaws.com.example.org") == "amazonaws.com.example.org:443"


def test_an_inventory_is_where_its_configuration_writes_it_to():
    target = of(inventory={"id": "daily"}, bucket="artifacts")
    assert target.inventory.location("artifacts") == "artifacts/daily/"
    for prefix in ("reports/of/us", "reports/of/us/"):
        target = of(inventory={"id": "w-1", "prefix": prefix, "max_age": "P9D"})
        assert target.inventory.location("b") == "reports/of/us/b/w-1/"
    assert str(target.inventory.max_age) == "P9D"


@pytest.mark.parametrize(
    ("inventory", "message"),
    [
        ("{prefix: p}", "inventory.id"),
        ("{id: 'a/b'}", "not the id of an inventory configuration"),
        ("{id: d, bucket: 's3://b'}", "not the name of a bucket"),
        ("{id: d, max_age: P1M}", "months and years are no age of a report"),
        ("{id: d, max_age: soon}", "duration"),
        ("{id: d, max_age: 3}", "not a duration"),
        ("{id: d, prefix: 'r/b/d/2026-01-01T00-00Z/manifest.json'}", "this names one report"),
        ("{id: d, format: CSV}", "format"),
    ],
)
def test_an_inventory_that_can_t_be_found_is_refused(inventory, message):
    problem = only(TARGET + f"    inventory: {inventory}\n")
    assert problem.key.startswith("targets.artifacts.inventory")
    assert message in f"{problem.message} {problem.key} {problem.remedy}"
