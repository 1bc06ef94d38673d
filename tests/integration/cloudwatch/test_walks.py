"""Walks over many groups and streams: each stream once, whatever is deleted behind the walk; and what is judged of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.domain.plan import TargetPlan
from retentiond.errors import NotFound
from retentiond.stores.base import Window
from retentiond.stores.cloudwatch.reading import page_of
from retentiond.stores.cloudwatch.rows import Group, Stream
from retentiond.stores.cloudwatch.walk import STREAMS, Owned, Row, Walks
from retentiond.stores.judging import judge_page
from retentiond.stores.rulings import Rulings
from tests.services.log_groups import log_ground, prepared
from tests.services.strict_logs import strict


@pytest.fixture
async def ground(moto_server):
    async with log_ground(moto_server) as made:
        yield made


async def made(ground, groups, streams, days=400.0):
    for group in range(groups):
        for stream in range(streams):
            await ground.stream(f"{group + 1:03}", f"{stream:06}", days)


async def walked(store, size, *, anew):
    """All streams in windows of that size; `anew`: each window by another process, which has nothing at hand."""
    endpoint, walks = await store.place.endpoint(), Walks(store.groups_of)
    after, found = None, []
    while True:
        async with (Walks(store.groups_of) if anew else walks).at(endpoint, after, None) as listing:
            taken = await listing.take(size)
        found += [row.stream.id for row in taken.rows]
        after = taken.after
        if after is None:
            return found


@pytest.mark.parametrize("anew", [False, True], ids=["in one process", "each window in another"])
async def test_each_stream_of_each_group_is_met_once_and_in_order(apart, ground, moto_server, anew):
    await made(ground, 53, 1)
    await made(ground, 2, 53)
    async with strict(moto_server) as proxy:
        subject = await prepared(apart, ground, endpoint_url=proxy.server.url)
        async with subject.rig.app() as app:
            found = await walked(app.engine.stores["logs"], 7, anew=anew)
    assert len(found) == len(set(found)) == 53 + 2 * 52
    assert found == sorted(found)


async def test_a_sweep_of_several_pages_takes_all_though_it_deletes_what_the_pages_tokens_name(apart, ground):
    await made(ground, 1, 120)
    subject = await prepared(apart, ground, retention="leave")
    assert (await subject.rig.only()).changed == 120
    assert await ground.streams() == []


async def test_a_window_ends_where_as_many_are_due_as_a_permits_life_allows(apart, ground):
    await made(ground, 1, 40)
    pace = {"duty": 1.0, "max_batch": 100, "min_batch": 100, "batch_seconds": 5.0, "records_per_second": 1}
    subject = await prepared(apart, ground, pace=pace)
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        plan = await app.engine.prepare(store, app.spec.target("logs"))
        async with store.batch(plan) as batch:
            seen = await batch.looked(Window(STREAMS, None, 100))
        assert (seen.selected, seen.scanned) == (15, 15)
        async with store.batch(plan) as batch:
            assert (await batch.looked(Window(STREAMS, seen.after, 100))).selected == 15
        whole = await store.count(plan, Window(STREAMS, None, 100))
        assert (whole.selected, whole.after) == (40, None)


async def test_tags_tell_account_and_tier_and_a_group_without_them_is_kept(apart, ground):
    for name, tags in (("a", {"plan": "free", "owner": "1"}), ("b", {"plan": "pro", "owner": "2"}), ("c", {})):
        await ground.client.create_log_group(logGroupName=ground.head + name, tags=tags)
        await ground.stream(name, "s", 100)
    subject = await prepared(apart, ground, groups=ground.head + "{name}", tags={"account": "owner", "tier": "plan"})
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.unresolved) == (1, 1)
    assert await ground.streams() == [("b", "s"), ("c", "s")]
    assert await ground.groups() == {"a": 90, "b": 365, "c": None}


async def test_a_tag_that_is_changed_between_look_and_deletion_counts(apart, ground):
    await ground.client.create_log_group(logGroupName=ground.head + "a", tags={"plan": "free"})
    await ground.stream("a", "s", 100)
    subject = await prepared(apart, ground, groups=ground.head + "{name}", tags={"tier": "plan"}, retention="leave")

    async def upgrade():
        group = (await ground.client.describe_log_groups(logGroupNamePrefix=ground.head))["logGroups"][0]
        await ground.client.tag_resource(resourceArn=group["logGroupArn"], tags={"plan": "pro"})

    with subject.meanwhile(upgrade):
        outcome = await subject.rig.only()
    assert (outcome.changed, await ground.streams()) == (0, [("a", "s")])


async def test_an_empty_stream_counts_from_its_creation(apart, ground):
    await ground.stream("1", "old", created=400)
    await ground.stream("1", "new", created=5)
    subject = await prepared(apart, ground)
    assert (await subject.rig.only()).changed == 1
    assert await ground.streams() == [("1", "new")]


async def test_old_events_that_came_lately_keep_a_stream(apart, ground):
    """A stream counts from the later of its newest event and its last ingestion."""
    await ground.stream("1", "s", 400)
    await ground.client.put_log_events(
        logGroupName=ground.head + "1",
        logStreamName="s",
        logEvents=[{"timestamp": int((ground.now() - 10 * 86_400) * 1000), "message": "x"}],
    )
    subject = await prepared(apart, ground)
    assert (await subject.rig.only()).changed == 0


async def test_the_hour_that_the_service_may_be_behind_is_waited_for(apart, ground):
    await ground.stream("1", "within", 90.02)
    await ground.stream("1", "past", 90.06)
    subject = await prepared(apart, ground)
    assert (await subject.rig.only()).changed == 1
    assert await ground.streams() == [("1", "within")]


async def test_a_hold_that_ends_in_time_keeps_a_stream_that_has_older_events_as_well(apart, ground):
    await ground.stream("1", "s", 700, 400)
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, until=datetime.now(UTC) - timedelta(days=600))
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.held) == (0, 1)


async def test_a_hold_that_begins_after_the_newest_event_holds_nothing(apart, ground):
    await ground.stream("1", "s", 400)
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, since=datetime.now(UTC) - timedelta(days=100))
    assert (await subject.rig.only()).changed == 1


async def test_a_record_is_named_by_group_and_stream_and_a_group_stands_for_its_newest(apart, ground):
    await ground.stream("1", "a", 400)
    await ground.stream("1", "b", 10)
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        plan: TargetPlan = await app.engine.prepare(store, app.spec.target("logs"))
        record, facts = await store.record(plan, f"{ground.head}1:a")
        assert (record.key, record.account, facts.tier) == (f"{ground.head}1:a", "1", "free")
        record, _ = await store.record(plan, f"{ground.head}1")
        assert record.key == f"{ground.head}1:b"
        for missing in (f"{ground.head}1:c", f"{ground.head}2", f"{ground.head}1:", "other:a"):
            with pytest.raises(NotFound):
                await store.record(plan, missing)


async def test_streams_of_a_class_whose_events_cant_be_read_are_unresolved(apart, ground):
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        plan = await app.engine.prepare(store, app.spec.target("logs"))
        group = Group(f"{ground.head}1", "arn", None)
        rows = [
            Row(Stream(group.name, "s", 1), Owned(replace(group, kind=kind), "1", None))
            for kind in ("STANDARD", "INFREQUENT_ACCESS")
        ]
        rulings = Rulings(plan)
        await rulings.ask(["1"], app.engine.directory)
        found = judge_page(rulings, page_of(store.config, rows))
    assert (found.due, found.tally.unresolved) == ((0,), 1)
