"""`tidy` lists what batches that deleted nothing have left, and never an archive."""

import signal

from services.archives import archives
from services.gates import gate
from services.process import run_retentiond, start_retentiond


async def tidied(rig):
    result = await run_retentiond("tidy", "--json", env=rig.environment())
    assert result.code == 0, result.stderr
    return result.json["targets"]["logs"]


async def test_an_archive_is_never_listed(company):
    await company.only()
    assert await tidied(company) == {"objects": 2, "left": []}


async def test_what_nobody_can_have_written_down_is_listed_and_stays(company, ground):
    await company.only()
    await ground.put("kept/logs/2026/01/02/no-such-batch.jsonl.zst", "kept/logs/notes.txt")
    found = await tidied(company)
    assert found["objects"] == 3
    assert [(each["batch"], each["bytes"]) for each in found["left"]] == [("no-such-batch", 1)]
    assert len(await ground.keys()) == 4


async def test_a_batch_that_is_not_decided_yet_is_not_listed(company, ground):
    await company.sweep(mode="plan")
    trigger = "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW WHEN (NEW.outcome = 'committed')"
    async with (
        gate(company.control, trigger) as stop,
        start_retentiond("sweep", env=company.environment()) as worker,
    ):
        await stop.reached()
        assert await tidied(company) == {"objects": 2, "left": []}
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()
    assert await tidied(company) == {"objects": 2, "left": []}
    await company.let_leases_run_out()
    await company.only()
    assert len(await archives(ground)) == 1
    assert await tidied(company) == {"objects": 2, "left": []}


async def test_a_bucket_that_can_not_be_reached_is_said(company):
    await company.only()
    company.targets["logs"]["archive"]["endpoint_url"] = "http://127.0.0.1:1"
    result = await run_retentiond("tidy", env=company.environment())
    assert result.code == 4
    assert "endpoint_url" in result.stderr
