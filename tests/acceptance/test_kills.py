"""`kill -9` and SIGSTOP of real processes at chosen points of a batch: afterwards the ledger tells what has gone."""

import asyncio
import signal

import pytest

from tests.services.gates import gate
from tests.services.process import run_retentiond, start_retentiond

TARGET = {
    "before the delete": ("BEFORE DELETE ON logs FOR EACH ROW", "TRIGGER"),
    "between delete and commit": ("AFTER DELETE ON logs FOR EACH ROW", "TRIGGER"),
    "in the commit": ("AFTER DELETE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW", "CONSTRAINT TRIGGER"),
}
CONTROL = {
    "before the permit": "BEFORE INSERT ON retentiond.permits FOR EACH ROW",
    "before the commit": "BEFORE UPDATE OF prepared ON retentiond.permits FOR EACH ROW",
    "after the commit, before the outcome": "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW",
}


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


async def restarted(rig, due=30):
    """A fresh process finishes what was begun, and the ledger holds each record once."""
    await rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert result.code == 0, result.stderr
    assert result.json["targets"]["logs"]["outcome"] == "drained"
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=due)
    await rig.require_settled()
    verified = await run_retentiond("ledger", "verify", "--json", env=rig.environment())
    assert (verified.code, verified.json["ok"]) == (0, True), verified.stderr


async def killed_at(rig, stop, command="sweep"):
    async with start_retentiond(command, env=rig.environment()) as worker:
        await stop.reached()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()


@pytest.mark.parametrize("moment", sorted(TARGET))
async def test_a_worker_killed_in_the_targets_transaction(either, moment):
    await either.company(due=30)
    trigger, kind = TARGET[moment]
    async with gate(either.dsn, trigger, kind=kind) as stop:
        await killed_at(either, stop)
    await restarted(either)


@pytest.mark.parametrize("moment", sorted(CONTROL))
async def test_a_worker_killed_between_its_two_databases(apart, moment):
    await apart.company(due=30)
    await apart.sweep(mode="plan")
    async with gate(apart.control, CONTROL[moment]) as stop:
        await killed_at(apart, stop)
    await restarted(apart)


async def test_a_daemon_killed_in_a_batch_is_taken_over_by_the_next(rig):
    await rig.company(due=30)
    async with gate(rig.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stop:
        await killed_at(rig, stop, "run")
    await rig.let_leases_run_out()
    async with start_retentiond("run", env=rig.environment()) as daemon:
        while await rig.db.fetchval("SELECT count(*) FROM logs") > 3:
            assert daemon.code is None, daemon.output
            await asyncio.sleep(0.1)
        daemon.send_signal(signal.SIGTERM)
        assert await daemon.wait() == 0
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=30)
    await rig.require_settled()


async def test_workers_killed_again_and_again_erase_each_record_once(rig):
    await rig.company(due=60)
    for round_ in range(4):
        trigger, kind = list(TARGET.values())[round_ % 3]
        async with gate(rig.dsn, trigger, kind=kind) as stop:
            await killed_at(rig, stop)
        await rig.db.execute("DROP TRIGGER a_gate ON logs")
        await rig.let_leases_run_out()
    await restarted(rig, due=60)


async def test_a_hold_placed_after_a_kill_in_a_batch_becomes_active_and_keeps_its_records(rig):
    await rig.company(due=30)
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        await killed_at(rig, stop)
    place = ("hold", "place", "--matter", "m", "--reason", "r", "--account", "1", "--json")
    placed = await run_retentiond(*place, env=rig.environment())
    assert (placed.code, placed.json["state"]) == (0, "active"), placed.stderr
    at_activation = await rig.ids()
    await rig.let_leases_run_out()
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert result.code == 0, result.stderr
    assert await rig.ids() == at_activation
    assert result.json["targets"]["logs"]["held"] == len(at_activation) - 3
    await rig.require_told(logs=33 - len(at_activation))
    await rig.require_settled()


async def test_two_processes_at_once_erase_each_record_once(rig):
    await rig.company(due=60)
    env = rig.environment()
    results = await asyncio.gather(*(run_retentiond("sweep", "--json", env=env) for _ in range(2)))
    assert [result.code for result in results] == [0, 0], [result.stderr for result in results]
    assert sum(result.json["targets"]["logs"]["erased"] for result in results) == 60
    await rig.require_told(logs=60)


async def test_a_sweep_told_to_stop_ends_after_its_batch_or_leaves_it_undone(rig):
    await rig.company(due=60)
    async with (
        gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop,
        start_retentiond("run", env=rig.environment()) as daemon,
    ):
        await stop.reached()
        daemon.send_signal(signal.SIGTERM)
        await stop.open()
        assert await daemon.wait() == 0
    left = await rig.db.fetchval("SELECT count(*) FROM logs")
    assert left >= 53, "no batch after the one in flight"
    await rig.require_told(logs=63 - left)
    await rig.require_settled()


async def test_check_names_a_target_that_left_a_batch_without_an_outcome_and_is_configured_no_more(rig):
    await rig.company(due=30)
    await rig.db.execute("CREATE TABLE others (LIKE logs INCLUDING ALL)")
    rig.target("others")
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        await killed_at(rig, stop)
    gone = rig.targets.pop("logs")
    check = await run_retentiond("check", "--json", env=rig.environment())
    (found,) = [each for each in check.json["findings"] if "configured no more" in each["message"]]
    assert (check.code, found["severity"]) == (1, "error")
    assert "target logs" in found["message"]
    rig.targets["logs"] = gone
    await rig.let_leases_run_out()
    await restarted(rig)
    check = await run_retentiond("check", "--json", env=rig.environment())
    assert not [each for each in check.json["findings"] if "configured no more" in each["message"]]
