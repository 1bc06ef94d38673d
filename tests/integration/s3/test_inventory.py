"""Sweeps by an inventory: what it says is due is looked at anew, and what it says wrongly costs nothing but a look."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import units
from retentiond.domain.duration import instant
from retentiond.domain.permit import Unit
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due
from tests.services.buckets import PREFIX, prepared
from tests.services.inventories import CURRENT_SCHEMA, ID, Row, older, report, rows_of
from tests.services.inventories import PREFIX as REPORTS
from tests.services.s3_faults import faulty
from tests.services.s3_keys import storable

INVENTORY = {"id": ID, "prefix": REPORTS}
FORMATS = pytest.mark.parametrize("format", ["CSV", "Parquet"])


@pytest.fixture
async def plain(apart, moto_server):
    async with moto_server.bucket() as ground:
        yield await prepared(apart, ground, inventory=INVENTORY)


@pytest.fixture
async def versioned(apart, moto_server):
    async with moto_server.bucket(versioned=True) as ground:
        yield await prepared(apart, ground, inventory=INVENTORY)


@pytest.fixture(params=[False, True], ids=["plain", "versioned"])
async def either(request, apart, moto_server):
    async with moto_server.bucket(versioned=request.param) as ground:
        made = await prepared(apart, ground, inventory=INVENTORY)
        made.versioned = request.param
        yield made


@pytest.fixture
async def locked(apart, moto_server):
    async with moto_server.bucket(lock=True) as ground:
        yield await prepared(apart, ground, inventory=INVENTORY)


async def write(subject, **named):
    made = await report(subject.ground, **named)
    await made.write()
    return made


async def mark(subject, key):
    await subject.ground.client.delete_object(Bucket=subject.ground.name, Key=key)


async def rest_of(subject):
    async with subject.rig.app() as app, app.database.transaction() as tx:
        return (await units.state(tx, Unit("logs"))).outcome["rest"]


@FORMATS
async def test_a_sweep_by_an_inventory_erases_what_is_due_and_nothing_else(plain, format):
    await plain.records(due=23, young=30)
    await write(plain, format=format)
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.by_tier) == ("drained", 23, {"free": 23})
    assert await plain.left() == set(range(1001, 1031))
    await plain.rig.require_told(logs=23)
    await plain.rig.require_settled()


async def test_where_nothing_is_due_only_some_keys_are_listed_to_try_the_report_on(apart, moto_server):
    async with moto_server.bucket() as ground, faulty(moto_server) as proxy:
        subject = await prepared(apart, ground, inventory=INVENTORY, uploads=False)
        apart.targets["logs"]["endpoint_url"] = proxy.server.url
        await subject.records(due=0, young=30)
        await write(subject)
        outcome = await subject.rig.only()
        assert outcome.outcome == "drained"
        listed = [each.target for each in proxy.seen if "list-type" in each.target and REPORTS not in each.target]
        assert len(listed) == 3, "folders, and the first keys of the target and of its one folder"
        proxy.seen.clear()
        assert (await subject.rig.only()).outcome == "drained"
        assert proxy.seen == [], "nothing can be due before a day is over"


async def test_keys_of_every_kind_are_found_by_what_the_report_says_of_them(apart, moto_server):
    async with moto_server.bucket() as ground:
        subject = await prepared(apart, ground, inventory=INVENTORY, key="{object:path}", account="1", uploads=False)
        for key in storable(moto_server):
            await subject.put(f"{PREFIX}{key}"[:1024])
        await write(subject)
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.gone) == ("drained", 0)
        assert await ground.keys(PREFIX) == []


async def test_an_object_that_was_overwritten_since_stays(plain):
    for key in (1, 2):
        await plain.add(key)
    await write(plain, schema=CURRENT_SCHEMA)
    await plain.ground.put(plain.key(1), body=b"another")
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 1, 1)
    assert await plain.left() == {1}


async def test_of_a_key_with_a_newer_version_since_the_old_one_goes(versioned):
    await versioned.add(1)
    await write(versioned, versions=True)
    await versioned.ground.put(versioned.key(1))
    outcome = await versioned.rig.only()
    assert (outcome.changed, outcome.gone) == (1, 0)
    assert await versioned.left() == {1}


async def test_what_was_deleted_since_counts_as_gone_and_not_as_erased(versioned):
    for key in (1, 2, 3):
        await versioned.add(key)
    await write(versioned, versions=True)
    for key, version in await versioned.versions():
        if key != versioned.key(2):
            await versioned.ground.client.delete_object(Bucket=versioned.ground.name, Key=key, VersionId=version)
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 1, 2)
    entry = [each for each in await versioned.rig.ledger() if each["kind"] == "outcome"][-1]
    assert (entry["counts"]["selected"], entry["counts"]["erased"], entry["counts"]["already_gone"]) == (3, 1, 2)
    await versioned.rig.require_told(logs=1)


async def test_where_all_was_deleted_since_nothing_is_asked_for(plain):
    await plain.records(due=4)
    await write(plain)
    for key in range(1, 5):
        await mark(plain, plain.key(key))
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 0, 4)
    await plain.rig.require_told(logs=0)


async def test_what_was_put_under_a_legal_hold_since_is_held(locked):
    for key in (1, 2):
        await locked.add(key)
    await write(locked, versions=True)
    held = locked.key(1)
    await locked.ground.client.put_object_legal_hold(Bucket=locked.ground.name, Key=held, LegalHold={"Status": "ON"})
    outcome = await locked.rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert await locked.left() == {1}


async def test_a_marker_stays_over_a_version_that_the_report_does_not_name(versioned):
    await versioned.add(1, days=1)
    await mark(versioned, versioned.key(1))
    rows = [each for each in await rows_of(versioned.ground, versions=True) if each.marker]
    await write(versioned, versions=True, rows=rows)
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert len(await versioned.versions()) == 2


async def test_a_lone_marker_and_all_versions_of_a_key_go(versioned):
    for _ in range(3):
        await versioned.add(1)
    await mark(versioned, versioned.key(1))
    await versioned.add(2, days=1)
    await write(versioned, versions=True, format="Parquet")
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 4)
    assert await versioned.left() == {2}
    assert len(await versioned.versions()) == 1


async def test_an_object_that_the_report_does_not_name_stays_until_one_does(plain):
    await plain.records(due=2, young=0)
    rows = await rows_of(plain.ground)
    await write(plain, rows=rows[:1], hours=7)
    assert (await plain.rig.only()).changed == 1
    await write(plain, rows=rows[1:], hours=6)
    async with plain.rig.control_connection() as control:
        await control.execute("UPDATE retentiond.units SET outcome = jsonb_set(outcome, '{rest}', 'null')")
    assert (await plain.rig.only()).changed == 1
    assert await plain.left() == set()


async def test_a_target_rests_no_longer_than_what_its_report_can_not_know_takes_to_be_due(plain):
    await plain.add(1, days=1)
    await write(plain, hours=30)
    terms = {"free": "P2DT12H", "pro": "P365D", "enterprise": "P365D"}
    plain.rig.policy = {"classes": {"operational_logs": {"ttl": terms}}}
    await plain.rig.only()
    until = instant((await rest_of(plain))["until"]) - datetime.now(UTC)
    assert timedelta(hours=5) < until < timedelta(hours=6), (
        "60 hours after the report, less the day that it may be late"
    )


async def test_it_does_not_rest_where_what_the_report_does_not_know_may_be_due_already(plain):
    await plain.add(1, days=0.1)
    await write(plain, hours=30)
    plain.rig.policy = {
        "classes": {"operational_logs": {"ttl": {"free": "P1D", "pro": "P365D", "enterprise": "P365D"}}}
    }
    assert (await plain.rig.only()).outcome == "drained"
    assert await rest_of(plain) is None


@pytest.mark.parametrize(
    ("format", "damage", "says"),
    [
        ("CSV", {"after": lambda data: data[:-1] + bytes([data[-1] ^ 1])}, "its MD5 is another"),
        ("CSV", {"after": lambda data: data[:-5]}, "can't be fetched"),
        ("CSV", {"damage": lambda data: data[: len(data) // 2]}, "can't be read"),
        ("Parquet", {"damage": lambda data: data[: len(data) // 2]}, "can't be read"),
    ],
    ids=["another MD5", "too short", "ends early", "ends early, Parquet"],
)
async def test_a_report_that_is_damaged_erases_nothing_and_says_which_file(plain, format, damage, says):
    await plain.records(due=9)
    made = await report(plain.ground, format=format)
    await made.write(**damage)
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert says in outcome.error["message"]
    assert f"data/{made.at:%Y%m%d%H%M}-1" in outcome.error["message"]
    assert len(await plain.left()) == 12


async def test_a_report_that_is_damaged_is_not_fetched_again_by_each_sweep_that_is_tried(apart, moto_server):
    async with moto_server.bucket() as ground, faulty(moto_server) as proxy:
        subject = await prepared(apart, ground, inventory=INVENTORY)
        apart.targets["logs"]["endpoint_url"] = proxy.server.url
        await subject.records(due=2, young=0)
        made = await report(ground)
        await made.write(after=lambda data: data[::-1])
        async with apart.app() as app:
            target, fetched = app.spec.target("logs"), []
            for _ in range(2):
                proxy.seen.clear()
                outcome = await app.engine.sweep(target)
                assert (outcome.outcome, "its MD5 is another" in outcome.error["message"]) == ("blind", True)
                fetched.append(len([each for each in proxy.seen if "/data/" in each.target]))
        assert (fetched[0] > 0, fetched[1]) == (True, 0)


@pytest.mark.parametrize(
    "half", [{"checksum": None}, {"checksum": hashlib.md5(b"more of it").hexdigest()}], ids=["none yet", "of more"]
)
async def test_a_report_that_is_half_there_is_passed_over_for_the_one_before(plain, half):
    await plain.records(due=3)
    await write(plain, hours=6)
    await write(plain, hours=2, rows=[], **half)
    assert (await plain.rig.only()).changed == 3


@pytest.mark.parametrize("reports", [[], [96.0]], ids=["none", "one too old"])
async def test_without_a_report_that_is_new_enough_the_bucket_is_listed(plain, reports):
    await plain.records(due=3)
    for hours in reports:
        await write(plain, hours=hours, rows=[])
    async with plain.rig.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        found = Outcome()
        await count_due(store, await app.engine.plan(app.spec.target("logs")), found)
        assert (found.would, store.as_of) == (3, None)
    assert (await plain.rig.only()).changed == 3


@pytest.mark.parametrize(
    ("wrong", "says", "remedy"),
    [
        ({"says_source": "others"}, "is of another bucket", "inventory.id"),
        ({"says_format": "ORC"}, "has the format ORC", "CSV or Parquet"),
        ({"schema": "Bucket, Key, Size"}, "lacks LastModifiedDate, ETag", "add LastModifiedDate, ETag"),
        ({"hours": -48}, "which is to come", "who writes there"),
    ],
    ids=["bucket", "format", "columns", "date"],
)
async def test_a_report_that_can_t_be_used_makes_the_target_blind(plain, wrong, says, remedy):
    await plain.records(due=3)
    await write(plain, **wrong)
    outcome = await plain.rig.only()
    assert outcome.outcome == "blind"
    assert says in outcome.error["message"]
    assert remedy in outcome.error["remedy"]
    assert len(await plain.left()) == 6


async def test_a_report_of_current_versions_alone_does_not_do_for_a_bucket_that_keeps_all(versioned):
    await versioned.records(due=1)
    await write(versioned, schema=CURRENT_SCHEMA)
    outcome = await versioned.rig.only()
    assert outcome.outcome == "blind"
    assert "lacks VersionId, IsDeleteMarker" in outcome.error["message"]
    assert "IncludedObjectVersions: All" in outcome.error["remedy"]


async def test_a_report_of_some_of_the_target_s_keys_makes_it_blind_and_does_not_break_its_promise(either):
    await either.records(due=4)
    await either.add(9, account="2", days=800)
    rows = await rows_of(either.ground, versions=either.versioned)
    await write(either, rows=[each for each in rows if each.key.startswith(f"{PREFIX}1/")])
    outcome = await either.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "has none of 1 objects below 'logs/'" in outcome.error["message"]


async def test_an_empty_report_on_a_bucket_that_is_not_makes_it_blind(plain):
    await plain.records(due=4)
    await write(plain, rows=[])
    assert (await plain.rig.only()).outcome == "blind"


async def test_an_empty_report_on_a_bucket_that_is_new_is_one(plain):
    await plain.records(due=0, young=2)
    await write(plain, rows=[], hours=1)
    assert (await plain.rig.only()).outcome == "drained"


async def test_a_large_target_is_cut_into_shards_by_a_report_as_well(versioned):
    for account in ("1", "4"):
        for number in range(20):
            await versioned.add(number, account=account)
    await versioned.add(1001, days=1)
    await write(versioned, versions=True, format="Parquet")
    versioned.rig.targets["logs"]["pace"] |= {"shards": 4}
    outcome = await versioned.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 40)
    assert await versioned.left() == {1001}
    await versioned.rig.require_told(logs=40)


async def test_a_walk_goes_on_where_no_newer_report_can_be_looked_for(plain, monkeypatch):
    await plain.records(due=35)
    await write(plain)
    from retentiond.errors import Unreachable
    from retentiond.stores.s3.inventory import source

    newest, asked = source.newest, []

    async def once(*args, **named):
        asked.append(args)
        if len(asked) > 1:
            raise Unreachable("the endpoint is away", remedy="")
        return await newest(*args, **named)

    monkeypatch.setattr(source, "newest", once)
    monkeypatch.setattr(source, "_LOOK_SECONDS", 0.0)
    async with plain.rig.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        asked.clear()
        assert await store.counted(100) == 38
        assert await store.counted(100) == 38
    assert len(asked) > 1


async def test_what_is_no_manifest_at_all_is_said_to_be_none(plain):
    made = await report(plain.ground)
    await made._put(f"{made.folder}manifest.json", b"[1]")
    await made._put(f"{made.folder}manifest.checksum", hashlib.md5(b"[1]").hexdigest().encode())
    outcome = await plain.rig.only()
    assert outcome.outcome == "blind"
    assert "is no manifest" in outcome.error["message"]


async def test_a_sweep_that_was_killed_goes_on_in_a_newer_report_where_it_was(versioned, monkeypatch):
    await versioned.records(due=35, young=4)
    await write(versioned, versions=True, hours=9)
    from retentiond.stores.s3 import batch

    delete, calls = batch.delete, []

    async def dying(bucket, items, **named):
        calls.append([each.key for each in items])
        if len(calls) == 3:
            raise asyncio.CancelledError
        return await delete(bucket, items, **named)

    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(batch, "delete", dying)
        await versioned.rig.only()
    await versioned.let_time_pass()
    await write(versioned, versions=True, hours=3)

    async def noting(bucket, items, **named):
        calls.append([each.key for each in items])
        return await delete(bucket, items, **named)

    monkeypatch.setattr(batch, "delete", noting)
    assert (await versioned.rig.only()).outcome == "drained"
    assert await versioned.left() == {1001, 1002, 1003, 1004}
    assert calls[3][0] >= calls[1][-1], "it begins where the last one that was written down ended"
    await versioned.rig.require_told(logs=35)


async def test_a_plan_counts_by_the_report_what_is_there_still_and_says_of_when_it_is(plain):
    await plain.records(due=4)
    made = await write(plain)
    await mark(plain, plain.key(1))
    await plain.ground.put(plain.key(2), body=b"another")
    async with plain.rig.app() as app:
        target, found = app.spec.target("logs"), Outcome()
        store, plan = await app.engine.open(target), await app.engine.plan(target)
        await count_due(store, plan, found)
        assert (found.would, found.gone) == (2, 2)
        assert await store.total() == 6, "the one that was overwritten is there, and was listed"
        assert abs(store.as_of - made.at) < timedelta(seconds=1)


async def test_a_forecast_looks_at_nothing_anew(plain):
    await plain.records(due=4)
    await write(plain)
    await mark(plain, plain.key(1))
    async with plain.rig.app() as app:
        target, found = app.spec.target("logs"), Outcome()
        store, plan = await app.engine.open(target), await app.engine.plan(target)
        await count_due(store, replace(plan, now=plan.now + timedelta(days=100)), found)
        assert (found.would, found.gone) == (7, 0)


async def test_the_guard_does_not_ask_again_about_what_is_gone_since_the_report(plain):
    """Else every process that begins would ask anew until a newer report comes."""
    plain.rig.guards = {"max_fraction": 0.25, "min_records": 2}
    await plain.records(due=4, young=2)
    await write(plain)
    assert (await plain.rig.only()).outcome == "guarded"
    for key in (1, 2, 3):
        await mark(plain, plain.key(key))
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 1, 3)
    assert await plain.left() == {1001, 1002}


async def test_a_newer_report_is_taken_as_soon_as_it_is_seen(plain, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.inventory.source._LOOK_SECONDS", 0.0)
    await plain.records(due=2, young=0)
    await write(plain, hours=9, rows=(await rows_of(plain.ground))[:1])
    async with plain.rig.app() as app:
        target = app.spec.target("logs")
        found = Outcome()
        await count_due(await app.engine.open(target), await app.engine.plan(target), found)
        assert found.would == 1
        await write(plain, hours=3)
        found = Outcome()
        await count_due(await app.engine.open(target), await app.engine.plan(target), found)
        assert found.would == 2


async def test_what_a_hold_matches_by_a_report_is_an_estimate(plain):
    await plain.records(due=2)
    await write(plain)
    async with plain.rig.app() as app:
        hold = await plain.rig.hold(app, accounts=("1",))
        store = app.engine.stores["logs"]
        found = await store.matches(await store.hold(hold), seconds=30)
        assert (found.records, found.exact) == (5, False)


async def test_explain_looks_at_the_object_itself(plain):
    await plain.add(1)
    await write(plain)
    await plain.ground.put(plain.key(1))
    async with plain.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), plain.key(1))
        assert verdict.kind.value == "keep"


async def test_uploads_are_listed_for_no_report_has_them(plain):
    await plain.begin_upload(plain.key(1))
    await write(plain)
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 1)


# --- check ---


async def findings(subject):
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        return [each for each in await store.check() if "inventor" in each.message]


async def configure(subject, **more):
    destination = {"S3BucketDestination": {"Bucket": f"arn:aws:s3:::{subject.ground.name}", "Format": "CSV"}}
    configuration = {
        "Destination": destination, "IsEnabled": True, "Id": ID, "IncludedObjectVersions": "All",
        "Schedule": {"Frequency": "Daily"}, **more,
    }  # fmt: skip
    await subject.ground.client.put_bucket_inventory_configuration(
        Bucket=subject.ground.name, Id=ID, InventoryConfiguration=configuration
    )


async def test_check_tells_the_newest_report_and_its_age(plain):
    await plain.add(1)
    await configure(plain)
    await write(plain, hours=6)
    (found,) = await findings(plain)
    assert found.severity == "info"
    assert "6 hours ago: 3 files of CSV" in found.message


async def test_check_tells_that_the_bucket_is_listed_where_there_is_no_report_or_an_old_one(plain):
    await configure(plain)
    (found,) = await findings(plain)
    assert (found.severity, "until there is the bucket is listed" in found.message) == ("warning", True)
    await write(plain, hours=100)
    (found,) = await findings(plain)
    assert (found.severity, "more than max_age" in found.message) == ("warning", True)


async def test_check_tells_of_a_report_of_other_keys_than_the_target_s(plain):
    await plain.add(1)
    await write(plain)
    await configure(plain, Filter={"Prefix": "artifacts/"})
    found = [each for each in await findings(plain) if each.severity == "error"]
    assert [each.message for each in found] == [
        "the inventory is of keys below 'artifacts/' alone, and the target is over all below 'logs/'"
    ]


async def test_check_tells_of_an_inventory_that_is_not_configured_or_switched_off(plain):
    await plain.add(1)
    await write(plain)
    assert any("has no inventory configuration 'daily'" in each.message for each in await findings(plain))
    await configure(plain, IsEnabled=False)
    assert any("switched off" in each.message for each in await findings(plain))


async def test_check_tells_of_a_file_that_is_not_there_and_of_half_a_report(plain):
    await plain.add(1)
    await configure(plain)
    made = await write(plain)
    await write(plain, hours=1, checksum=None)
    await plain.ground.client.delete_object(
        Bucket=plain.ground.name, Key=f"{REPORTS}/{plain.ground.name}/{ID}/data/{made.at:%Y%m%d%H%M}-0"
    )
    told = {each.severity: each.message for each in await findings(plain)}
    assert "inventory file" in told["error"]
    assert "half there" in "".join(each.message for each in await findings(plain))


async def test_check_names_columns_that_a_report_lacks(versioned):
    await configure(versioned)
    await write(versioned, schema=CURRENT_SCHEMA)
    assert any("lacks VersionId, IsDeleteMarker" in each.message for each in await findings(versioned))


async def test_check_tells_of_reports_that_are_written_among_the_records(apart, moto_server):
    async with moto_server.bucket() as ground:
        subject = await prepared(apart, ground, inventory=INVENTORY, prefix="", key="{object:path}", account="1")
        await write(subject)
        assert any("lie below '' themselves" in each.message for each in await findings(subject))


async def test_a_made_up_row_of_an_object_that_never_was_erases_nothing(plain):
    await plain.add(1, days=1)
    rows = [older(Row(plain.key(number), datetime.now(UTC)), 400) for number in (1, 2, 3)]
    await write(plain, rows=rows)
    outcome = await plain.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.gone) == ("drained", 0, 3)
    assert await plain.left() == {1}
