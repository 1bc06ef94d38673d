"""Sweeps of objects through a network that fails: what was sent and not answered is waited for, looked at, counted once."""

import asyncio
import re
from datetime import timedelta

import pytest

from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.domain.holds import Scope
from retentiond.stores.s3 import batch
from tests.contract.behaviours import killed
from tests.services.buckets import prepared
from tests.services.gates import looks
from tests.services.s3_faults import Fault, faulty


def of_a_sweep(asked):
    """Whether it is a deletion by a sweep, and not one that finds out what the endpoint can."""
    return asked.erases and b"probe" not in asked.body


@pytest.fixture(params=[False, True], ids=["objects", "versions"])
async def subject(request, apart, s3):
    """Objects, and the way to them, which fails as it is told to (`subject.proxy`)."""
    past = request.getfixturevalue("ceph_past") if s3.kind == "ceph" else None
    async with s3.bucket(versioned=request.param) as ground, faulty(s3) as proxy:
        found = await prepared(apart, ground, past)
        found.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        found.proxy = proxy
        await found.records()
        yield found


async def until_it_waits(subject):
    """Until the sweep's permit, with what it was for, is all that is left to wait for."""
    async for _ in looks("the sweep does not come to its unanswered requests"):
        async with subject.rig.control_connection() as control:
            if await control.fetchval("SELECT to_regclass('retentiond.permits')") is None:
                continue
            if await control.fetchval("SELECT prepared IS NOT NULL FROM retentiond.permits WHERE ended_at IS NULL"):
                return


async def until_unanswered(subject):
    await until_it_waits(subject)
    async for _ in looks("no deletion was sent"):
        if any(map(of_a_sweep, subject.proxy.seen)):
            return


@pytest.mark.parametrize(
    ("kind", "gone"), [("lost", 5), ("cut", 5), ("never sent", 0), ("broken", 5), ("error in a 200", 5)]
)
async def test_what_was_not_answered_is_waited_for_and_looked_at(subject, kind, gone):
    subject.proxy.arm(Fault(kind, about=of_a_sweep))
    sweep = asyncio.create_task(subject.rig.only())
    await until_unanswered(subject)
    await asyncio.sleep(0.3)
    assert not sweep.done()
    await subject.let_time_pass()
    outcome = await sweep
    assert (outcome.changed, outcome.failed) == (gone, 5 - gone)
    await subject.rig.require_told(logs=gone)
    await subject.rig.require_settled()
    assert (await subject.rig.only()).changed == 5 - gone
    await subject.rig.require_told(logs=5)
    assert await subject.left() == {1001, 1002, 1003}


async def test_a_request_that_is_carried_out_late_goes_before_any_hold_is_active(subject):
    subject.proxy.arm(Fault("late", about=of_a_sweep))
    sweep = asyncio.create_task(subject.rig.only())
    await until_unanswered(subject)
    sweep.cancel()
    with killed():
        await sweep
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
        await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        await subject.let_time_pass(seconds=60)  # past the deadline, and not past what the server may take
        assert await app.activate_holds(app.hold_recorder("test")) == []
        await subject.proxy.release()
        assert await subject.left() == {1001, 1002, 1003}
        await subject.let_time_pass(seconds=100)
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    await subject.rig.only()
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


@pytest.mark.parametrize("kind", ["broken", "error in a 200", "gave up"])
async def test_what_the_server_failed_in_the_middle_of_is_asked_for_again_and_its_permit_outlasts_the_first(
    subject, kind
):
    subject.proxy.arm(Fault(kind, about=of_a_sweep))
    sweep = asyncio.create_task(subject.rig.only())
    async for _ in looks("the deletion is not sent again"):
        if len([*filter(of_a_sweep, subject.proxy.seen)]) == 2:
            break
    await asyncio.sleep(0.5)
    assert (sweep.done(), await subject.left()) == (False, {1001, 1002, 1003})
    await subject.proxy.release()
    await subject.let_time_pass()
    outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 5, 0)
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


@pytest.mark.parametrize("kind", ["busy", "keys busy", "keys broken"])
async def test_what_the_server_refused_is_asked_for_again_and_goes(subject, kind):
    subject.proxy.arm(Fault(kind, about=of_a_sweep))
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    await subject.rig.require_told(logs=5)


async def test_a_server_that_can_not_be_reached_for_deletions_leaves_no_doubt(subject):
    """Of many windows the first goes, then the network."""
    await subject.add(1500)
    sent = []

    def gone_after_the_first(asked):
        sent.extend([asked] if of_a_sweep(asked) else [])
        return False

    subject.proxy.arm(Fault("busy", about=gone_after_the_first))
    outcome = await subject.rig.only()
    assert outcome.changed == 6
    assert sent


@pytest.mark.system
@pytest.mark.parametrize("versioned", [False, True], ids=["objects", "versions"])
async def test_a_request_that_comes_after_its_expiry_is_refused_by_the_server_itself(
    apart, ceph_server, ceph_past, monkeypatch, versioned
):
    """The network held it for longer than its permit lives; the permit of three seconds stands for one of thirty."""
    monkeypatch.setattr(batch, "_MARGIN", timedelta(seconds=27))
    async with ceph_server.bucket(versioned=versioned) as ground, faulty(ceph_server) as proxy:
        subject = await prepared(apart, ground, ceph_past)
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        await subject.records()
        proxy.arm(Fault("stopped before", about=of_a_sweep))
        sweep = asyncio.create_task(subject.rig.only())
        await proxy.reached.wait()
        await asyncio.sleep(4)
        await proxy.release()
        outcome = await sweep
        # It was asked for again under another permit, which would have found nothing if it had been carried out.
        assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 5, 0)
        assert len([each for each in proxy.passed if of_a_sweep(each)]) == 2
        await subject.rig.require_told(logs=5)


async def test_a_listing_that_never_ends_fails_the_sweep_and_says_so(subject):
    if subject.ground.server.kind == "ceph":
        pytest.skip("it sees that the address is another than was signed")

    def first_page_again(_, raw):
        raw = re.sub(rb"&?(start-after|key-marker|version-id-marker)=[^& ]*", b"", raw, count=2)
        return raw.replace(b"max-keys=1000", b"max-keys=1").replace(b"?&", b"?")

    subject.proxy.rewrite = first_page_again
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "lists again what it has listed before" in outcome.error["message"]
    assert outcome.error["remedy"]
    await subject.rig.require_settled()


async def test_a_hold_that_comes_while_a_page_is_listed_is_minded(subject):
    subject.proxy.arm(
        Fault("stopped after", about=lambda asked: b"logs" in asked.target.encode() and asked.method == "GET")
    )
    sweep = asyncio.create_task(subject.rig.only())
    await subject.proxy.reached.wait()
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("1",))
    await subject.proxy.release()
    outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 5)
    assert not any(map(of_a_sweep, subject.proxy.passed))


async def test_a_sweep_that_was_cut_short_goes_on_from_its_cursor_and_comes_round(subject):
    for number in range(2001, 2041):
        await subject.add(number)
    async with subject.rig.app() as app:
        engine = app.engine
        subject.proxy.arm(Fault("stopped after", about=of_a_sweep))
        sweep = asyncio.create_task(engine.sweep(app.spec.target("logs")))
        await subject.proxy.reached.wait()
        engine.drain()
        await subject.proxy.release()
        first = await sweep
    assert first.outcome == "capped"
    assert 0 < first.changed < 45
    await subject.add(1)
    second = await subject.rig.only()
    assert (second.outcome, first.changed + second.changed) == ("drained", 46)
    await subject.rig.require_told(logs=46)
