"""What `check` says of a bucket: abilities, rights, settings; and that looking leaves nothing behind."""

import re
from datetime import UTC, datetime

import pytest

from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.policy import parse_policy
from retentiond.errors import Blind
from retentiond.stores.s3 import buckets, listing
from retentiond.stores.s3.buckets import LifecycleRule, ReplicationRule
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Endpoint
from retentiond.stores.s3.inspect import findings
from retentiond.stores.s3.lifecycle import native_rules, rules_for
from tests.services.s3_faults import Fault, faulty

POLICY, _ = parse_policy({"tiers": ["free"], "classes": {"logs": {"ttl": "P30D"}}}, used_classes=frozenset(["logs"]))
CLASS = POLICY.classes["logs"]
GIVEN = {"store": "s3", "class": "logs", "key": "{account}/{file:path}"}


def target(ground, **more):
    return S3Target.model_validate(GIVEN | {"bucket": ground.name, "endpoint_url": ground.server.url} | more)


async def told(bucket, config):
    """Severity and message of all but what these servers can't do."""
    found = await findings(bucket, config, "builds", CLASS)
    usual = re.compile("carries out requests that have expired|does not compare ETags|could not be found out")
    assert all(each.remedy for each in found)
    return [(each.severity, each.message) for each in found if not usual.search(each.message)]


@pytest.mark.parametrize("kind", [{}, {"versioned": True}, {"lock": True}], ids=["plain", "versioned", "locked"])
async def test_a_bucket_that_is_as_it_should_be_has_no_findings_and_stays_as_it_is(s3, kind):
    async with s3.bucket(**kind) as made:
        await made.put("a1/x", "a2/y/z")
        before = (await listing.versions(made.bucket)).items()
        assert await told(made.bucket, target(made, tags={"tier": "plan"})) == []
        assert (await listing.versions(made.bucket)).items() == before
        assert (await listing.uploads(made.bucket)).upload_ids == []


async def test_an_endpoint_without_an_expiry_is_refused_unless_it_is_accepted(ground):
    for unfenced, severity in ((False, "error"), (True, "warning")):
        found = await findings(ground.bucket, target(ground, unfenced=unfenced), "builds", CLASS)
        said = [each.severity for each in found if "have expired" in each.message]
        assert said == ([] if ground.server.kind == "ceph" else [severity])


async def test_what_an_endpoint_does_not_compare_is_said_where_it_matters(ground, versioned):
    for made, matters in ((ground, True), (versioned, False)):
        found = await findings(made.bucket, target(made), "builds", CLASS)
        assert any("does not compare ETags" in each.message for each in found) is matters


async def test_keys_that_do_not_fit_are_counted_and_none_is_shown(ground):
    await ground.put("a1/secret-name", "loose-secret", "other-secret")
    [(severity, message)] = await told(ground.bucket, target(ground))
    assert (severity, "of the first 3 keys 2 don't fit" in message, "secret" in message) == ("warning", True, False)


async def test_a_template_that_no_key_fits_is_an_error(ground):
    await ground.put("a1", "a2")
    [(severity, message)] = await told(ground.bucket, target(ground))
    assert (severity, "of the first 2 keys 2 don't fit" in message) == ("error", True)


async def test_native_holds_want_a_bucket_with_a_lock(ground, locked):
    assert [severity for severity, _ in await told(ground.bucket, target(ground, native_holds=True))] == ["error"]
    assert await told(locked.bucket, target(locked, native_holds=True)) == []


async def test_a_lock_that_outlasts_the_term_is_told(locked):
    for days, count in ((30, 0), (40, 1)):
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": days}}
        await locked.client.put_object_lock_configuration(
            Bucket=locked.name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        found = [message for severity, message in await told(locked.bucket, target(locked)) if severity == "warning"]
        assert len(found) == count
        assert all("keeps each new object for 40 days" in message for message in found)


async def test_a_bucket_that_there_is_not_is_one_finding(ground):
    bucket = await ground.bucket.endpoint.locate("no-such-bucket")
    [(severity, message)] = await told(bucket, target(ground, bucket="no-such-bucket"))
    assert (severity, "there is no such bucket" in message) == ("error", True)


DENIED = {
    "uploads": ("s3:ListBucketMultipartUploads", "GET", r"[?&]uploads"),
    "aborting": ("s3:AbortMultipartUpload", "DELETE", r"uploadId="),
    "versions": ("s3:ListBucketVersions", "GET", r"[?&]versions.*max-keys=1&|max-keys=1&.*versions"),
    "tags": ("s3:GetObjectTagging", "GET", r"[?&]tagging"),
    "hold": ("s3:GetObjectLegalHold", "GET", r"[?&]legal-hold"),
    "retention": ("s3:GetObjectRetention", "GET", r"[?&]retention"),
    "holding": ("s3:PutObjectLegalHold", "PUT", r"[?&]legal-hold"),
    "replication": ("s3:GetReplicationConfiguration", "GET", r"[?&]replication"),
}


@pytest.mark.parametrize("name", list(DENIED))
async def test_each_right_that_is_missing_is_named(moto_server, name):
    right, method, query = DENIED[name]

    def about(asked):
        return asked.method == method and re.search(query, asked.target) is not None

    async with moto_server.bucket(lock=True) as made, faulty(moto_server) as proxy:
        endpoint = await Endpoint.open(proxy.server.access())
        try:
            proxy.arm(*[Fault("denied", about)] * 4)
            config = target(made, tags={"tier": "plan"}, native_holds=True)
            found = await told(await endpoint.locate(made.name), config)
        finally:
            await endpoint.close()
    assert [severity for severity, _ in found] == ["error"]
    assert right in found[0][1]


async def test_all_rights_that_are_missing_are_named_together(moto_server):
    def about(asked):
        return asked.erases or "uploads" in asked.target or "replication" in asked.target

    async with moto_server.bucket() as made, faulty(moto_server) as proxy:
        endpoint = await Endpoint.open(proxy.server.access())
        try:
            proxy.arm(*[Fault("denied", about)] * 20)
            found = await told(await endpoint.locate(made.name), target(made))
        finally:
            await endpoint.close()
    assert {severity for severity, _ in found} == {"error"}
    for right in ("s3:DeleteObject", "s3:ListBucketMultipartUploads", "s3:GetReplicationConfiguration"):
        assert any(right in message for _, message in found)


async def test_looking_at_single_objects_needs_a_right_where_etags_are_not_compared(moto_server):
    async with moto_server.bucket() as made, faulty(moto_server) as proxy:
        endpoint = await Endpoint.open(proxy.server.access())
        try:
            proxy.arm(
                *[Fault("denied", lambda asked: "retentiond-check" in asked.target and asked.method == "HEAD")] * 4
            )
            found = await told(await endpoint.locate(made.name), target(made, uploads=False))
        finally:
            await endpoint.close()
    assert [(severity, "s3:GetObject is" in message) for severity, message in found] == [("error", True)]


async def test_copies_elsewhere_are_told(moto_server):
    async with moto_server.bucket(versioned=True) as made, moto_server.bucket(versioned=True) as other:
        there = {"Destination": {"Bucket": f"arn:aws:s3:::{other.name}"}, "Prefix": ""}
        rules = [
            {"ID": "all", "Status": "Enabled", "Priority": 1, **there},
            {"ID": "off", "Status": "Disabled", "Priority": 2, **there},
        ]
        await made.client.put_bucket_replication(
            Bucket=made.name, ReplicationConfiguration={"Role": "arn:aws:iam::1:role/r", "Rules": rules}
        )
        [(severity, message)] = await told(made.bucket, target(made, prefix="a/"))
        assert severity == "warning"
        assert f"rule all copies objects to arn:aws:s3:::{other.name}" in message


async def test_copies_of_what_is_not_the_target_s_are_nobody_s_concern(moto_server, monkeypatch):
    async def copies(_):
        return [ReplicationRule(prefix, True, prefix, "there", False) for prefix in ("a/", "a/b/", "b/")]

    monkeypatch.setattr(buckets, "replication", copies)
    async with moto_server.bucket() as made:
        found = await told(made.bucket, target(made, prefix="a/"))
    assert [message.split()[2] for _, message in found] == ["a/", "a/b/"]


# --- Lifecycle rules ---


def rule(**more):
    bare = dict.fromkeys(["larger", "smaller", "days", "date", "noncurrent_days", "abort_days"])
    return LifecycleRule(**({"id": "r", "enabled": True, "prefix": "", "tags": {}, "markers": False} | bare | more))


def names(rules, versioning="off", **more):
    config = S3Target.model_validate(GIVEN | {"bucket": "b"} | more)
    return [(each.name.removeprefix("lifecycle rule "), each.days) for each in rules_for(rules, config, versioning)]


@pytest.mark.parametrize(
    ("prefix", "of_rule", "meets"),
    [("a/", "", True), ("a/", "a/b/", True), ("a/", "a/", True), ("a/", "b/", False), ("", "b/", True)],
)
def test_a_rule_counts_where_its_prefix_and_the_target_s_meet(prefix, of_rule, meets):
    assert bool(names([rule(prefix=of_rule, days=3)], prefix=prefix)) is meets


def test_a_rule_that_is_off_erases_nothing():
    assert names([rule(enabled=False, days=3)]) == []


def test_where_all_versions_are_kept_only_old_ones_go():
    both = [rule(days=3, noncurrent_days=5)]
    assert names(both) == [("r", 3)]
    assert names(both, "suspended") == [("r", 3), ("r (old versions)", 5)]
    assert names(both, "enabled") == [("r (old versions)", 5)]


def test_unfinished_uploads_count_where_they_are_of_the_target():
    assert names([rule(abort_days=7)]) == [("r (unfinished uploads)", 7)]
    assert names([rule(abort_days=7)], uploads=False) == []


def test_what_narrows_a_rule_is_noted():
    config = S3Target.model_validate(GIVEN | {"bucket": "b"})
    narrow = [
        rule(days=1, tags={"a": "b"}),
        rule(days=1, larger=5),
        rule(days=1, smaller=5),
        rule(date=datetime(2027, 1, 1, tzinfo=UTC)),
    ]
    assert [each.narrowed for each in rules_for(narrow, config, "off")] == [True, True, True, False]


async def test_the_rules_of_a_real_bucket_are_read(ground):
    given = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "a1/"}, "Expiration": {"Days": 30}}
    assert await native_rules(ground.bucket, target(ground)) == ()
    await ground.client.put_bucket_lifecycle_configuration(
        Bucket=ground.name, LifecycleConfiguration={"Rules": [given]}
    )
    assert await native_rules(ground.bucket, target(ground)) == (NativeRule("lifecycle rule old", "a1/", 30),)


async def test_rules_that_may_not_be_seen_are_no_absence_of_rules(moto_server):
    async with moto_server.bucket() as made, faulty(moto_server) as proxy:
        endpoint = await Endpoint.open(proxy.server.access())
        try:
            proxy.arm(*[Fault("denied", lambda asked: "lifecycle" in asked.target)] * 4)
            with pytest.raises(Blind, match="s3:GetLifecycleConfiguration"):
                await native_rules(await endpoint.locate(made.name), target(made))
        finally:
            await endpoint.close()
