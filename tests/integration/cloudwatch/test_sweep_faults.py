"""Sweeps of log groups through a network and a service that fail: nothing newer goes, and each stream is counted once."""

import asyncio
import json

import pytest

from retentiond.stores.cloudwatch import deleting
from tests.contract.behaviours import killed
from tests.services.gates import looks
from tests.services.log_groups import log_ground, prepared
from tests.services.s3_faults import Fault, faulty


def deletes(asked):
    """Whether it deletes a stream in a sweep, and does not find out what the endpoint can."""
    return asked.action == "DeleteLogStream" and b"retentiond-probe" not in asked.body


def says(code, status="400 Bad Request", about=deletes):
    return Fault("says", about=about, status=status, body=json.dumps({"__type": code, "message": "armed"}).encode())


@pytest.fixture
async def subject(apart, moto_server):
    """Streams, and the way to them, which fails as it is told to (`subject.proxy`)."""
    async with log_ground(moto_server) as ground, faulty(moto_server) as proxy:
        found = await prepared(apart, ground, retention="leave")
        found.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        found.proxy = proxy
        await found.records()
        yield found


async def until_it_waits(subject):
    async for _ in looks("the sweep does not come to its unanswered requests"):
        async with subject.rig.control_connection() as control:
            if await control.fetchval("SELECT to_regclass('retentiond.permits')") is None:
                continue
            if await control.fetchval("SELECT prepared IS NOT NULL FROM retentiond.permits WHERE ended_at IS NULL"):
                break
    async for _ in looks("no deletion was sent"):
        if any(map(deletes, subject.proxy.seen)):
            return


@pytest.mark.parametrize(
    ("fault", "gone"),
    [
        (Fault("lost", about=deletes), 1),
        (Fault("never sent", about=deletes), 0),
        (Fault("a page", about=deletes), 0),
        (says("ServiceUnavailableException", "500 Internal Server Error"), 0),
        (says("InternalFailure", "503 Service Unavailable"), 0),
    ],
    ids=lambda each: getattr(each, "kind", each),
)
async def test_what_was_not_answered_is_waited_for_and_looked_at_and_nothing_more_is_sent(subject, fault, gone):
    subject.proxy.arm(fault)
    sweep = asyncio.create_task(subject.rig.only())
    await until_it_waits(subject)
    await asyncio.sleep(0.2)
    assert not sweep.done()
    assert sum(map(deletes, subject.proxy.seen)) == 1
    await subject.let_time_pass()
    await sweep
    await subject.rig.require_settled()
    assert (await subject.rig.only()).outcome == "drained"
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)
    first = next(entry for entry in await subject.rig.ledger() if entry["kind"] == "outcome")
    assert (first["verified"], first["counts"]["erased"]) == ("looked at afterwards", gone)


@pytest.mark.parametrize("code", ["ThrottlingException", "OperationAbortedException"])
async def test_a_deletion_that_is_throttled_or_in_conflict_is_done_by_the_next_pass(subject, code):
    subject.proxy.arm(says(code))
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 5, 0)
    await subject.rig.require_told(logs=5)


async def test_a_429_without_a_word_of_the_service_is_throttling_too(subject):
    subject.proxy.arm(Fault("says", about=deletes, status="429 Too Many Requests", body=b""))
    assert (await subject.rig.only()).changed == 5


@pytest.mark.parametrize("action", ["DescribeLogGroups", "DescribeLogStreams", "GetLogEvents"])
async def test_what_only_looks_is_asked_again_where_it_is_throttled(subject, action, monkeypatch):
    monkeypatch.setattr("retentiond.stores.cloudwatch.endpoint._PAUSE_SECONDS", 0.01)
    subject.proxy.arm(*[says("ThrottlingException", about=lambda asked: asked.action == action) for _ in range(3)])
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)


async def test_where_deleting_is_not_allowed_it_is_said_with_the_right_and_the_others_are_tried(subject):
    subject.proxy.arm(says("AccessDeniedException"))
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 4, 1)
    assert "logs:DeleteLogStream" in outcome.error["remedy"]


async def test_a_stream_whose_newest_event_may_not_be_read_is_never_deleted(subject):
    subject.proxy.arm(*[says("AccessDeniedException", about=lambda a: a.action == "GetLogEvents") for _ in range(5)])
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 0, 5)
    assert "logs:GetLogEvents" in outcome.error["remedy"]
    assert await subject.left() == {1, 2, 3, 4, 5, 1001, 1002, 1003}


@pytest.mark.parametrize("action", ["DescribeLogGroups", "DescribeLogStreams"])
async def test_where_listing_is_not_allowed_the_target_is_blind_and_the_right_is_named(subject, action):
    about = lambda asked: asked.action == action and b'"limit":1}' not in asked.body  # noqa: E731
    subject.proxy.arm(*[says("AccessDeniedException", about=about) for _ in range(9)])
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert f"logs:{action}" in outcome.error["remedy"]


async def test_a_group_that_vanishes_between_the_look_and_the_delete_is_already_gone(subject, monkeypatch):
    whole = deleting.delete

    async def delete(*args, **named):
        await subject.ground.client.delete_log_group(logGroupName=f"{subject.ground.head}1")
        return await whole(*args, **named)

    monkeypatch.setattr(deleting, "delete", delete)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 0, 5)
    await subject.rig.require_settled()


@pytest.mark.parametrize("step", ["before it is read", "after the batch was intended"])
async def test_a_stream_that_gets_a_new_event_after_it_was_judged_stays(subject, monkeypatch, step):
    whole, done = deleting.api.newest_event, []

    async def newest_event(endpoint, stream):
        if stream.name == "000003" and not done:
            done.append(stream)
            await subject.add(3, days=1)
        return await whole(endpoint, stream)

    if step == "before it is read":
        monkeypatch.setattr(deleting.api, "newest_event", newest_event)
    else:
        delete = deleting.delete

        async def late(*args, **named):
            if not done:
                done.append(args)
                await subject.add(3, days=1)
            return await delete(*args, **named)

        monkeypatch.setattr(deleting, "delete", late)
    outcome = await subject.rig.only()
    assert done
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 4, 1)
    assert await subject.left() == {3, 1001, 1002, 1003}
    await subject.rig.require_told(logs=4)


async def test_a_newer_event_that_is_past_the_term_as_well_keeps_nothing(subject, monkeypatch):
    whole, done = deleting.api.newest_event, []

    async def newest_event(endpoint, stream):
        if not done:
            done.append(stream)
            await subject.add(int(stream.name), days=300)
        return await whole(endpoint, stream)

    monkeypatch.setattr(deleting.api, "newest_event", newest_event)
    assert (await subject.rig.only()).changed == 5


async def test_a_batch_whose_process_stood_still_past_its_permit_sends_nothing(subject, monkeypatch):
    """Ten minutes pass between the reading of a stream and its deletion, by the service's clock."""
    whole = deleting.api.newest_event
    moved = []

    async def newest_event(endpoint, stream):
        found = await whole(endpoint, stream)
        if not moved:
            moved.append(stream)
            latest = endpoint.clock.latest
            monkeypatch.setattr(endpoint.clock, "latest", lambda: latest() + deleting.timedelta(minutes=10))
        return found

    monkeypatch.setattr(deleting.api, "newest_event", newest_event)
    await subject.rig.only()
    assert moved
    assert not any(map(deletes, subject.proxy.seen))
    assert await subject.left() == {1, 2, 3, 4, 5, 1001, 1002, 1003}
    await subject.rig.require_settled()


async def test_a_stream_that_was_made_anew_under_its_name_is_another_and_the_old_one_is_counted_gone(subject):
    with subject.dying("after"), killed():
        await subject.rig.only()
    await subject.ground.stream("1", "000003", 1, created=1)
    await subject.let_time_pass()
    await subject.rig.only()
    assert await subject.left() == {3, 1001, 1002, 1003}
    await subject.rig.require_told(logs=5)


async def test_streams_that_cant_be_read_in_time_are_left_to_the_next_pass_when_the_permit_is_over(
    subject, monkeypatch
):
    monkeypatch.setattr("retentiond.stores.cloudwatch.endpoint._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(deleting.Sent, "over", property(lambda sent: sent.endpoint.requests > 30))
    whole, read = deleting.api.newest_event, []

    async def newest_event(endpoint, stream):
        read.append(stream)
        endpoint.requests += 20
        return await whole(endpoint, stream)

    monkeypatch.setattr(deleting.api, "newest_event", newest_event)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed + outcome.locked) == ("capped", 5)
    assert len(read) == outcome.changed
    await subject.rig.require_settled()
