"""Servers and networks that fail: what is known to have gone, what is not, and what is never sent twice."""

import asyncio
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from retentiond.errors import Blind, Unreachable
from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import listing
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Endpoint
from retentiond.stores.s3.errors import Unsent
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.signing import Fence
from retentiond.stores.s3.throttle import Throttle
from tests.services.s3 import good_for, how
from tests.services.s3_faults import Fault, faulty


@pytest.fixture
async def failing(s3):
    """A bucket of five versions, its items, and the way to it, which fails as it is told to."""
    async with s3.bucket(versioned=True) as ground, faulty(s3) as proxy:
        await ground.put(*(f"k{i}" for i in range(5)))
        items = (await listing.versions(ground.bucket)).items()
        endpoint = await Endpoint.open(proxy.server.access(answer_seconds=5))
        try:
            bucket = await endpoint.locate(ground.name)
            await listing.page_size(bucket)
            yield Failing(ground, proxy, bucket, items)
        finally:
            await endpoint.close()


class Failing:
    def __init__(self, ground, proxy, bucket, items):
        self.ground, self.proxy, self.bucket, self.items = ground, proxy, bucket, items
        self.throttle = Throttle()

    async def erase(self, items=None):
        return await delete(
            self.bucket,
            items or self.items,
            expiry=good_for(self.bucket),
            how=how(self.ground.server),
            throttle=self.throttle,
        )

    async def left(self):
        return len((await listing.versions(self.ground.bucket)).keys)

    def erasures(self):
        return [each for each in self.proxy.seen if each.erases]


def told(deletion):
    return [each.outcome for each in deletion.outcomes]


@pytest.mark.parametrize("kind", ["busy", "keys busy", "keys broken"])
async def test_what_a_server_refused_is_asked_for_again_and_goes(failing, kind):
    failing.proxy.arm(Fault(kind))
    done = await failing.erase()
    assert told(done) == ["erased"] * 5
    assert (done.unanswered, len(failing.erasures()), await failing.left()) == (0, 2, 0)


@pytest.mark.parametrize("kind", ["broken", "error in a 200"])
async def test_what_a_server_failed_in_the_middle_of_is_asked_for_again_and_may_follow_all_the_same(failing, kind):
    failing.proxy.arm(Fault(kind))
    done = await failing.erase()
    assert told(done) == ["unknown"] * 5
    assert (done.unanswered, len(failing.erasures()), await failing.left()) == (1, 2, 0)


async def test_what_a_gateway_has_given_up_may_be_carried_out_after_a_later_attempt_was_answered(failing):
    """So the permit must outlast it: a hold that is active by then has an object of the same key on it."""
    key = failing.items[0].key
    bare = [Doomed(key, etag=failing.items[0].etag, size=1)]
    async with failing.ground.server.bucket() as plain:
        await plain.put(key)
        bucket = await failing.bucket.endpoint.locate(plain.name)
        failing.proxy.arm(Fault("gave up"))
        done = await delete(bucket, bare, expiry=good_for(bucket), how=how(plain.server), throttle=Throttle())
        assert (told(done), done.unanswered) == (["unknown"], 1)
        assert await plain.keys() == []
        await plain.put(key)
        await failing.proxy.release()
        assert await plain.keys() == [], "the first attempt has come"


@pytest.mark.parametrize("second", ["denied", "busy"])
async def test_what_is_said_of_a_later_attempt_tells_nothing_of_one_that_was_given_up(failing, second, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    failing.proxy.arm(Fault("gave up"), Fault(second))
    done = await failing.erase()
    assert told(done) == ["unknown"] * 5
    await failing.proxy.release()
    assert await failing.left() == 0


async def test_a_key_that_failed_in_the_middle_and_is_gone_then_may_have_gone_by_our_hand(failing):
    async with failing.ground.server.bucket() as plain:
        await plain.put("plain")
        bucket = await failing.bucket.endpoint.locate(plain.name)
        items = (await listing.objects(plain.bucket)).items()
        failing.proxy.arm(Fault("keys broken", keys=1))
        done = await delete(bucket, items, expiry=good_for(bucket), how=how(plain.server), throttle=Throttle())
        assert (told(done), await plain.keys()) == (["unknown"], [])


async def test_a_key_that_failed_in_the_middle_and_then_for_good_is_in_doubt(failing, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    failing.proxy.arm(Fault("keys broken", keys=2), Fault("busy"))
    assert told(await failing.erase()) == ["unknown"] * 2 + ["erased"] * 3


@pytest.mark.parametrize("kind", ["a page"])
async def test_a_page_of_a_proxy_is_no_answer_to_a_deletion(failing, kind):
    upload = await failing.ground.client.create_multipart_upload(Bucket=failing.ground.name, Key="u")
    failing.proxy.arm(Fault(kind), Fault(kind))
    done = await failing.erase([Doomed("u", upload_id=upload["UploadId"]), failing.items[0]])
    assert (told(done), done.unanswered) == (["unknown"] * 2, 2)


async def test_credentials_that_can_not_be_renewed_between_two_attempts_leave_nothing_at_work(failing, monkeypatch):
    """Of several requests at once one is told to slow down, and can't be signed again."""
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    endpoint, given = failing.bucket.endpoint, []
    whole = endpoint._credentials

    class Failing:
        async def get_frozen_credentials(self):
            given.append(1)
            if len(given) > 1:
                raise ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")
            return await whole.get_frozen_credentials()

    monkeypatch.setattr(endpoint, "_credentials", Failing())
    failing.proxy.arm(Fault("busy"))
    done = await failing.erase()
    assert {(each.outcome, each.code) for each in done.outcomes} == {("failed", "Unreachable")}
    assert (len(failing.erasures()), done.unanswered) == (1, 0)


async def test_where_one_request_meets_a_defect_no_other_is_sent_after_it(failing, monkeypatch):
    sent = []

    async def broken(*args, **_):
        sent.append(args)
        if len(sent) == 1:
            raise RuntimeError("a defect")
        await asyncio.sleep(3600)

    monkeypatch.setattr(failing.bucket.endpoint, "send", broken)
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError):
        await delete(
            failing.bucket,
            failing.items,
            expiry=good_for(failing.bucket),
            how=how(failing.ground.server, keys=1, concurrency=2),
        )
    assert asyncio.all_tasks() == before
    assert len(sent) < len(failing.items)


async def test_a_request_that_has_no_time_left_is_not_sent(failing):
    now = failing.bucket.endpoint.clock.earliest()
    for left in (0.0, 0.9, -5.0):
        ends = now.replace(microsecond=0) + timedelta(seconds=left)
        expiry = Expiry(now, ends)
        done = await delete(failing.bucket, failing.items, expiry=expiry, how=how(failing.ground.server))
        assert {(each.outcome, each.code) for each in done.outcomes} == {("failed", "RequestExpired")}
        with pytest.raises(Unsent):
            await failing.bucket.destroy(Fence.QUERY, expiry, "POST", "", [("delete", "")], {}, b"")
    assert failing.erasures() == []


@pytest.mark.parametrize("kind", ["busy", "keys busy"])
async def test_a_server_that_has_too_much_to_do_is_asked_for_less(failing, kind):
    failing.proxy.arm(Fault(kind))
    await failing.erase()
    assert failing.throttle.rate is not None


async def test_only_the_keys_that_failed_are_asked_for_again(failing):
    failing.proxy.arm(Fault("keys broken", keys=2))
    assert told(await failing.erase()) == ["erased"] * 5
    first, second = failing.erasures()
    assert (first.body.count(b"<Key>"), second.body.count(b"<Key>")) == (5, 2)


async def test_a_retry_keeps_the_expiry(failing):
    failing.proxy.arm(Fault("busy"), Fault("keys busy"))
    await failing.erase()
    signed = [dict(part.split("=", 1) for part in each.target.split("?")[1].split("&")) for each in failing.erasures()]
    assert len(signed) == 3
    if failing.ground.server.kind == "ceph":
        assert len({(each["X-Amz-Date"], each["X-Amz-Expires"]) for each in signed}) == 1


@pytest.mark.parametrize(("kind", "left"), [("cut", 0), ("lost", 0), ("never sent", 5)])
async def test_an_answer_that_never_came_whole_leaves_all_in_doubt_and_nothing_is_sent_again(failing, kind, left):
    failing.proxy.arm(Fault(kind))
    done = await failing.erase()
    assert told(done) == ["unknown"] * 5
    assert (done.unanswered, len(failing.erasures()), await failing.left()) == (1, 1, left)


@pytest.mark.parametrize("kind", ["cut", "lost", "never sent"])
async def test_a_single_delete_is_never_sent_twice_by_anybody(failing, kind):
    upload = await failing.ground.client.create_multipart_upload(Bucket=failing.ground.name, Key="u")
    failing.proxy.arm(Fault(kind))
    done = await failing.erase([Doomed("u", upload_id=upload["UploadId"])])
    # Of a 204 there is nothing that could be cut.
    assert told(done) == (["erased"] if kind == "cut" else ["unknown"])
    assert len(failing.erasures()) == 1


async def test_a_404_that_is_none_of_s3_is_not_taken_for_gone(failing):
    upload = await failing.ground.client.create_multipart_upload(Bucket=failing.ground.name, Key="u")
    failing.proxy.arm(Fault("not found"))
    done = await failing.erase([Doomed("u", upload_id=upload["UploadId"])])
    assert [(each.outcome, each.code) for each in done.outcomes] == [("failed", "NotFound")]


async def test_a_request_may_take_effect_long_after_the_client_gave_it_up(failing):
    failing.proxy.arm(Fault("late"))
    done = await failing.erase()
    assert (told(done), done.unanswered, await failing.left()) == (["unknown"] * 5, 1, 5)
    await failing.proxy.release()
    assert await failing.left() == 0


async def test_a_server_that_stays_broken_leaves_what_may_be_gone_in_doubt(failing, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    failing.proxy.arm(Fault("broken"), Fault("broken"))
    done = await failing.erase()
    assert (told(done), done.unanswered) == (["unknown"] * 5, 2)


async def test_a_server_that_stays_busy_fails_the_items(failing, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    failing.proxy.arm(Fault("busy"), Fault("busy"))
    done = await failing.erase()
    assert ({(each.outcome, each.code) for each in done.outcomes}, await failing.left()) == (
        {("failed", "SlowDown")},
        5,
    )


async def test_a_refused_connection_is_no_doubt(failing, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    await failing.proxy.stop()
    done = await failing.erase()
    assert ({(each.outcome, each.code) for each in done.outcomes}, done.unanswered) == ({("failed", "Unreachable")}, 0)
    with pytest.raises(Unreachable, match=r"S3 at 127\.0\.0\.1"):
        await listing.objects(failing.bucket)


@pytest.mark.parametrize("kind", ["busy", "broken", "cut", "lost", "error in a 200"])
async def test_a_listing_is_asked_for_again(failing, kind):
    failing.proxy.arm(Fault(kind, about=lambda asked: asked.method == "GET"))
    if kind == "cut" and failing.ground.server.kind == "ceph":
        pytest.skip("Ceph's answer is chunked, so half of it is noticed as lost")
    assert len((await listing.versions(failing.bucket)).keys) == 5


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        ({"secret_access_key": "wrong"}, Unreachable, "the secret access key is another one"),
        ({"access_key_id": "nobody"}, Unreachable, "not known there"),
    ],
)
@pytest.mark.system
async def test_wrong_credentials_are_said(ceph_server, other, error, words):
    async with ceph_server.bucket() as ground:
        endpoint = await Endpoint.open(ceph_server.access(**other))
        try:
            with pytest.raises(error, match=words) as raised:
                await listing.objects(await endpoint.locate(ground.name))
            assert "credentials" in raised.value.remedy
        finally:
            await endpoint.close()


async def test_a_bucket_that_is_not_there_is_said(s3):
    endpoint = await Endpoint.open(s3.access())
    try:
        with pytest.raises(Blind, match="there is no such bucket"):
            await listing.objects(await endpoint.locate("nowhere-at-all"))
        with pytest.raises(Blind, match="directory buckets"):
            await endpoint.locate("mine--use1-az4--x-s3")
        with pytest.raises(Blind, match="NO such name"):
            await endpoint.locate("NO such name")
    finally:
        await endpoint.close()


async def test_without_credentials_it_says_where_they_may_come_from(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Unreachable, match="there are no credentials"):
        await Endpoint.open(s3.access(access_key_id=None, secret_access_key=None))
