"""Several processes on one control database: they share the work, and what one leaves another takes over."""

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest

from tests.services.daemon import until
from tests.services.gates import gate
from tests.services.process import run_retentiond, start_retentiond

TABLES = [f"logs{i}" for i in range(6)]


async def tables(rig, due=60):
    """Six tables, each with as many records that are due and three that are not."""
    await rig.company()
    del rig.targets["logs"]
    for name in TABLES:
        await rig.db.execute(
            f"CREATE TABLE {name} (LIKE logs INCLUDING ALL);"
            f"INSERT INTO {name} SELECT i, 1, now() - interval '400 days' + i * interval '1 minute'"
            f" FROM generate_series(1, {due}) i; INSERT INTO {name} SELECT * FROM logs WHERE id > 1000"
        )
        rig.target(name)


async def left(rig):
    counts = [await rig.db.fetchval(f"SELECT count(*) FROM {name}") for name in rig.targets]
    return sum(counts) - 3 * len(counts)


async def drained(rig, *processes):
    async def empty():
        for each in processes:
            assert each.code is None, each.output
        return not await left(rig)

    await until(empty, lambda: "\n".join(each.output for each in processes))


async def stopped(process):
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, process.output


def run(rig, *args):
    return start_retentiond("run", *args, env=rig.environment())


async def test_three_daemons_share_the_targets_and_erase_each_record_once(rig):
    await tables(rig)
    async with AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(run(rig)) for _ in range(3)]
        await drained(rig, *daemons)
        for each in daemons:  # one may have done it all before another one had begun
            await each.wait_for("ready")
        listed = await run_retentiond("workers", "--json", env=rig.environment())
        assert listed.code == 0, listed.stderr
        workers = listed.json["workers"]
        assert {each["pid"] for each in workers} == {each.pid for each in daemons}
        assert all(each["alive"] and each["role"] == "all" for each in workers)
        for each in daemons:
            await stopped(each)
    await rig.require_told(**dict.fromkeys(TABLES, 60))
    await rig.require_settled()
    gone = await run_retentiond("workers", "--json", env=rig.environment())
    assert gone.json == {"workers": []}, "those that ended of their own will are not listed"


async def test_what_a_killed_worker_was_at_is_taken_over_by_another(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stop, run(rig) as first:
        await stop.reached()
        async with run(rig) as second:
            await second.wait_for("ready")
            first.send_signal(signal.SIGKILL)
            await first.wait()
            await stop.open()
            await rig.let_leases_run_out()
            await drained(rig, second)
            listed = await run_retentiond("workers", "--json", env=rig.environment())
            assert {each["pid"] for each in listed.json["workers"]} == {first.pid, second.pid}
            await stopped(second)
    await rig.require_told(logs=60)
    await rig.require_settled()


@pytest.mark.late
async def test_a_stopped_worker_is_replaced_when_its_lease_is_over_and_is_fenced_when_it_comes_back(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stop, run(rig) as first:
        await stop.reached()
        first.send_signal(signal.SIGSTOP)
        await stop.open()
        async with run(rig) as second:
            await drained(rig, second)
            first.send_signal(signal.SIGCONT)
            await asyncio.sleep(2)
            await stopped(second)
        assert first.code is None, "it goes on living"
        await stopped(first)
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=60)
    await rig.require_settled()


async def test_a_scheduler_announces_and_a_worker_erases_and_neither_does_the_others_part(rig):
    await tables(rig, due=20)
    async with run(rig, "--worker-only") as worker:
        await worker.wait_for("ready")
        await asyncio.sleep(3)
        assert await left(rig) == 20 * len(TABLES), "nothing was announced"
        async with run(rig, "--scheduler-only") as scheduler:
            await drained(rig, worker, scheduler)
            await stopped(scheduler)
        await stopped(worker)
    await tables_grow(rig)
    async with run(rig, "--scheduler-only") as scheduler:
        await scheduler.wait_for("ready")
        await asyncio.sleep(3)
        assert await left(rig) == len(TABLES), "a scheduler erases nothing"
        listed = await run_retentiond("workers", env=rig.environment())
        assert "scheduler" in listed.stdout
        await stopped(scheduler)


async def tables_grow(rig):
    for name in TABLES:
        await rig.db.execute(f"INSERT INTO {name} SELECT 9999, 1, now() - interval '300 days'")
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.units SET next_due_at = now()")


async def test_two_planners_announce_a_target_once(rig):
    await tables(rig)
    async with AsyncExitStack() as stack:
        planners = [await stack.enter_async_context(run(rig, "--scheduler-only")) for _ in range(2)]
        for each in planners:
            await each.wait_for("ready")
        async with rig.control_connection() as control:

            async def announced():
                return await control.fetchval("SELECT count(*) FROM retentiond.pgqueuer") == len(TABLES)

            await until(announced, lambda: "\n".join(each.output for each in planners))
            await asyncio.sleep(3)  # a few rounds of both
            assert await announced()
        for each in planners:
            await stopped(each)


async def test_shards_of_a_large_table_are_worked_on_by_several_processes(rig):
    await rig.company(due=900)
    rig.target("logs", pace={"duty": 0.5, "max_batch": 5, "shards": 8})
    few = rig.environment(workers={"concurrency": 4})  # so that no one of them can hold all the shards at the gate
    await rig.db.execute("ANALYZE logs")
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop, AsyncExitStack() as stack:
        daemons = [await stack.enter_async_context(start_retentiond("run", env=few)) for _ in range(3)]
        for each in daemons:
            await each.wait_for("ready")

        async def shared():
            async with rig.control_connection() as control:
                rows = await control.fetch("SELECT owner FROM retentiond.units WHERE shard <> '' AND owner IS NOT NULL")
            return len({row["owner"] for row in rows}) > 1

        await until(shared, lambda: "\n".join(each.output for each in daemons))
        await stop.open()
        await drained(rig, *daemons)
        for each in daemons:
            await stopped(each)
    await rig.require_told(logs=900)


async def test_a_sweep_by_hand_beside_a_daemon_is_listed_and_shares_the_leases(rig):
    await rig.company(due=60)
    sweeping = start_retentiond("sweep", "--json", env=rig.environment())
    async with gate(rig.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stop, sweeping as sweep:
        await stop.reached()
        listed = await run_retentiond("workers", "--json", env=rig.environment())
        (worker,) = listed.json["workers"]
        assert (worker["role"], [work["target"] for work in worker["works"]]) == ("sweep", ["logs"])
        async with run(rig) as daemon:
            await daemon.wait_for("ready")
            await stop.open()
            assert await sweep.wait() == 0, sweep.output
            await stopped(daemon)
    await rig.require_told(logs=60)


async def test_a_control_database_that_restarts_in_the_middle_is_waited_for(rig):
    await rig.company(due=60)
    async with run(rig) as daemon:
        await drained(rig, daemon)
        await daemon.wait_for("sweep done")
        async with rig.control_connection() as control:
            await control.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database() AND application_name LIKE 'retentiond%'"
            )
        await rig.db.execute("INSERT INTO logs SELECT 9999, 1, now() - interval '300 days'")
        await until(rig.nobody_works)  # whose end would say when the target is due
        async with rig.control_connection() as control:

            async def empty():
                # Again and again: only what a tick has seen as due later is due anew.
                await control.execute("UPDATE retentiond.units SET next_due_at = now() WHERE owner IS NULL")
                await asyncio.sleep(1)
                return not await left(rig)

            await until(empty, lambda: daemon.output)
        await stopped(daemon)


async def test_both_roles_at_once_are_refused(rig):
    await rig.company()
    result = await run_retentiond("run", "--worker-only", "--scheduler-only", env=rig.environment())
    assert result.code == 2
    assert "exclude each other" in result.stderr
    assert "remedy" in result.stderr
