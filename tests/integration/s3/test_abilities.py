"""What is found out of an endpoint, and that nothing is left of finding it out."""

from datetime import timedelta

import pytest

from retentiond.errors import Unreachable
from retentiond.stores.s3 import abilities, buckets, listing, objects
from retentiond.stores.s3.endpoint import Reply
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.signing import Fence


@pytest.mark.parametrize("kind", [{}, {"versioned": True}, {"lock": True}], ids=["plain", "versioned", "locked"])
async def test_the_abilities_are_those_that_were_measured(s3, kind):
    async with s3.bucket(**kind) as made:
        found = await abilities.probe(made.bucket, "some/prefix/")
        assert found.fence is (Fence.QUERY if s3.kind == "ceph" else Fence.NONE)
        assert not found.conditional
        assert (found.checksum, found.page_size, found.notes) == ("md5", 1000, ())
        assert found.versioning == ("enabled" if kind else "off")
        assert found.lock.enabled is ("lock" in kind)
        assert (await listing.versions(made.bucket)).keys == []


def answering(monkeypatch, fences, lenient):
    """A server that carries out a request for so many seconds after its expiry, and knows these kinds of signatures."""

    async def send(bucket, absent, fence, kind, expiry):
        if fence is not Fence.NONE and fence not in fences:
            return Reply(500, {}, b"")
        now = bucket.endpoint.clock.latest()
        late = fence is not Fence.NONE and now >= expiry.expires_at + timedelta(seconds=lenient)
        return Reply(403 if late else 200, {}, b"")

    monkeypatch.setattr(abilities, "_send", send)


@pytest.mark.parametrize("fence", [Fence.QUERY, Fence.DATE])
@pytest.mark.parametrize(("lenient", "good"), [(0, True), (30, False)])
async def test_a_server_that_is_lenient_about_an_expiry_is_no_fence(moto_server, monkeypatch, fence, lenient, good):
    async with moto_server.bucket() as made:
        await made.bucket.ask("HEAD")
        answering(monkeypatch, {fence}, lenient)
        found = await abilities._fence(made.bucket, Doomed("absent"), "md5")
        assert found is (fence if good else Fence.NONE)


async def test_a_server_that_is_busy_is_not_taken_for_one_without_a_fence(moto_server, monkeypatch):
    async def busy(*_):
        return Reply(503, {}, b"<Error><Code>SlowDown</Code></Error>")

    async with moto_server.bucket() as made:
        await made.bucket.ask("HEAD")
        monkeypatch.setattr(abilities, "_send", busy)
        with pytest.raises(Unreachable, match="SlowDown"):
            await abilities._fence(made.bucket, Doomed("absent"), "md5")


async def test_a_suspended_bucket_is_left_as_it_was(versioned):
    await versioned.client.put_bucket_versioning(Bucket=versioned.name, VersioningConfiguration={"Status": "Suspended"})
    assert (await abilities.probe(versioned.bucket)).versioning == "suspended"
    assert (await listing.versions(versioned.bucket)).keys == []


async def test_lifecycle_rules_are_read(ground):
    rule = {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"Prefix": "logs/"},
        "Expiration": {"Days": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    assert await buckets.lifecycle(ground.bucket) == ()
    await ground.client.put_bucket_lifecycle_configuration(Bucket=ground.name, LifecycleConfiguration={"Rules": [rule]})
    [found] = await buckets.lifecycle(ground.bucket)
    assert (found.id, found.enabled, found.prefix, found.days, found.abort_days) == ("old", True, "logs/", 30, 7)


async def test_a_bucket_without_replication_has_none(ground):
    assert await buckets.replication(ground.bucket) == ()


async def test_a_default_retention_is_read(locked):
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Years": 2}}
    await locked.client.put_object_lock_configuration(
        Bucket=locked.name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    assert await buckets.lock(locked.bucket) == buckets.BucketLock(True, "GOVERNANCE", 730)


async def test_tags_are_read_and_an_absent_object_has_none(ground):
    await objects.put(ground.bucket, "//a b+", b"hello", tags={"plan name": "free+é"}, content_type="text/plain")
    assert await objects.tags(ground.bucket, "//a b+") == {"plan name": "free+é"}
    assert await objects.get(ground.bucket, "//a b+") == b"hello"
    await ground.put("bare")
    assert await objects.tags(ground.bucket, "bare") == {}
    assert await objects.tags(ground.bucket, "absent") is None


async def test_a_head_tells_marker_absence_and_version_apart(versioned):
    await versioned.put("a")
    await versioned.client.delete_object(Bucket=versioned.name, Key="a")
    page = await listing.versions(versioned.bucket)
    of = dict(zip(page.is_marker, page.version_ids, strict=True))
    assert (await objects.head(versioned.bucket, "a", of[False])).state == "present"
    marker = (await objects.head(versioned.bucket, "a", of[True])).state
    assert marker == ("absent" if versioned.server.kind == "ceph" else "marker")
    assert (await objects.head(versioned.bucket, "a")).state in {"absent", "marker"}
    assert (await objects.head(versioned.bucket, "never")).state == "absent"
