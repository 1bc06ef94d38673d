"""Account and tier from an object's tags: a call for each, asked again before it goes, kept where one is missing."""

import pytest

from retentiond.domain.verdict import Kind
from tests.services.buckets import PREFIX, prepared
from tests.services.inventories import ID, report
from tests.services.inventories import PREFIX as REPORTS
from tests.services.s3_faults import Fault, faulty


@pytest.fixture(params=[False, True], ids=["plain", "versioned"])
async def subject(request, apart, moto_server):
    async with moto_server.bucket(versioned=request.param) as ground:
        made = await prepared(apart, ground, key=None, tags={"account": "owner"})
        made.versioned = request.param
        yield made


async def tag(subject, name, **tags):
    await subject.ground.client.put_object_tagging(
        Bucket=subject.ground.name,
        Key=PREFIX + name,
        Tagging={"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]},
    )


async def names(subject):
    return [key.removeprefix(PREFIX) for key in await subject.ground.keys(PREFIX)]


async def put(subject, name, days=100, **tags):
    await subject.put(PREFIX + name, days=days)
    if tags:
        await tag(subject, name, **tags)


async def test_each_object_goes_by_the_account_that_its_tag_names(subject):
    await put(subject, "free", owner="1")
    await put(subject, "pro", owner="2")
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 1)
    assert await names(subject) == ["pro"]
    await subject.rig.require_told(logs=1)


async def test_an_object_without_the_tag_is_unresolved_and_said_to_be(subject):
    await put(subject, "untagged", days=4000)
    await put(subject, "other", days=4000, colour="red")
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.unresolved) == (0, 2)
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), f"{PREFIX}untagged")
    assert (verdict.kind, verdict.reason) == (
        Kind.UNRESOLVED, "it lacks a tag that the target reads the account or the tier from",
    )  # fmt: skip


async def test_an_object_without_the_tag_is_under_every_hold(subject):
    await put(subject, "untagged", days=4000)
    await put(subject, "theirs", owner="1")
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("2",))
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)


async def test_a_tag_that_changes_after_the_look_is_minded_before_anything_goes(subject):
    await put(subject, "a", owner="1")
    with subject.meanwhile(lambda: tag(subject, "a", owner="2")):
        outcome = await subject.rig.only()
    assert outcome.changed == 0
    assert await names(subject) == ["a"]
    await subject.rig.require_settled()


async def test_the_tier_may_stand_in_a_tag_as_well(subject):
    subject.rig.targets["logs"]["tags"] = {"tier": "plan"}
    subject.rig.targets["logs"]["key"] = "{account}-{file}"
    await put(subject, "1-a", plan="free")
    await put(subject, "1-b", plan="pro")
    await put(subject, "1-c")
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.by_tier) == (1, {"free": 1})
    assert await names(subject) == ["1-b", "1-c"]


async def test_a_missing_right_to_read_tags_makes_the_target_blind(subject):
    await put(subject, "a", owner="1")
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        proxy.arm(*[Fault("denied", about=lambda asked: "?tagging" in asked.target)] * 4)
        outcome = await subject.rig.only()
    right = "s3:GetObjectVersionTagging" if subject.versioned else "s3:GetObjectTagging"
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert right in outcome.error["remedy"]


async def test_a_delete_marker_over_tagged_versions_goes_with_them(subject):
    if not subject.versioned:
        pytest.skip("without versions there are no markers")
    await put(subject, "a", owner="1")
    await subject.ground.client.delete_object(Bucket=subject.ground.name, Key=f"{PREFIX}a")
    assert (await subject.rig.only()).changed == 2
    assert await subject.versions() == []


async def test_no_tag_is_asked_for_where_none_is_configured(subject):
    subject.rig.targets["logs"].pop("tags")
    subject.rig.targets["logs"]["key"] = "{account}/{file}"
    await put(subject, "1/a")
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        assert (await subject.rig.only()).changed == 1
        assert not [each for each in proxy.seen if "tagging" in each.target]


async def test_by_an_inventory_each_object_of_a_window_is_asked_about_once_and_what_goes_twice_more(subject):
    await put(subject, "free", owner="1")
    await put(subject, "pro", owner="2")
    subject.rig.targets["logs"] |= {"inventory": {"id": ID, "prefix": REPORTS}, "uploads": False}
    await (await report(subject.ground, versions=subject.versioned)).write()
    async with faulty(subject.ground.server) as proxy:
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        subject.rig.guards = {"max_fraction": 1.0}
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.changed) == ("drained", 1)
        asked = [each.target for each in proxy.seen if each.method == "GET" and "tagging" in each.target]
    assert len([each for each in asked if "pro" in each]) + 2 == len([each for each in asked if "free" in each])
    assert await names(subject) == ["pro"]
