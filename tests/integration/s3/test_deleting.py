"""What is asked for goes, nothing else does, and each item has an outcome."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from retentiond.errors import Blind
from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import listing, looking, objects
from retentiond.stores.s3.bodies import body_of, checksum
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.items import Doomed, How
from retentiond.stores.s3.signing import Fence
from tests.services.s3 import good_for, how
from tests.services.s3_keys import storable


async def erase(ground, items, **other):
    return await delete(ground.bucket, items, expiry=good_for(ground.bucket), how=how(ground.server, **other))


def told(deletion):
    return [each.outcome for each in deletion.outcomes]


async def test_objects_with_keys_of_every_kind_go(ground):
    keys = storable(ground.server)
    await ground.put(*keys, "stays")
    items = [each for each in (await listing.objects(ground.bucket)).items() if each.key != "stays"]
    assert told(await erase(ground, items)) == ["erased"] * len(keys)
    assert await ground.keys() == ["stays"]


async def test_a_key_that_looks_like_another_leaves_that_one_alone(ground):
    pairs = [
        ("a b", "a+b"),
        ("a%20b", "a b"),
        ("//x", "/x"),
        ("x/", "x"),
        ("a//b", "a/b"),
        ("..", "."),
        ("é", "e\u0301"),
    ]
    for one, other in pairs:
        await ground.put(one, other)
        items = [each for each in (await listing.objects(ground.bucket)).items() if each.key == one]
        assert told(await erase(ground, items)) == ["erased"]
        assert await ground.keys() == [other]
        await ground.client.delete_object(Bucket=ground.name, Key=other)


async def test_more_than_a_request_takes_goes_in_several(ground):
    await ground.put(*(f"k{i:02}" for i in range(25)))
    done = await erase(ground, (await listing.objects(ground.bucket)).items(), keys=10)
    assert told(done) == ["erased"] * 25
    assert await ground.keys() == []


async def test_all_versions_and_markers_go(versioned):
    await versioned.put("a", "b", "c")
    await versioned.put("a", body=b"second")
    await versioned.client.delete_object(Bucket=versioned.name, Key="b")
    items = [each for each in (await listing.versions(versioned.bucket)).items() if each.key != "c"]
    assert told(await erase(versioned, items)) == ["erased"] * 4
    left = await listing.versions(versioned.bucket)
    assert left.keys == ["c"]


async def test_of_several_versions_only_the_one_asked_for_goes(versioned):
    await versioned.put("a")
    old = (await listing.versions(versioned.bucket)).version_ids[0]
    await versioned.put("a", body=b"second")
    item = next(each for each in (await listing.versions(versioned.bucket)).items() if each.version_id == old)
    assert told(await erase(versioned, [item])) == ["erased"]
    left = await listing.versions(versioned.bucket)
    assert (left.keys, left.sizes, left.is_marker) == (["a"], [6], [False])


async def test_the_null_version_goes_and_leaves_the_newer_one(ground):
    await ground.put("a")
    await ground.client.put_bucket_versioning(Bucket=ground.name, VersioningConfiguration={"Status": "Enabled"})
    await ground.put("a", body=b"second")
    item = next(each for each in (await listing.versions(ground.bucket)).items() if each.version_id == "null")
    assert told(await erase(ground, [item])) == ["erased"]
    left = await listing.versions(ground.bucket)
    assert left.sizes == [6]


@pytest.mark.parametrize("key", ["plain", "a\x01b"])
async def test_a_newer_object_under_the_same_key_stays(ground, key):
    await ground.put(key)
    [item] = (await listing.objects(ground.bucket)).items()
    await ground.put(key, body=b"newer")
    assert told(await erase(ground, [item])) == ["changed"]
    assert await objects.get(ground.bucket, key) == b"newer"


async def test_an_object_written_again_with_the_same_content_stays(ground):
    await ground.put("a")
    [item] = (await listing.objects(ground.bucket)).items()
    item = item._replace(modified=item.modified - timedelta(days=100))  # it was listed when it was old
    assert told(await erase(ground, [item])) == ["changed"]
    assert await ground.keys() == ["a"]


@pytest.mark.parametrize("key", ["plain", "a\x01b"])
async def test_what_is_gone_already_is_told_apart(ground, key):
    await ground.put(key)
    [item] = (await listing.objects(ground.bucket)).items()
    await ground.client.delete_object(Bucket=ground.name, Key=key)
    assert told(await erase(ground, [item])) == ["already_gone"]


async def test_of_many_each_newer_object_stays_and_each_that_is_gone_is_told(ground):
    keys = [f"k{i:02}" for i in range(40)]
    await ground.put(*keys)
    items = [each for each in (await listing.objects(ground.bucket)).items() if each.key not in ("k05", "k39")]
    await ground.put("k00", "k20", "k38", body=b"newer")
    for key in ("k10", "k30"):
        await ground.client.delete_object(Bucket=ground.name, Key=key)
    done = await erase(ground, items)
    outcomes = dict(zip([each.key for each in items], told(done), strict=True))
    assert {key for key, said in outcomes.items() if said == "changed"} == {"k00", "k20", "k38"}
    assert {key for key, said in outcomes.items() if said == "already_gone"} == {"k10", "k30"}
    assert await ground.keys() == ["k00", "k05", "k20", "k38", "k39"]


async def test_many_that_lie_together_are_looked_at_by_one_list(ground):
    await ground.put(*(f"k{i:02}" for i in range(40)))
    done = await erase(ground, (await listing.objects(ground.bucket)).items())
    assert told(done) == ["erased"] * 40
    assert done.requests == 3, "the list, a HEAD of the first, and the deletion"


async def test_many_are_looked_at_one_by_one_where_they_can_not_be_listed(ground, monkeypatch):
    await ground.put(*(f"k{i:02}" for i in range(20)))
    items = (await listing.objects(ground.bucket)).items()
    await ground.put("k07", body=b"newer")

    async def denied(*_, **__):
        raise Blind("no", remedy="no")

    monkeypatch.setattr(looking.listing, "objects", denied)
    assert [each == "changed" for each in told(await erase(ground, items))] == [i == 7 for i in range(20)]


async def test_few_among_many_others_are_not_looked_for_in_all_of_the_listing(ground):
    await ground.put(*(f"k{i:04}" for i in range(1200)))
    page = await listing.objects(ground.bucket)
    wanted = [*page.items()[:1], *(await listing.objects(ground.bucket, after=page.after)).items()[-20:]]
    done = await erase(ground, wanted)
    assert told(done) == ["erased"] * 21
    assert done.requests == 1 + 21 + 1, "one page, that had none of them, then each by itself"
    assert len(await ground.keys()) == 1200 - 21


async def test_a_null_marker_goes_and_a_newer_null_object_stays(versioned):
    if versioned.server.kind == "moto":
        pytest.skip("moto makes no marker in a bucket whose versions are suspended")
    await versioned.client.put_bucket_versioning(Bucket=versioned.name, VersioningConfiguration={"Status": "Suspended"})
    for key in ("a", "b"):
        await versioned.put(key)
        await versioned.client.delete_object(Bucket=versioned.name, Key=key)
    items = (await listing.versions(versioned.bucket)).items()
    assert {(each.version_id, each.etag) for each in items} == {("null", "")}
    await versioned.put("b", body=b"newer")
    done = await erase(versioned, items)
    assert dict(zip([each.key for each in items], told(done), strict=True)) == {"a": "erased", "b": "changed"}
    assert await versioned.keys() == ["b"]


async def test_uploads_are_aborted(ground):
    made = [await ground.client.create_multipart_upload(Bucket=ground.name, Key=key) for key in ("u", "u", "//x +%20")]
    items = (await listing.uploads(ground.bucket)).items()
    assert {each.upload_id for each in items} == {each["UploadId"] for each in made}
    assert told(await erase(ground, [*items[:2], Doomed("u", upload_id="2~none")])) == [
        "erased",
        "erased",
        "already_gone",
    ]
    assert (await listing.uploads(ground.bucket)).upload_ids == [items[2].upload_id]


@pytest.mark.parametrize("key", ["plain", "a\x01b"])
async def test_a_legal_hold_keeps_a_version_and_is_told(locked, key):
    if locked.server.kind == "moto" and key != "plain":
        pytest.skip("moto's listing of versions is not encoded")
    await locked.put(key, "other")
    items = (await listing.versions(locked.bucket)).items()
    held = next(each for each in items if each.key == key)
    await objects.set_legal_hold(locked.bucket, key, held.version_id, on=True)
    assert await objects.legal_hold(locked.bucket, key, held.version_id)
    done = await erase(locked, items)
    assert [done.outcomes[items.index(each)].outcome for each in items] == [
        "held" if each.key == key else "erased" for each in items
    ]
    await objects.set_legal_hold(locked.bucket, key, held.version_id, on=False)
    assert told(await erase(locked, [held])) == ["erased"]


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
async def test_a_retention_keeps_a_version_also_where_governance_could_be_bypassed(locked, mode):
    await locked.put("a")
    [item] = (await listing.versions(locked.bucket)).items()
    until = good_for(locked.bucket, 3600).expires_at
    await locked.client.put_object_retention(
        Bucket=locked.name, Key="a", VersionId=item.version_id, Retention={"Mode": mode, "RetainUntilDate": until}
    )
    assert told(await erase(locked, [item])) == ["held"]
    lock = (await objects.head(locked.bucket, "a", item.version_id)).lock
    assert (lock.mode, lock.until.replace(microsecond=0)) == (mode, until.replace(microsecond=0))


async def test_a_delete_without_a_version_that_would_only_make_a_marker_is_no_erasure(versioned):
    await versioned.put("a\x01b")
    await objects.head(versioned.bucket, "a\x01b")
    item = Doomed("a\x01b", None, "9dd4e461268c8034f5c8564e155c67a6", 1)
    [outcome] = (await erase(versioned, [item])).outcomes
    assert (outcome.outcome, outcome.code) == ("failed", "MarkerMade")


async def test_a_bucket_that_is_not_there_fails_every_item(ground):
    await listing.objects(ground.bucket)
    nowhere = replace(ground.bucket, address=f"{ground.bucket.address}-not")
    items = [Doomed(f"k{i}", version_id="x") for i in range(3)]
    done = await delete(nowhere, items, expiry=good_for(ground.bucket), how=how(ground.server))
    assert {(each.outcome, each.code) for each in done.outcomes} == {("failed", "NoSuchBucket")}


async def test_nothing_is_sent_after_the_expiry(ground):
    await ground.put("a", "b\x01")
    items = (await listing.objects(ground.bucket)).items()
    requests = ground.bucket.endpoint.requests
    done = await delete(
        ground.bucket, items, expiry=good_for(ground.bucket, 5, ago=30), how=how(ground.server, conditional=True)
    )
    assert {(each.outcome, each.code) for each in done.outcomes} == {("failed", "RequestExpired")}
    assert ground.bucket.endpoint.requests == requests
    assert len(await ground.keys()) == 2


@pytest.mark.system
@pytest.mark.parametrize("fence", [Fence.QUERY, Fence.DATE])
@pytest.mark.parametrize("single", [False, True], ids=["many", "single"])
async def test_the_server_itself_refuses_what_comes_after_the_expiry(ceph_server, fence, single):
    async with ceph_server.bucket() as ground:
        await ground.put("a")
        bucket = ground.bucket
        await listing.objects(bucket)
        # Signed in time, and sent when it is over: as by a process that was stopped in between.
        body = b"" if single else body_of([Doomed("a")], conditional=False)
        headers = {} if single else checksum(body, "md5")
        method, key, query = ("DELETE", "a", []) if single else ("POST", "", [("delete", "")])
        now = bucket.endpoint.clock.earliest()
        expiry = Expiry(now, now + timedelta(seconds=3))
        signed = (await bucket.endpoint.signer()).until(fence, method, bucket.url(key), query, headers, body, expiry)
        while bucket.endpoint.clock.earliest() < expiry.expires_at:
            await asyncio.sleep(0.2)
        reply = await bucket.endpoint.send(method, signed, body)
        assert reply.status == 403
        assert await ground.keys() == ["a"]
        # And the very same request is good in time.
        in_time = (await bucket.endpoint.signer()).until(
            fence, method, bucket.url(key), query, headers, body, good_for(bucket)
        )
        assert (await bucket.endpoint.send(method, in_time, body)).trouble is None
        assert await ground.keys() == []


async def test_items_of_one_request_are_compared_by_their_etags_where_the_server_can(ground):
    """What these servers ignore is sent all the same where it is said that they can."""
    items = [Doomed("a", etag="e1"), Doomed("b", version_id="v1", etag="e2"), Doomed("c", version_id="null", etag="e3")]
    body = body_of(items, conditional=True).decode()
    assert body.count("<ETag>") == 2
    assert "<Key>b</Key><VersionId>v1</VersionId></Object>" in body
    assert How(Fence.NONE, conditional=True).keys == 1000
