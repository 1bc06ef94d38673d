"""Holds that a bucket with Object Lock keeps itself: written before they are active, taken off when none holds."""

import pytest

from retentiond.control import holds, natives
from retentiond.domain.holds import Scope
from retentiond.errors import Fenced
from retentiond.stores.s3 import native as native_module
from retentiond.stores.s3 import native_check, objects
from tests.services.buckets import prepared
from tests.services.s3_faults import Fault, faulty


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.system)])
async def subject(request, apart):
    server = request.getfixturevalue(f"{request.param}_server")
    async with server.bucket(lock=True) as ground:
        yield await prepared(apart, ground, native_holds=True)


async def put(subject, *numbers, account="1"):
    await subject.ground.put(*(subject.key(number, account) for number in numbers))


async def placed(app, *, native=False, **scope):
    draft = holds.HoldDraft(matter="m", reason="r", scope=Scope(**scope), native=native)
    return await holds.place(app.database, draft, "test", record=app.hold_recorder("test"))


async def activate(app):
    """One try; the holds it made active, and why others wait."""
    why = {}
    active = await holds.activate_pending(
        app.database,
        app.fences(),
        lambda hold, reasons: why.update({hold.id: "; ".join(each.detail for each in reasons)}),
        native=app.natives(),
        record=app.hold_recorder("test"),
    )
    return [hold.id for hold in active], why


async def released(app, hold):
    """What a daemon does when the grace is over; what is not in step afterwards."""
    await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
    await holds.finish_releases(app.database)
    return await natives.settle(app.database, app.natives())


async def locked(subject):
    """The numbers of accounts and objects whose versions are under a legal hold, as often as versions are."""
    found = []
    for key, version in await subject.versions():
        try:
            on = await objects.legal_hold(subject.ground.bucket, key, version)
        except objects.Absent:  # a delete marker
            continue
        if on:
            found.append(key.removeprefix("logs/"))
    return sorted(found)


async def known(app):
    async with app.database.transaction(read_only=True) as tx:
        return await holds.list_all(tx)


async def remembered(app):
    async with app.database.transaction(read_only=True) as tx:
        return await tx.fetchval("SELECT count(*) FROM retentiond.legal_holds")


async def test_a_hold_is_on_every_version_that_it_covers_before_it_is_active(subject):
    await put(subject, 1, 2)
    await put(subject, 1)
    await put(subject, 3, account="2")
    async with subject.rig.app() as app:
        hold = await placed(app, accounts=("1",))
        assert await activate(app) == ([hold.id], {})
        assert await locked(subject) == ["1/000001", "1/000001", "1/000002"]
        assert await remembered(app) == 3


async def test_a_release_takes_off_what_we_set_and_nothing_else(subject):
    await put(subject, 1, 2)
    await subject.ground.client.put_object_legal_hold(
        Bucket=subject.ground.name, Key=subject.key(2), LegalHold={"Status": "ON"}
    )
    async with subject.rig.app() as app:
        hold = await placed(app, accounts=("1",))
        await activate(app)
        assert await locked(subject) == ["1/000001", "1/000002"]
        assert await remembered(app) == 1
        assert await released(app, hold) == {}
        assert await locked(subject) == ["1/000002"]
        assert await remembered(app) == 0


async def test_what_another_hold_of_ours_covers_keeps_its_legal_hold(subject):
    await put(subject, 1, 2)
    async with subject.rig.app() as app:
        all_of_it = await placed(app, accounts=("1",))
        one = await placed(app, records={"logs": (subject.key(1),)})
        await activate(app)
        assert await released(app, all_of_it) == {}
        assert await locked(subject) == ["1/000001"]
        assert await released(app, one) == {}
        assert await locked(subject) == []


async def test_a_hold_in_its_release_grace_keeps_its_legal_holds(subject):
    await put(subject, 1)
    async with subject.rig.app() as app:
        hold = await placed(app, accounts=("1",))
        await activate(app)
        await holds.release(app.database, hold.id, "test", "over")
        assert await natives.settle(app.database, app.natives()) == {}
        assert await locked(subject) == ["1/000001"]


async def test_versions_that_come_later_are_held_by_the_next_look(subject, monkeypatch):
    await put(subject, 1)
    async with subject.rig.app() as app:
        await placed(app, accounts=("1",))
        await activate(app)
        await put(subject, 2)
        await natives.settle(app.database, app.natives())
        assert await locked(subject) == ["1/000001"]
        monkeypatch.setattr(native_module, "_LOOK_SECONDS", 0.0)
        assert await natives.settle(app.database, app.natives()) == {}
        assert await locked(subject) == ["1/000001", "1/000002"]


async def test_nothing_is_listed_where_no_hold_bears_on_the_target(subject):
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        async with subject.rig.app() as app:
            assert await natives.settle(app.database, app.natives()) == {}
        assert proxy.seen == []


async def test_a_bucket_without_a_lock_keeps_the_hold_pending_and_says_how_to_mend_it(apart, moto_server):
    async with moto_server.bucket() as ground:
        subject = await prepared(apart, ground, native_holds=True)
        await put(subject, 1)
        async with subject.rig.app() as app:
            hold = await placed(app, accounts=("1",))
            active, why = await activate(app)
            assert active == []
            assert "has no Object Lock" in why[hold.id]
            assert "take targets.logs.native_holds out" in why[hold.id]


async def test_a_single_hold_may_ask_for_it(subject):
    subject.rig.targets["logs"]["native_holds"] = False
    await put(subject, 1)
    async with subject.rig.app() as app:
        other = await placed(app, accounts=("2",))
        assert (await activate(app))[0] == [other.id]
        assert await locked(subject) == []
        hold = await placed(app, accounts=("1",), native=True)
        assert await activate(app) == ([hold.id], {})
        assert await locked(subject) == ["1/000001"]
        assert await released(app, hold) == {}
        assert await locked(subject) == []


async def test_one_that_did_not_ask_keeps_what_is_written_already(subject, monkeypatch):
    subject.rig.targets["logs"]["native_holds"] = False
    await put(subject, 1)
    async with subject.rig.app() as app:
        plain = await placed(app, accounts=("1",))
        hold = await placed(app, accounts=("1",), native=True)
        await activate(app)
        assert await released(app, hold) == {}
        assert await locked(subject) == ["1/000001"]
        monkeypatch.setattr(native_module, "_LOOK_SECONDS", 0.0)
        assert await released(app, plain) == {}
        assert await locked(subject) == []


async def test_a_single_hold_does_not_wait_for_a_bucket_that_has_no_lock(apart, moto_server):
    async with moto_server.bucket() as ground:
        subject = await prepared(apart, ground)
        await put(subject, 1)
        async with apart.app() as app:
            hold = await placed(app, accounts=("1",), native=True)
            assert await activate(app) == ([hold.id], {})
            [finding] = await native_check.findings(app.native["logs"], await known(app))
            assert (finding.severity, "no Object Lock" in finding.message) == ("warning", True)


async def test_without_the_right_to_write_legal_holds_the_hold_stays_pending_and_names_it(subject):
    await put(subject, 1)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(Fault("denied", about=lambda asked: asked.method == "PUT" and "legal-hold" in asked.target))
        async with subject.rig.app() as app:
            hold = await placed(app, accounts=("1",))
            active, why = await activate(app)
            assert active == []
            assert "s3:PutObjectLegalHold" in why[hold.id]
            assert (await activate(app))[0] == [hold.id]
            assert await locked(subject) == ["1/000001"]


@pytest.mark.parametrize("kind", ["never sent", "lost"])
async def test_a_process_that_dies_after_it_wrote_down_its_intent_leaves_nothing_that_is_nobodys(subject, kind):
    """Whether the server had the request or not: the next one finds it ours, writes it, and takes it off in the end."""
    await put(subject, 1)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(Fault(kind, about=lambda asked: asked.method == "PUT" and "legal-hold" in asked.target))
        async with subject.rig.app() as app:
            hold = await placed(app, accounts=("1",))
            assert (await activate(app))[0] == []
            assert await remembered(app) == 1
            app.native["logs"]._pass = None  # the process is gone, and its lease runs out
            async with subject.rig.control_connection() as control:
                await control.execute("UPDATE retentiond.legal_hold_walks SET lease_until = now()")
        async with subject.rig.app() as another:
            assert (await activate(another))[0] == [hold.id]
            assert await locked(subject) == ["1/000001"]
            assert await released(another, hold) == {}
            assert await locked(subject) == []
            assert await remembered(another) == 0


async def test_a_hold_placed_after_a_release_that_was_cut_off_is_written_again(subject):
    """The legal hold is off already, and still remembered as ours: it must not be taken for one that is there."""
    await put(subject, 1)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        async with subject.rig.app() as app:
            first = await placed(app, accounts=("1",))
            await activate(app)
            proxy.arm(Fault("lost", about=lambda asked: b"OFF" in asked.body))
            assert await released(app, first) != {}
            assert await locked(subject) == []
            second = await placed(app, accounts=("1",))
            assert (await activate(app))[0] == [second.id]
            assert await locked(subject) == ["1/000001"]


async def test_one_process_is_at_a_bucket_at_a_time_and_the_other_one_waits(subject):
    await put(subject, 1)
    async with subject.rig.app() as one, subject.rig.app() as other:
        assert await other.native["logs"].memory.take(60) is not None
        hold = await placed(one, accounts=("1",))
        active, why = await activate(one)
        assert (active, "another process" in why[hold.id]) == ([], True)
        await other.native["logs"].memory.leave()
        assert (await activate(one))[0] == [hold.id]


async def test_who_lost_the_lease_writes_nothing_down(subject):
    async with subject.rig.app() as app:
        memory = app.native["logs"].memory
        assert await memory.take(60) is not None
        async with subject.rig.control_connection() as control:
            await control.execute("UPDATE retentiond.legal_hold_walks SET lease_until = now()")
        with pytest.raises(Fenced):
            await memory.intend([(b"k", "v")])
        with pytest.raises(Fenced):
            await memory.done({}, verified=False)
        assert await remembered(app) == 0


async def test_a_stopped_process_that_comes_back_works_by_the_holds_as_they_are_now(subject, monkeypatch):
    """It had read the holds when none covered the version; another has written one since."""
    await put(subject, 1)
    async with subject.rig.app() as app:
        first = await placed(app, accounts=("1",))
        await activate(app)
        await holds.release(app.database, first.id, "test", "over", grace_seconds=0)
        await holds.finish_releases(app.database)
        old = await known(app)
        second = await placed(app, accounts=("1",))
        assert (await activate(app))[0] == [second.id]
        await app.native["logs"].settle(old)
        assert await locked(subject) == ["1/000001"]


async def test_a_walk_that_takes_long_goes_on_where_it_was_and_delays_nobody_else(subject, monkeypatch):
    monkeypatch.setattr(native_module, "_PAGE", 2)
    monkeypatch.setattr(native_module, "_ANSWER_SECONDS", -1.0)
    await put(subject, 1, 2, 3, 4, 5)
    async with subject.rig.app() as app:
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert (active, "2 versions are looked at so far" in why[hold.id]) == ([], True)
        found = [await activate(app) for _ in range(2)]
        assert [active for active, _ in found] == [[], [hold.id]]
        assert len(await locked(subject)) == 5


async def test_check_finds_what_somebody_took_off_and_the_daily_look_mends_it(subject, monkeypatch):
    await put(subject, 1, 2)
    async with subject.rig.app() as app:
        native = app.native["logs"]
        await placed(app, accounts=("1",))
        assert any("is not written" in each.message for each in await native_check.findings(native, await known(app)))
        await activate(app)
        assert await native_check.findings(native, await known(app)) == []
        await subject.ground.client.put_object_legal_hold(
            Bucket=subject.ground.name, Key=subject.key(2), LegalHold={"Status": "OFF"}
        )
        [finding] = await native_check.findings(native, await known(app))
        assert finding.severity == "error"
        assert "of 2 legal holds that were written, 1 are not on their versions any more" in finding.message
        monkeypatch.setattr(native_module, "_LOOK_SECONDS", 0.0)
        monkeypatch.setattr(native_module, "_VERIFY_SECONDS", 0.0)
        await natives.settle(app.database, app.natives())
        assert native.mended == ("1 legal holds had been taken off",)
        assert await locked(subject) == ["1/000001", "1/000002"]


async def test_a_version_that_is_gone_meanwhile_is_forgotten(subject, monkeypatch):
    if subject.ground.server.kind == "moto":
        pytest.skip("moto answers 500 of a version that is not there")
    await put(subject, 1)
    whole = native_module.write_legal_hold

    async def gone(bucket, key, version_id, **named):
        await subject.ground.client.delete_object(Bucket=subject.ground.name, Key=key, VersionId=version_id)
        await whole(bucket, key, version_id, **named)

    async with subject.rig.app() as app:
        monkeypatch.setattr(native_module, "write_legal_hold", gone)
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert (active, why) == ([hold.id], {})
        assert await remembered(app) == 0
        assert await subject.versions() == []


async def test_a_bucket_that_does_not_answer_keeps_only_its_own_holds_waiting(subject):
    await put(subject, 1)
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        async with subject.rig.app() as app:
            await proxy.stop()
            theirs = await placed(app, accounts=("1",))
            others = await placed(app, classes=("invoices",))
            active, why = await activate(app)
            assert active == [others.id]
            assert list(why) == [theirs.id]


async def test_a_hold_written_there_is_counted_held_by_a_sweep_and_goes_after_its_release(subject):
    if subject.ground.server.kind != "moto":
        pytest.skip("only moto's objects can be made old")
    await subject.add(1)
    async with subject.rig.app() as app:
        hold = await placed(app, accounts=("1",))
        await activate(app)
        assert (await app.engine.sweep(app.spec.target("logs"))).held == 1
        await released(app, hold)
    assert (await subject.rig.only()).changed == 1
