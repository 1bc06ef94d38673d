"""`kill -9` of a real process while partitions go; and what the commands say of one that is left detached."""

import signal

import asyncpg
import pytest

from tests.services.gates import gate
from tests.services.parted import EACH, OLD, YOUNG, attached, noted, parted, tables, whole
from tests.services.process import run_retentiond, start_retentiond

CONTROL = {
    "before the note is written": "BEFORE INSERT ON retentiond.detached FOR EACH ROW",
    "after the detach, before the permit": "BEFORE INSERT ON retentiond.permits FOR EACH ROW",
    "after the proof, before the drop": "BEFORE UPDATE OF prepared ON retentiond.permits FOR EACH ROW",
    "after the drop, before the outcome": "BEFORE UPDATE OF outcome ON retentiond.permits FOR EACH ROW",
    "after the outcome, before it is forgotten": "BEFORE DELETE ON retentiond.detached FOR EACH ROW",
}


async def killed(rig, moment):
    await rig.sweep(mode="plan")
    async with gate(rig.control, CONTROL[moment]) as stop, start_retentiond("sweep", env=rig.environment()) as worker:
        await stop.reached()
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        await stop.open()
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.detached SET noted_at = noted_at - interval '10 minutes'")
    await rig.let_leases_run_out()


@pytest.mark.parametrize("moment", sorted(CONTROL))
async def test_a_worker_killed_at_any_step_leaves_what_the_next_one_finishes(apart, moment):
    await parted(apart)
    await killed(apart, moment)
    result = await run_retentiond("sweep", "--json", env=apart.environment())
    assert result.code == 0, result.stderr
    assert result.json["targets"]["logs"]["outcome"] == "drained"
    assert await tables(apart) == await attached(apart) == [YOUNG]
    assert await noted(apart) == []
    assert await whole(apart) == 3
    await apart.require_told(logs=3 * EACH)
    await apart.require_settled()


async def test_a_partition_that_another_session_has_locked_is_not_waited_for_and_stays_attached(apart):
    await parted(apart)
    holder = await asyncpg.connect(apart.dsn)
    await holder.execute("BEGIN; LOCK TABLE logs_p1 IN SHARE MODE")
    await run_retentiond("sweep", "--json", env=apart.environment())
    assert "logs_p1" in await attached(apart)
    await holder.close()
    assert (await run_retentiond("sweep", "--json", env=apart.environment())).code == 0
    assert await attached(apart) == await tables(apart)
    await apart.require_told(logs=3 * EACH)


async def test_while_one_is_detached_check_and_promises_say_so(apart):
    await parted(apart)
    await killed(apart, "after the detach, before the permit")
    assert await attached(apart) == [YOUNG]
    env = apart.environment()
    check = await run_retentiond("check", "--json", env=env)
    (finding,) = [each for each in check.json["findings"] if "was a partition" in each["message"]]
    assert (check.code, finding["severity"], finding["subject"]) == (1, "error", "logs")
    assert "ATTACH PARTITION public.logs_p0 FOR VALUES FROM" in finding["remedy"]
    promises = await run_retentiond("promises", "--json", env=env)
    assert promises.code == 1
    assert "was a partition of target logs" in promises.json["errors"]["logs"]["message"]
    assert {row["kept"] for row in promises.json["promises"] if row["class"] == "operational_logs"} == {None}
    await run_retentiond("sweep", env=env)
    assert await tables(apart) == [YOUNG]
    assert (await run_retentiond("promises", "--json", env=env)).json["errors"] == {}


async def test_check_names_what_was_detached_for_a_target_that_is_configured_no_more(apart):
    await parted(apart)
    await killed(apart, "after the detach, before the permit")
    apart.targets["others"] = {**apart.targets.pop("logs"), "table": "public.others"}
    await apart.db.execute("CREATE TABLE others (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    check = await run_retentiond("check", "--json", env=apart.environment())
    found = [each for each in check.json["findings"] if "configured no more" in each["message"]]
    assert [each["severity"] for each in found] == ["error"] * len(OLD)
