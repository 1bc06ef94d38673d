"""`check` of an archive's bucket, and what `plan`, the metrics and holds say of a target that archives."""

from datetime import UTC, datetime

import pytest

from retentiond.errors import Blind
from retentiond.metrics import Metrics
from retentiond.stores.archive import ArchivePlace, Label
from retentiond.stores.s3.archive import S3Archive
from services.archives import archived_ids, archives, place
from services.process import run_retentiond
from services.s3_faults import Fault, faulty


@pytest.fixture
async def sink(ground):
    made = S3Archive(ArchivePlace.model_validate(place(ground.server, ground.name)))
    yield made
    await made.close()


async def lines(*chunks):
    for chunk in chunks:
        yield chunk


def label(batch="b"):
    return Label("logs", batch, datetime(2026, 3, 1, 23, 30, tzinfo=UTC))


async def test_a_bucket_that_can_be_used_has_no_findings_and_nothing_is_left_in_it(sink, ground):
    assert await sink.findings("logs") == []
    assert await ground.keys() == []


@pytest.mark.parametrize(("kind", "said"), [({"versioned": True}, "keeps versions"), ({"lock": True}, "Object Lock")])
async def test_what_the_bucket_keeps_is_noted(s3, kind, said):
    async with s3.bucket(**kind) as made:
        sink = S3Archive(ArchivePlace.model_validate(place(s3, made.name)))
        try:
            found = await sink.findings("logs")
        finally:
            await sink.close()
        assert {each.severity for each in found} == {"info"}
        assert any(said in each.message for each in found)
        assert all(each.remedy for each in found)
        versions = await made.client.list_object_versions(Bucket=made.name)
        assert "Versions" not in versions


@pytest.mark.parametrize(
    ("about", "right"),
    [("PUT", "s3:PutObject"), ("GET", "s3:GetObject"), ("DELETE", "s3:DeleteObject")],
)
async def test_a_right_that_is_missing_is_an_error(ground, about, right):
    async with faulty(ground.server) as proxy:
        sink = S3Archive(ArchivePlace.model_validate(place(proxy.server, ground.name)))
        try:
            proxy.arm(Fault("denied", lambda asked: asked.method == about and "retentiond-check" in asked.target))
            found = [each for each in await sink.findings("logs") if each.severity == "error"]
        finally:
            await sink.close()
    assert len(found) == 1
    assert right in found[0].message
    assert right in found[0].remedy


async def test_a_rule_by_which_the_bucket_erases_archives_is_noted(sink, ground):
    rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "kept/"}, "Expiration": {"Days": 30}}
    await ground.client.put_bucket_lifecycle_configuration(Bucket=ground.name, LifecycleConfiguration={"Rules": [rule]})
    (found,) = await sink.findings("logs")
    assert "rule old erases archives after 30 days" in found.message


async def test_a_bucket_that_is_not_there_is_an_error(s3):
    sink = S3Archive(ArchivePlace.model_validate(place(s3, "no-such-bucket")))
    try:
        found = await sink.findings("logs")
    finally:
        await sink.close()
    assert "error" in {each.severity for each in found}
    assert any("there is no such bucket" in each.message for each in found)


async def test_what_is_larger_than_a_part_is_written_in_parts_and_read_back(sink, ground):
    import random

    about = {"records": 20}
    body = [random.Random(i).randbytes(10**6).replace(b"\n", b"x") + b"\n" for i in range(20)]
    kept = await sink.write(label(), about, lines(*body))
    (archive,) = [key for key in await ground.keys() if key.endswith(".zst")]
    assert archive == kept.key == "kept/logs/2026/03/01/b.jsonl.zst"
    assert kept.size > 16 * 2**20
    head = await ground.client.head_object(Bucket=ground.name, Key=kept.key)
    assert head["ETag"].strip('"').endswith("-4")
    await sink.remove(label())
    assert await ground.keys() == []


async def test_removing_a_batch_takes_all_its_versions_and_nothing_of_another(s3):
    async with s3.bucket(versioned=True) as made:
        sink = S3Archive(ArchivePlace.model_validate(place(s3, made.name)))
        try:
            for batch in ("b", "b", "b2"):
                await sink.write(label(batch), {"records": 1}, lines(b"{}\n"))
            await sink.remove(label("b"))
            await sink.remove(label("b"))
        finally:
            await sink.close()
        versions = await made.client.list_object_versions(Bucket=made.name)
        assert {each["Key"] for each in versions["Versions"]} == {
            "kept/logs/2026/03/01/b2.jsonl.zst", "kept/logs/2026/03/01/b2.manifest.json",
        }  # fmt: skip
        assert "DeleteMarkers" not in versions


async def test_where_versions_can_not_be_listed_what_can_be_seen_is_removed(ground):
    async with faulty(ground.server) as proxy:
        sink = S3Archive(ArchivePlace.model_validate(place(proxy.server, ground.name)))
        try:
            await sink.write(label(), {"records": 1}, lines(b"{}\n"))
            proxy.arm(Fault("denied", lambda asked: "versions" in asked.target))
            await sink.remove(label())
            proxy.arm(Fault("denied", lambda asked: "uploads" in asked.target))
            with pytest.raises(Blind):
                await sink.remove(label())
        finally:
            await sink.close()
    assert await ground.keys() == []


async def test_a_plan_says_archive_and_touches_nothing(company, ground):
    planned = await run_retentiond("plan", "--json", env=company.environment(mode="plan"))
    assert planned.code == 0, planned.stderr
    assert planned.json["targets"]["logs"]["action"] == "archive"
    assert await company.ids() == [1, 2, 3, 4, 5, 1001, 1002, 1003]
    assert await ground.keys() == []


async def test_check_of_a_target_that_archives_looks_at_its_bucket(company, ground):
    checked = await run_retentiond("check", "--json", env=company.environment(mode="plan"))
    assert not [each for each in checked.json["findings"] if "archive" in each["message"]]
    company.targets["logs"]["archive"]["bucket"] = "no-such-bucket"
    checked = await run_retentiond("check", "--json", env=company.environment(mode="plan"))
    assert checked.code == 1
    assert [each for each in checked.json["findings"] if "no such bucket" in each["message"]]


async def test_the_command_and_the_metrics_count_what_was_archived(company, ground):
    async with company.app() as app:
        metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="0", mode="enforce")
    await company.sweep(observer=metrics)
    text = metrics.exposition("")[0].decode()
    assert 'retentiond_records_archived_total{class="operational_logs",target="logs",tier="free"} 5.0' in text
    assert 'retentiond_records_erased_total{class="operational_logs",target="logs",tier="free"} 0.0' in text


async def test_what_is_held_is_neither_archived_nor_deleted(company, ground):
    async with company.app() as app:
        await company.hold(app, records={"logs": ("2", "4")})
    outcome = await company.only()
    assert (outcome.changed, outcome.held) == (3, 2)
    assert await company.ids() == [2, 4, 1001, 1002, 1003]
    assert await archived_ids(ground) == [1, 3, 5]


async def test_where_the_control_state_is_beside_the_table_it_is_the_same(rig, ground):
    await rig.company()
    rig.target("logs", action="archive", region_group="eu", archive=place(ground.server, ground.name))
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    assert await archived_ids(ground) == [1, 2, 3, 4, 5]
    (entry,) = [each for each in await rig.ledger() if each["kind"] == "outcome"]
    assert entry["archive"]["key"] == (await archives(ground))[0].key
