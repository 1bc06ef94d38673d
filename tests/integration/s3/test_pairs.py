"""Objects that rows own: the object goes first, then its row; whatever comes between, no row goes before its object."""

import asyncio
import re

import pytest

from retentiond.domain.verdict import Kind
from retentiond.errors import ConfigurationError
from retentiond.stores.postgres import paired
from tests.services.buckets import PREFIX, prepared
from tests.services.s3_faults import Fault, faulty

TABLE = """
CREATE TABLE files (id bigserial PRIMARY KEY, account_id bigint, created_at timestamptz, path text, plan text);
CREATE INDEX ON files (created_at);
CREATE INDEX ON files (path);
"""


@pytest.fixture(params=[False, True], ids=["plain", "versioned"])
async def subject(request, apart, moto_server):
    async with moto_server.bucket(versioned=request.param) as ground:
        made = await prepared(apart, ground, key=None, pairs_with="files", pair_key="path")
        made.versioned = request.param
        await apart.db.execute(TABLE)
        apart.target("files")
        yield made


async def row(subject, name, days=400, *, account=1, plan=None):
    await subject.rig.db.execute(
        "INSERT INTO files (account_id, created_at, path, plan) VALUES ($1, now() - make_interval(days => $2), $3, $4)",
        account, days, None if name is None else PREFIX + name, plan,
    )  # fmt: skip


async def both(subject, *names, days=400, account=1):
    for name in names:
        await row(subject, name, days, account=account)
        await subject.put(PREFIX + name, days=days)


async def rows(subject):
    found = await subject.rig.db.fetch("SELECT path FROM files ORDER BY path")
    return [each["path"] and each["path"].removeprefix(PREFIX) for each in found]


async def objects(subject):
    return [key.removeprefix(PREFIX) for key in await subject.ground.keys(PREFIX)]


async def test_the_object_goes_first_and_then_its_row(subject):
    await both(subject, "a", "b")
    await both(subject, "young", days=1)
    first = await subject.rig.only("files")
    assert (first.outcome, first.changed, first.blocked) == ("drained", 0, 2)
    assert (await subject.rig.only("logs")).changed == 2
    assert await rows(subject) == ["a", "b", "young"]
    then = await subject.rig.only("files")
    assert (then.outcome, then.changed, then.blocked) == ("drained", 2, 0)
    assert (await rows(subject), await objects(subject)) == (["young"], ["young"])
    await subject.rig.require_told(logs=2, files=2)
    await subject.rig.require_settled()


async def test_one_pass_over_both_takes_objects_before_rows(subject):
    await both(subject, "a")
    async with subject.rig.app() as app:
        store = app.engine.stores["files"]
        assert app.engine.stores["logs"].records in store.children


async def test_a_row_that_is_due_waits_for_a_held_object_and_counts_as_overdue(subject):
    await both(subject, "a", "b")
    async with subject.rig.app() as app:
        await subject.rig.hold(app, prefixes={"logs": (f"{PREFIX}a",)})
    assert (await subject.rig.only("logs")).held == 1
    outcome = await subject.rig.only("files")
    assert (outcome.changed, outcome.blocked, outcome.overdue > 0) == (1, 1, True)
    assert (await rows(subject), await objects(subject)) == (["a"], ["a"])


async def test_account_tier_and_age_of_an_object_are_its_rows(subject):
    await both(subject, "free", days=100)
    await both(subject, "pro", days=100, account=2)
    await subject.put(f"{PREFIX}refreshed", days=100)
    await row(subject, "refreshed", 1)
    assert (await subject.rig.only("logs")).changed == 1
    assert await objects(subject) == ["pro", "refreshed"]
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), f"{PREFIX}pro")
    assert (verdict.kind, verdict.tier) == (Kind.KEEP, "pro")


async def test_the_tier_may_be_a_column_of_the_row(subject):
    subject.rig.targets["files"]["tier_column"] = "plan"
    for name in ("free", "pro"):
        await row(subject, name, 100, plan=name)
        await subject.put(PREFIX + name, days=100)
    outcome = await subject.rig.only("logs")
    assert (outcome.changed, outcome.by_tier) == (1, {"free": 1})
    assert await objects(subject) == ["pro"]


async def test_an_object_without_a_row_is_kept_and_counted_as_an_orphan(subject):
    await both(subject, "a")
    await subject.put(f"{PREFIX}alone", days=4000)
    outcome = await subject.rig.only("logs")
    assert (outcome.changed, outcome.unresolved, outcome.orphans) == (1, 1, 1)
    assert outcome.document(plan_mode=False)["orphans"] == 1
    assert await objects(subject) == ["alone"]
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), f"{PREFIX}alone")
    assert (verdict.kind, verdict.reason) == (
        Kind.UNRESOLVED, "no record of the target that it is paired with owns it",
    )  # fmt: skip


async def test_rows_that_differ_in_whose_the_object_is_own_nothing(subject):
    await both(subject, "a")
    await row(subject, "a", account=2)
    outcome = await subject.rig.only("logs")
    assert (outcome.changed, outcome.orphans) == (0, 1)


async def test_of_several_rows_that_agree_the_latest_counts(subject):
    await both(subject, "a")
    await row(subject, "a", days=1)
    assert (await subject.rig.only("logs")).changed == 0


async def test_a_row_without_an_anchor_keeps_its_object(subject):
    await both(subject, "a")
    await subject.rig.db.execute("UPDATE files SET created_at = 'infinity'")
    outcome = await subject.rig.only("logs")
    assert (outcome.changed, outcome.unresolved) == (0, 1)


async def test_rows_without_an_object_go_when_they_are_due(subject):
    await row(subject, "lost")
    await row(subject, None)
    await row(subject, "later", days=1)
    outcome = await subject.rig.only("files")
    assert (outcome.changed, outcome.blocked) == (2, 0)
    assert await rows(subject) == ["later"]


async def test_check_tells_orphans_of_both_kinds(subject):
    await both(subject, "a")
    await subject.put(f"{PREFIX}alone")
    await row(subject, "lost", days=1)
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        told = [each.message for each in await store.check()]
    assert any(re.search("of the first 2 objects 1 have no row of targets.files", each) for each in told)
    assert any(re.search("of the newest 2 rows of targets.files 1 own no object", each) for each in told)
    assert not any("alone" in each or "lost" in each for each in told)


async def test_a_row_that_is_refreshed_after_the_look_keeps_its_object(subject):
    await both(subject, "a")
    with subject.meanwhile(lambda: subject.rig.db.execute("UPDATE files SET created_at = now()")):
        outcome = await subject.rig.only("logs")
    assert (outcome.changed, await objects(subject)) == (0, ["a"])


async def test_a_row_that_vanishes_after_the_look_leaves_an_orphan_and_nothing_goes_unjudged(subject):
    await both(subject, "a")
    with subject.meanwhile(lambda: subject.rig.db.execute("DELETE FROM files")):
        outcome = await subject.rig.only("logs")
    assert (outcome.changed, await objects(subject)) == (0, ["a"])


async def test_a_process_that_dies_when_the_object_has_gone_leaves_the_row_for_the_next(subject):
    await both(subject, "a")
    with subject.dying("after"), pytest.raises(asyncio.CancelledError):
        await subject.rig.only("logs")
    assert (await rows(subject), await objects(subject)) == (["a"], [])
    await subject.let_time_pass()
    await subject.rig.let_leases_run_out()
    await subject.rig.only("logs")
    assert (await subject.rig.only("files")).changed == 1
    await subject.rig.require_told(logs=1, files=1)


async def test_where_objects_may_not_be_seen_no_row_goes(subject):
    await both(subject, "a")
    await row(subject, "lost")
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(*[Fault("denied", about=lambda asked: "logs%2F" in asked.target or "/logs/" in asked.target)] * 12)
        outcome = await subject.rig.only("files")
    assert outcome.changed == 0
    assert await rows(subject) == ["a", "lost"]
    await subject.rig.require_settled()


async def test_a_bucket_that_can_not_be_reached_keeps_all_rows_until_it_is_back(subject):
    await row(subject, "lost")
    there = subject.ground.server.url
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        await proxy.stop()
        outcome = await subject.rig.only("files")
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert await rows(subject) == ["lost"]
    subject.rig.targets["logs"]["endpoint_url"] = there
    assert (await subject.rig.only("files")).changed == 1
    await subject.rig.require_settled()


async def test_a_row_whose_object_has_only_older_versions_left_stays(subject):
    if not subject.versioned:
        pytest.skip("without versions there are none")
    await both(subject, "a", days=1)
    await subject.rig.db.execute("UPDATE files SET created_at = now() - interval '400 days'")
    await subject.ground.client.delete_object(Bucket=subject.ground.name, Key=f"{PREFIX}a")
    outcome = await subject.rig.only("files")
    assert (outcome.changed, outcome.blocked) == (0, 1)


async def test_rows_by_the_thousand_go_in_small_windows(subject, monkeypatch):
    monkeypatch.setattr(paired, "MOST", 3)
    monkeypatch.setattr("retentiond.stores.postgres.store.MOST", 3)
    for number in range(10):
        await row(subject, f"lost{number}")
    outcome = await subject.rig.only("files")
    assert (outcome.outcome, outcome.changed, outcome.batches >= 4) == ("drained", 10, True)


async def test_a_column_that_is_no_text_is_told(subject):
    subject.rig.targets["logs"]["pair_key"] = "id"
    outcome = await subject.rig.only("files")
    assert outcome.outcome == "blind"
    assert "targets.logs.pair_key" in outcome.error["message"]


async def test_two_buckets_can_not_share_the_rows_of_one_target(subject):
    subject.rig.targets["more"] = {**subject.rig.targets["logs"], "bucket": "another"}
    with pytest.raises(ConfigurationError, match="is paired with 'files' already"):
        await subject.rig.only("files")


async def test_uploads_without_a_row_are_kept_where_the_row_tells_whose_they_are(subject):
    await subject.ground.client.create_multipart_upload(Bucket=subject.ground.name, Key=f"{PREFIX}a")
    outcome = await subject.rig.only("logs")
    assert (outcome.changed, outcome.unresolved) == (0, 1)
