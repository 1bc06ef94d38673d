"""Sweeps of objects: what goes of versions, markers and uploads, what stays, and what is said of it."""

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.domain.verdict import Kind
from retentiond.errors import NotFound
from retentiond.stores.base import Window
from retentiond.stores.s3 import deleting, objects
from retentiond.stores.s3.walk import UPLOADS
from tests.services.buckets import PREFIX, prepared
from tests.services.s3_faults import Fault, faulty
from tests.services.s3_keys import storable


@asynccontextmanager
async def made(request, rig, s3, **kind):
    past = request.getfixturevalue("ceph_past") if s3.kind == "ceph" else None
    async with s3.bucket(**kind) as ground:
        yield await prepared(rig, ground, past)


@pytest.fixture
async def plain(request, apart, s3):
    async with made(request, apart, s3) as subject:
        yield subject


@pytest.fixture
async def versioned(request, apart, s3):
    async with made(request, apart, s3, versioned=True) as subject:
        yield subject


@pytest.fixture
async def locked(request, apart, s3):
    async with made(request, apart, s3, lock=True) as subject:
        yield subject


@pytest.fixture(params=[False, True], ids=["plain", "versioned"])
async def either(request, apart, s3):
    async with made(request, apart, s3, versioned=request.param) as subject:
        subject.versioned = request.param
        yield subject


async def mark(subject, key):
    """Delete the object as an application does."""
    await subject.ground.client.delete_object(Bucket=subject.ground.name, Key=key)


async def told(subject):
    """The last outcome in the ledger."""
    return [entry for entry in await subject.rig.ledger() if entry["kind"] == "outcome"][-1]


async def test_every_version_of_a_key_goes_and_then_the_marker_that_is_left_alone(versioned):
    key = versioned.key(1)
    for _ in range(3):
        await versioned.put(key)
    await mark(versioned, key)
    await versioned.add(2, days=1)
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 4)
    assert [key for key, _ in await versioned.versions()] == [versioned.key(2)]
    entry = await told(versioned)
    assert (entry["verified"], entry["counts"]["erased"], entry["bytes"]) == ("version", 4, 3)
    await versioned.rig.require_told(logs=4)


async def test_a_younger_version_stays_and_older_ones_of_the_key_go(versioned):
    key = versioned.key(1)
    await versioned.put(key)
    await mark(versioned, key)
    await versioned.put(key, days=1)
    outcome = await versioned.rig.only()
    assert outcome.changed == 1
    assert len(await versioned.versions()) == 2
    assert await versioned.left() == {1}


async def test_a_marker_over_a_version_that_stays_is_not_taken_away(versioned):
    key = versioned.key(1)
    await versioned.put(key, days=1)
    await mark(versioned, key)
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert await versioned.left() == set()
    assert len(await versioned.versions()) == 2


async def test_markers_without_versions_go_unless_they_are_held(versioned):
    for number, account in ((1, "1"), (2, "2")):
        await versioned.add(number, account=account)
        ((key, version),) = [each for each in await versioned.versions() if each[0] == versioned.key(number, account)]
        await mark(versioned, key)
        await versioned.ground.client.delete_object(Bucket=versioned.ground.name, Key=key, VersionId=version)
    async with versioned.rig.app() as app:
        await versioned.rig.hold(app, accounts=("2",))
    outcome = await versioned.rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert [key for key, _ in await versioned.versions()] == [versioned.key(2, "2")]


async def test_a_version_from_before_the_bucket_kept_any_goes_as_well(plain):
    key = plain.key(1)
    await plain.put(key)
    await plain.ground.client.put_bucket_versioning(
        Bucket=plain.ground.name, VersioningConfiguration={"Status": "Enabled"}
    )
    await plain.put(key)
    assert len(await plain.versions()) == 2
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 2)
    assert await plain.versions() == []
    assert (await told(plain))["verified"] == "unconditional"


async def test_a_key_with_more_versions_than_a_window_goes_whole_and_its_marker_by_the_next_sweep(versioned):
    key = versioned.key(1)
    for _ in range(25):
        await versioned.put(key)
    await mark(versioned, key)
    assert (await versioned.rig.only()).changed == 25
    assert [each for each, _ in await versioned.versions()] == [key]
    assert (await versioned.rig.only()).changed == 1
    assert await versioned.versions() == []


async def test_a_version_under_a_legal_hold_of_the_bucket_is_held_and_so_is_its_marker(locked):
    key = locked.key(1)
    await locked.put(key)
    await locked.add(2)
    async with locked.then(400) as bucket:  # Ceph takes it for a change of the object
        await objects.head(bucket, key)
        await objects.set_legal_hold(bucket, key, None, on=True)
    await mark(locked, key)
    outcome = await locked.rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert [each for each, _ in await locked.versions()] == [key, key]
    await locked.rig.require_told(logs=1)


async def test_keys_of_every_kind_go(either):
    subject = either
    subject.rig.targets["logs"]["key"] = "{file:path}"
    subject.rig.targets["logs"]["tier"] = "free"
    keys = [PREFIX + key for key in storable(subject.ground.server) if len(key) < 1000]
    if subject.versioned and subject.ground.server.kind == "moto":
        keys = [key for key in keys if key.isprintable()]  # moto lists versions as they are, which XML can't carry
    for key in keys:
        await subject.put(key)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", len(keys)), outcome.error
    assert await subject.versions() == []


async def test_a_key_that_does_not_fit_is_kept_counted_and_explained(plain):
    await plain.put(f"{PREFIX}nobody")
    await plain.add(1)
    outcome = await plain.rig.only()
    assert (outcome.changed, outcome.unresolved) == (1, 1)
    async with plain.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), f"{PREFIX}nobody")
    assert (verdict.kind, verdict.reason) == (Kind.UNRESOLVED, "the key does not fit the template")


async def test_the_date_in_a_key_counts_where_it_is_later(plain):
    plain.rig.targets["logs"]["key"] = "{account}/{date:%Y-%m-%d}/{file}"
    soon = (datetime.now(UTC) - timedelta(days=10)).strftime("%Y-%m-%d")
    await plain.put(f"{PREFIX}1/{soon}/000001")
    await plain.put(f"{PREFIX}1/2020-01-01/000002")
    assert (await plain.rig.only()).changed == 1
    assert await plain.left() == {1}


async def test_uploads_that_nobody_completed_go_by_the_term_and_not_under_a_hold(plain):
    client, bucket = plain.ground.client, plain.ground.name
    for account in ("1", "2"):
        await plain.begin_upload(plain.key(1, account))
    async with plain.rig.app() as app:
        await plain.rig.hold(app, accounts=("2",))
    outcome = await plain.rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    left = (await client.list_multipart_uploads(Bucket=bucket))["Uploads"]
    assert [each["Key"] for each in left] == [plain.key(1, "2")]
    assert (await told(plain))["verified"] == "upload"
    plain.rig.targets["logs"]["uploads"] = False
    await plain.rig.approve_policy()
    assert (await plain.rig.only()).held == 0


async def test_a_hold_on_a_key_a_prefix_or_one_version_keeps_all_versions_of_the_key(versioned):
    keys = [versioned.key(number) for number in (1, 2, 3, 4)]
    for key in keys:
        await versioned.put(key)
        await versioned.put(key)
    third = next(version for key, version in await versioned.versions() if key == keys[2])
    async with versioned.rig.app() as app:
        await versioned.rig.hold(app, records={"logs": (keys[0], json.dumps([keys[2], third]))})
        await versioned.rig.hold(app, prefixes={"logs": (keys[1],)})
        store = app.engine.stores["logs"]
        (matched,) = [
            await store.matches(await store.hold(hold), seconds=5) for hold in await _holds(app) if hold.scope.records
        ]
        assert (matched.records, matched.exact) == (4, True)
    outcome = await versioned.rig.only()
    assert (outcome.changed, outcome.held) == (2, 6)
    assert await versioned.left() == {1, 2, 3}


async def _holds(app):
    from retentiond.control import holds

    async with app.database.transaction(read_only=True) as tx:
        return (await holds.current(tx)).holds


async def test_explain_tells_of_an_object_a_version_and_none(versioned):
    await versioned.put(versioned.key(1))
    await versioned.put(versioned.key(1), days=1)
    old = [version for _, version in await versioned.versions()][-1]
    async with versioned.rig.app() as app:
        target = app.spec.target("logs")
        now = await app.engine.explain(target, versioned.key(1))
        before = await app.engine.explain(target, json.dumps([versioned.key(1), old]))
        assert (now.kind, before.kind, before.tier) == (Kind.KEEP, Kind.ERASE, "free")
        with pytest.raises(NotFound, match="has no record"):
            await app.engine.explain(target, versioned.key(9))


async def test_a_plan_writes_nothing_into_the_bucket_and_tells_the_oldest(plain):
    async with faulty(plain.ground.server) as proxy:
        plain.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        await plain.records()
        async with plain.rig.app(mode="plan") as app:
            outcome = await app.engine.sweep(app.spec.target("logs"))
            store = app.engine.stores["logs"]
            plan = await app.engine.plan(app.spec.target("logs"))
            assert await store.total() == outcome.scanned == 8
            # Of what a sweep would leave.
            assert datetime.now(UTC) - await store.oldest(plan) < timedelta(hours=25)
            beyond = await store.beyond(plan)
            assert (beyond.after, list(beyond.tiers)) == (None, ["free"])
        assert outcome.would == 5
        assert {each.method for each in proxy.seen} == {"GET", "HEAD"}


async def test_nothing_is_listed_before_something_can_be_due(plain):
    await plain.records()
    async with faulty(plain.ground.server) as proxy:
        plain.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        assert (await plain.rig.only()).changed == 5
        assert proxy.seen
        proxy.seen.clear()
        assert (await plain.rig.only()).outcome == "drained"
        assert proxy.seen == []
        await plain.rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '60 days' WHERE id = 1")
        assert (await plain.rig.only()).changed == 3


async def test_a_prefix_is_swept_in_shards_cut_at_folders_and_by_what_a_walk_has_seen(either):
    subject = either
    subject.rig.targets["logs"]["pace"]["shards"] = 3
    for account in ("1", "2", "3", "4"):
        for number in range(1, 9):
            await subject.add(number, account=account, days=400 if account != "3" else 1)
    await subject.add(9, account="1", days=1)
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        plan = await app.engine.plan(app.spec.target("logs"))
        by_folder = await store.shards(plan, each=0, most=3)
        assert [leg.until for leg in by_folder] == [("logs/2/",), ("logs/3/",), None]
        counted = [await store.count(plan, replace(leg, size=1000)) for leg in (*by_folder, Window(UPLOADS, None, 0))]
        assert [each.scanned for each in counted] == [9, 8, 16, 0]
        assert await store.total() == 33
        assert await store.shards(plan, each=40, most=3) == ()
        assert len(await store.shards(plan, each=11, most=8)) == 3
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 24)
    assert len(await subject.ground.keys(PREFIX)) == 9
    await subject.rig.require_told(logs=24)
    await subject.rig.require_settled()


async def test_an_endpoint_without_a_fence_erases_nothing_unless_that_is_accepted(plain):
    if plain.ground.server.kind == "ceph":
        pytest.skip("it has one")
    await plain.records()
    plain.rig.targets["logs"]["unfenced"] = False
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "carries out requests that have expired" in outcome.error["message"]
    assert "unfenced" in outcome.error["remedy"]
    await plain.rig.require_settled()


async def test_a_missing_right_to_erase_is_told_and_fails_the_sweep(versioned):
    await versioned.records()
    async with faulty(versioned.ground.server) as proxy:
        versioned.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(Fault("denied", about=lambda asked: asked.erases and b"probe" not in asked.body))
        outcome = await versioned.rig.only()
        assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 0, 5)
        assert "s3:DeleteObjectVersion" in outcome.error["message"]
        assert "s3:DeleteObjectVersion" in outcome.error["remedy"]
        await versioned.rig.require_settled()
        assert (await versioned.rig.only()).changed == 5


async def test_a_sweep_that_may_erase_nothing_ends_before_it_has_asked_for_all(plain):
    for number in range(1, 201):
        await plain.add(number)
    async with faulty(plain.ground.server) as proxy:
        plain.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        denied = Fault("denied", about=lambda asked: asked.erases and b"probe" not in asked.body)
        proxy.arm(*[denied] * 20)
        outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.failed) == ("failed", 110)
    assert "s3:DeleteObject is missing" in outcome.error["message"]
    await plain.rig.require_settled()


async def test_what_a_busy_server_did_not_do_is_left_for_a_later_sweep(plain, monkeypatch):
    monkeypatch.setattr(deleting, "_TRIES", 1)
    await plain.records()
    async with faulty(plain.ground.server) as proxy:
        plain.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        busy = Fault("busy", about=lambda asked: asked.erases and b"probe" not in asked.body)
        proxy.arm(busy, busy)
        outcome = await plain.rig.only()
        assert (outcome.outcome, outcome.changed, outcome.locked) == ("capped", 0, 5)
        assert (await plain.rig.only()).changed == 5


async def test_a_bucket_that_is_not_there_makes_the_target_blind(plain):
    plain.rig.targets["logs"]["bucket"] = "nowhere-at-all"
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.error["message"]) == (
        "blind", "bucket nowhere-at-all: there is no such bucket at this endpoint",
    )  # fmt: skip


async def test_a_guard_counts_the_total_by_the_same_walk(plain):
    for number in range(1, 21):
        await plain.add(number)
    plain.rig.guards = {"max_fraction": 0.25, "min_records": 0}
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed) == ("guarded", 0)
    assert "would delete 20 records, more than 5" in outcome.error["message"]
