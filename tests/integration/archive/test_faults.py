"""Networks, servers and processes that fail in the middle of an archive: nothing is deleted that is not surely kept."""

import asyncio
import signal

import pytest

from retentiond.stores.postgres import archivebatch
from retentiond.stores.s3 import multipart
from retentiond.stores.s3.archive import S3Archive
from services.archives import archived_ids, archives, place
from services.gates import gate
from services.process import run_retentiond, start_retentiond
from services.s3_faults import Fault, faulty

DUE = [1, 2, 3, 4, 5]
YOUNG = [1001, 1002, 1003]


def writes(ending):
    return lambda asked: asked.method == "PUT" and asked.target.partition("?")[0].endswith(ending)


def reads(ending):
    return lambda asked: asked.method == "GET" and asked.target.partition("?")[0].endswith(ending)


RECORDS, MANIFEST = ".jsonl.zst", ".manifest.json"


async def behind(rig, proxy, ground):
    rig.target("logs", action="archive", region_group="eu", archive=place(proxy.server, ground.name))


async def untouched_then_mended(rig, ground):
    """Nothing has gone and nothing is left over; the next sweep archives each record once."""
    assert await rig.ids() == DUE + YOUNG
    assert await ground.keys() == []
    await rig.require_told(logs=0)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    assert await rig.ids() == YOUNG
    assert await archived_ids(ground) == DUE
    await rig.require_told(logs=5)
    await rig.require_settled()


@pytest.mark.parametrize("kind", ["busy", "broken", "lost", "never sent", "cut"])
@pytest.mark.parametrize("about", [writes(RECORDS), reads(RECORDS), writes(MANIFEST), reads(MANIFEST)])
async def test_a_request_that_fails_once_is_sent_again(company, ground, kind, about):
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
        proxy.arm(Fault(kind, about))
        outcome = await company.only()
        assert proxy.armed == []
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    assert await archived_ids(ground) == DUE
    await company.require_told(logs=5)


@pytest.mark.parametrize("kind", ["busy", "lost"])
@pytest.mark.parametrize("about", [writes(RECORDS), reads(RECORDS), writes(MANIFEST), reads(MANIFEST)])
async def test_a_request_that_keeps_failing_ends_the_sweep_and_nothing_is_deleted(company, ground, kind, about):
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
        proxy.arm(Fault(kind, about), Fault(kind, about))
        outcome = await company.only()
        assert (outcome.outcome, outcome.changed, outcome.error["kind"]) == ("failed", 0, "not_archived")
        assert outcome.error["remedy"]
        await company.require_settled()
        await untouched_then_mended(company, ground)


@pytest.mark.parametrize("about", [reads(RECORDS), reads(MANIFEST)])
async def test_what_is_read_back_otherwise_than_it_was_written_is_no_archive(company, ground, about):
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
        proxy.arm(Fault("garbled", about))
        outcome = await company.only()
        assert (outcome.outcome, outcome.error["kind"]) == ("failed", "not_archived")
        assert "not what was written" in outcome.error["message"]
        await untouched_then_mended(company, ground)


async def test_a_right_that_is_missing_is_said_and_nothing_is_deleted(company, ground):
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
        proxy.arm(Fault("denied", writes(MANIFEST)))
        outcome = await company.only()
        assert (outcome.outcome, outcome.changed) == ("blind", 0)
        assert "s3:PutObject" in outcome.error["message"]
        await untouched_then_mended(company, ground)


async def test_an_endpoint_that_is_not_there_ends_the_sweep(company, ground):
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed, outcome.error["kind"]) == ("failed", 0, "not_archived")
    company.target("logs", action="archive", region_group="eu", archive=place(ground.server, ground.name))
    await untouched_then_mended(company, ground)


async def test_a_bucket_that_is_not_there_is_said(company, ground):
    company.targets["logs"]["archive"] = place(ground.server, "no-such-bucket")
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "there is no such bucket" in outcome.error["message"]
    await company.require_settled()


async def test_what_can_not_be_removed_either_is_no_archive_and_is_not_deleted_by(company, ground):
    """The network is gone for good in the middle: the records' object stays, without a manifest."""
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)
        proxy.arm(*[Fault("never sent", lambda asked: "manifest" in asked.target or "jsonl" not in asked.target)] * 20)
        outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert [key.endswith(RECORDS) for key in await ground.keys()] == [True]
    assert await archives(ground) == []
    assert await company.ids() == DUE + YOUNG


@pytest.mark.parametrize("at", ["write", "remove"])
async def test_a_server_that_kills_the_transaction_while_it_is_archived_deletes_nothing(
    company, ground, monkeypatch, at
):
    """What a process meets that was stopped for ten minutes: its idle transaction is over."""
    whole, done = S3Archive.write, []

    async def write(sink, label, about, lines):
        async def cut():
            await company.db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'retentiond'"
                " AND datname = current_database()"
            )

        if done:
            return await whole(sink, label, about, lines)
        done.append(label)
        if at == "write":
            await cut()
            return await whole(sink, label, about, lines)
        found = await whole(sink, label, about, lines)
        await cut()
        return found

    monkeypatch.setattr(S3Archive, "write", write)
    outcome = await company.only()
    assert done
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    await company.let_leases_run_out()
    if at == "remove":
        # COMMIT was sent to nobody: only who takes over knows, and removes it.
        await company.only()
        assert await archived_ids(ground) == DUE
        assert await company.ids() == YOUNG
    else:
        await untouched_then_mended(company, ground)
    assert not any(done[0].batch in key for key in await ground.keys())


async def test_an_archive_that_takes_too_long_is_tried_with_fewer(company, ground, monkeypatch):
    whole, sizes = S3Archive.write, []

    async def write(sink, label, about, lines):
        sizes.append(about["records"])
        if about["records"] > 2:
            await asyncio.sleep(60)
        return await whole(sink, label, about, lines)

    monkeypatch.setattr(S3Archive, "write", write)
    monkeypatch.setattr(archivebatch, "WRITE_SECONDS", 1.0)
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 5, 0)
    assert max(sizes) == 5
    assert await archived_ids(ground) == DUE


async def test_records_that_are_too_large_together_go_in_smaller_batches(company, ground, monkeypatch):
    monkeypatch.setattr(archivebatch, "_MOST_BYTES", 300)
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 5, 0)
    found = await archives(ground)
    assert len(found) >= 2
    assert all(each.manifest["data"]["uncompressed_bytes"] <= 300 for each in found)
    assert await archived_ids(ground) == DUE


async def test_batches_fit_themselves_to_the_size_of_records(company, ground, monkeypatch):
    monkeypatch.setattr(archivebatch, "_USUAL_BYTES", 1000)
    await company.db.execute("UPDATE logs SET ip = repeat('x', 300)")
    await company.db.execute(
        "INSERT INTO logs SELECT i, 1, now() - interval '300 days', repeat('x', 300) FROM generate_series(6, 30) i"
    )
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 30)
    records = sorted(each.manifest["records"] for each in await archives(ground))
    assert records[-1] == 10  # the first, when nothing was known yet
    assert records[-2] <= 3


async def test_an_upload_of_parts_that_fails_in_the_middle_leaves_none(company, ground, monkeypatch):
    """Parts as small as no server takes them: what matters is what happens to those that were begun."""
    monkeypatch.setattr(multipart, "PART_BYTES", 64)
    monkeypatch.setattr(multipart.Upload.__init__, "__kwdefaults__", {"content_type": "", "part_bytes": 64})
    async with faulty(ground.server) as proxy:
        await behind(company, proxy, ground)

        def part(asked):
            return asked.method == "PUT" and "partNumber=2" in asked.target

        proxy.arm(Fault("busy", part), Fault("busy", part))
        outcome = await company.only()
        assert (outcome.outcome, outcome.changed) == ("failed", 0)
        assert any("uploads=" in each.target or each.target.endswith("uploads") for each in proxy.passed)
    uploads = await ground.client.list_multipart_uploads(Bucket=ground.name)
    assert "Uploads" not in uploads
    assert await company.ids() == DUE + YOUNG


MOMENTS = {
    "after the archive, before the outcome is prepared": "UPDATE OF prepared ON retentiond.permits FOR EACH ROW"
    " WHEN (NEW.prepared IS NOT NULL)",
    "after the commit, before the outcome": "UPDATE OF outcome ON retentiond.permits FOR EACH ROW"
    " WHEN (NEW.outcome = 'committed')",
}


@pytest.mark.parametrize("moment", sorted(MOMENTS))
async def test_a_worker_killed_around_the_commit_leaves_each_record_in_the_table_or_in_one_archive(
    company, ground, moment
):
    await company.sweep(mode="plan")
    async with (
        gate(company.control, f"BEFORE {MOMENTS[moment]}") as stop,
        start_retentiond("sweep", env=company.environment()) as worker,
    ):
        await stop.reached()
        (orphan,) = await archives(ground)
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()
    deleted = "commit" in moment.partition(",")[0]
    assert await company.ids() == (YOUNG if deleted else DUE + YOUNG)
    await company.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=company.environment())
    assert result.code == 0, result.stderr
    assert await company.ids() == YOUNG
    assert await archived_ids(ground) == DUE
    kept = [each.key for each in await archives(ground)]
    assert (orphan.key in kept) == deleted
    await company.require_told(logs=5)
    await company.require_settled()


async def test_a_hold_that_is_placed_while_an_archive_is_written_waits_for_it_and_then_holds(
    company, ground, monkeypatch
):
    await company.db.execute("UPDATE logs SET created_at = created_at - interval '10 days' WHERE id <= 3")
    company.target(
        "logs",
        action="archive",
        region_group="eu",
        archive=place(ground.server, ground.name),
        pace={"duty": 1.0, "max_batch": 3, "shards": 1},
    )
    writing, go = asyncio.Event(), asyncio.Event()
    whole = S3Archive.write

    async def write(sink, label, about, lines):
        if not writing.is_set():
            writing.set()
            await go.wait()
        return await whole(sink, label, about, lines)

    monkeypatch.setattr(S3Archive, "write", write)
    sweeping = asyncio.create_task(company.only())
    await writing.wait()
    placing = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--timeout", "60", "--json")
    hold = asyncio.create_task(run_retentiond(*placing, env=company.environment()))
    async with company.control_connection() as control:
        while not await control.fetchval("SELECT count(*) FROM retentiond.holds"):
            await asyncio.sleep(0.05)
    assert not hold.done()
    go.set()
    outcome = await sweeping
    assert (await hold).json["state"] == "active"
    assert (outcome.changed, outcome.held) == (3, 2)
    assert await company.ids() == [4, 5, *YOUNG]
    assert await archived_ids(ground) == [1, 2, 3]
