"""What Object Lock keeps: honoured, counted as held, told from a missing right, and not asked about again and again."""

from datetime import UTC, datetime, timedelta

import pytest

from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Endpoint
from retentiond.stores.s3.items import Doomed, Lock
from retentiond.stores.s3.locks import LONGEST, OURS, Locks
from tests.services.buckets import prepared
from tests.services.s3 import good_for, how
from tests.services.s3_faults import Fault, faulty

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def subject(apart, moto_server):
    async with moto_server.bucket(lock=True) as ground:
        yield await prepared(apart, ground)


async def keep(subject, key, *, days=1, mode="GOVERNANCE"):
    until = datetime.now(UTC) + timedelta(days=days)
    await subject.ground.client.put_object_retention(
        Bucket=subject.ground.name, Key=key, Retention={"Mode": mode, "RetainUntilDate": until}
    )


async def legal_hold(subject, key, status="ON"):
    await subject.ground.client.put_object_legal_hold(Bucket=subject.ground.name, Key=key, LegalHold={"Status": status})


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
async def test_what_a_retention_keeps_past_its_term_is_held_and_nothing_is_bypassed(subject, mode):
    for number in (1, 2):
        await subject.add(number)
    await keep(subject, subject.key(1), mode=mode)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        outcome = await subject.rig.only()
        assert not [each for each in proxy.seen if "bypass" in str(each).lower()]
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 1, 1)
    assert await subject.left() == {1}
    await subject.rig.require_told(logs=1)


async def test_a_plan_counts_what_is_locked_as_held(subject):
    for number in (1, 2, 3):
        await subject.add(number)
    await legal_hold(subject, subject.key(1))
    async with subject.rig.app(mode="plan") as app:
        outcome = await app.engine.sweep(app.spec.target("logs"))
        assert (outcome.would, outcome.held) == (2, 1)
        assert outcome.document(plan_mode=True)["by_tier"] == {"free": 2}


async def test_a_locked_version_is_asked_for_once_and_not_by_each_sweep(subject):
    await subject.add(1)
    await keep(subject, subject.key(1))
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        async with subject.rig.app() as app:
            first = await app.engine.sweep(app.spec.target("logs"))
            proxy.seen.clear()
            await subject.add(2)
            await subject.rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 3")  # else it rests
            second = await app.engine.sweep(app.spec.target("logs"))
            bodies = [each.body for each in proxy.seen if each.erases]
    assert (first.held, first.changed, second.held, second.changed) == (1, 0, 1, 1)
    assert not [body for body in bodies if b"000001" in body]
    assert [body for body in bodies if b"000002" in body]


async def test_when_the_lock_is_off_the_version_goes(subject):
    await subject.add(1)
    await legal_hold(subject, subject.key(1))
    assert (await subject.rig.only()).held == 1
    await legal_hold(subject, subject.key(1), "OFF")
    await subject.rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 3")
    assert (await subject.rig.only()).changed == 1


@pytest.mark.parametrize("denied", ["legal-hold", "retention"])
async def test_a_bucket_with_a_lock_is_not_swept_without_the_right_to_see_locks(subject, denied):
    await subject.add(1)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(Fault("denied", about=lambda asked: f"?{denied}" in asked.target))
        outcome = await subject.rig.only()
    right = {"legal-hold": "s3:GetObjectLegalHold", "retention": "s3:GetObjectRetention"}[denied]
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert right in outcome.error["remedy"]
    assert await subject.left() == {1}


async def test_a_lock_is_told_also_where_the_object_may_not_be_read(subject):
    await subject.add(1)
    await legal_hold(subject, subject.key(1))
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        unreadable = Fault("denied", about=lambda asked: asked.method == "HEAD" and "000001" in asked.target)
        proxy.arm(*[unreadable] * 4)
        outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.held, outcome.failed) == ("drained", 1, 0)


async def test_where_neither_object_nor_lock_may_be_seen_that_is_said_and_not_taken_for_no_lock(subject):
    await subject.add(1)
    await legal_hold(subject, subject.key(1))
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        unseen = Fault("denied", about=lambda asked: not asked.erases and "000001" in asked.target)
        proxy.arm(*[unseen] * 8)
        outcome = await subject.rig.only()
    assert (outcome.held, outcome.failed) == (0, 1)
    assert "whether Object Lock is why may not be seen" in outcome.error["message"]


def test_a_retention_is_believed_until_its_end_and_no_longer_than_a_day():
    locks = Locks()
    hour = NOW + timedelta(hours=1)
    assert locks.found("a", "1", Lock(until=hour), NOW) == hour
    assert locks.found("a", "2", Lock(until=NOW + timedelta(days=99)), NOW) == NOW + LONGEST
    assert (locks.kept("a", "1", NOW), locks.kept("a", "1", hour)) == (hour, None)


def test_a_legal_hold_that_may_be_ours_is_asked_about_again_soon():
    assert Locks(OURS).found("a", "1", Lock(legal_hold=True), NOW) == NOW + OURS


def test_what_was_found_free_is_not_believed_to_be_locked():
    locks = Locks()
    locks.found("a", "1", None, NOW)
    assert locks.kept("a", "1", NOW) is None


async def test_an_upload_of_which_a_part_came_late_is_aborted_again(moto_server):
    async with moto_server.bucket() as ground, faulty(moto_server) as proxy:
        begun = await ground.client.create_multipart_upload(Bucket=ground.name, Key="k")
        part = {"Bucket": ground.name, "Key": "k", "UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"x"}
        await ground.client.upload_part(**part)
        endpoint = await Endpoint.open(proxy.server.access())
        try:
            bucket = await endpoint.locate(ground.name)
            await bucket.ask("HEAD")
            # What the server answers without doing it: the abort is repeated, since parts are still listed.
            proxy.arm(Fault("pretends", about=lambda asked: asked.method == "DELETE"))
            item = Doomed("k", upload_id=begun["UploadId"])
            done = await delete(bucket, [item], expiry=good_for(bucket), how=how(ground.server))
        finally:
            await endpoint.close()
        assert [each.outcome for each in done.outcomes] == ["erased"]
        assert len([each for each in proxy.seen if each.method == "DELETE"]) == 2
        assert "Uploads" not in await ground.client.list_multipart_uploads(Bucket=ground.name)
