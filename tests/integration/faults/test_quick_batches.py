"""Batches by a plain DELETE with the evidence beside it: whatever comes between ends in what careful batches do.

They are quick only where no trigger, foreign key or change of values is in play, and the control state is elsewhere.
"""

import asyncio

import pytest

from retentiond.stores.postgres.quick import QuickBatch
from retentiond.sweep.events import BatchDone
from tests.services.gates import end_when_waited_for, looks, open_transaction, waits_for_lock


@pytest.fixture
async def company(apart):
    await apart.company(due=30)
    await apart.sweep(mode="plan")
    return apart


@pytest.fixture
def quick(monkeypatch):
    """What became of each quick batch: `erased`, or the name of the error."""
    seen = []
    erase = QuickBatch.erase

    async def noted(self, *args, **kwargs):
        try:
            found = await erase(self, *args, **kwargs)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        seen.append("erased")
        return found

    monkeypatch.setattr(QuickBatch, "erase", noted)
    return seen


def stopped_before(monkeypatch, method):
    """The first quick batch stops before that method of its own, until the second event is set."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    whole = getattr(QuickBatch, method)

    async def stopping(self, *args):
        reached.set()
        await go_on.wait()
        return await whole(self, *args)

    monkeypatch.setattr(QuickBatch, method, stopping)
    return reached, go_on


async def drained(rig):
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=30)
    await rig.require_settled()


async def test_a_table_that_nothing_disturbs_is_swept_quickly(company, quick):
    await drained(company)
    assert quick == ["erased"] * len(quick)
    assert len(quick) > 3


async def test_a_record_refreshed_under_the_delete_stays_and_the_rest_goes_carefully(company, quick):
    change = "UPDATE logs SET created_at = now() WHERE id = 3"
    async with open_transaction(company.dsn, change) as refreshing:
        sweep = asyncio.create_task(company.only())
        outcome = await end_when_waited_for(refreshing, company.db, sweep)
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 29, 0)
    assert await company.ids() == [3, 1001, 1002, 1003]
    assert "Conflict" in quick
    await company.require_told(logs=29)
    await company.require_settled()


async def test_a_record_deleted_under_the_delete_is_not_counted_as_erased(company, quick):
    async with open_transaction(company.dsn, "DELETE FROM logs WHERE id = 3") as deleting:
        sweep = asyncio.create_task(company.only())
        outcome = await end_when_waited_for(deleting, company.db, sweep)
    assert (outcome.outcome, outcome.changed) == ("drained", 29)
    assert "Conflict" in quick
    await company.require_told(logs=29)


async def test_a_trigger_that_came_in_the_middle_of_a_sweep_and_vetoes_is_found_by_the_count(company, quick):
    reached = []

    def after_the_first(event):
        if isinstance(event, BatchDone) and not reached:
            reached.append(asyncio.get_running_loop().create_task(veto()))

    async def veto():
        await company.db.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN IF OLD.id = 25 THEN RETURN NULL; END IF; RETURN OLD; END$$;"
            "CREATE TRIGGER no BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION no()"
        )

    outcome = (await company.sweep(observer=after_the_first))["logs"]
    assert outcome.outcome != "drained"
    assert await company.ids() == [25, 1001, 1002, 1003]
    assert "Conflict" in quick
    assert outcome.changed == 29
    await company.require_told(logs=29)


async def test_an_account_upgraded_after_the_permit_and_before_the_snapshot_keeps_its_records(company, monkeypatch):
    await company.db.execute("UPDATE logs SET created_at = now() - interval '200 days' WHERE id <= 30")
    reached, go_on = stopped_before(monkeypatch, "_require_unchanged")
    sweep = asyncio.create_task(company.only())
    await reached.wait()
    await company.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 1")
    go_on.set()
    outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert len(await company.ids()) == 33


async def test_a_connection_that_is_lost_before_the_delete_is_a_server_not_reached_and_no_defect(company, monkeypatch):
    """And known to be lost by then: the pool has taken it back already."""
    batches, go_on = [], asyncio.Event()
    whole = QuickBatch._require_unchanged

    async def stopping(self):
        batches.append(self)
        await go_on.wait()
        return await whole(self)

    monkeypatch.setattr(QuickBatch, "_require_unchanged", stopping)
    sweep = asyncio.create_task(company.only())
    async for _ in looks("no batch came to its delete"):
        if batches:
            break
    connection = batches[0].connection
    await company.db.execute("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
    async for _ in looks("the lost connection was not noticed"):
        if connection._con is None:
            break
    go_on.set()
    assert (await sweep).error["kind"] == "unreachable"
    monkeypatch.undo()
    await drained(company)


FENCES = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_a_fence_that_was_lost_while_the_permit_was_asked_for_lets_a_hold_through_and_nothing_else(
    company, monkeypatch
):
    """The worker is stopped between permit and DELETE, its first connection dies, and a hold is placed meanwhile."""
    reached, go_on = stopped_before(monkeypatch, "_require_unchanged")
    async with company.app() as other:
        sweep = asyncio.create_task(company.only())
        await reached.wait()
        await company.db.execute(f"SELECT pg_terminate_backend(pid) FROM ({FENCES}) f")
        hold = await company.hold(other, accounts=("1",))
        assert hold.effective_at is not None
        go_on.set()
        outcome = await sweep
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 30)
    assert len(await company.ids()) == 33
    await company.require_told(logs=0)
    await company.require_settled()


@pytest.mark.parametrize("moment", ["_require_unchanged", "_hand_over", "_require_same_schema", "_deleted"])
async def test_a_hold_waits_for_a_batch_that_is_stopped_anywhere_between_its_permit_and_its_end(
    company, monkeypatch, moment
):
    reached, go_on = stopped_before(monkeypatch, moment)
    async with company.app() as other:
        sweep = asyncio.create_task(company.only())
        await reached.wait()
        placing = asyncio.create_task(company.hold(other, accounts=("1",)))
        await asyncio.sleep(0.5)
        assert not placing.done()
        go_on.set()
        await placing
        left = await company.ids()
        outcome = await sweep
    assert await company.ids() == left
    assert outcome.changed == 33 - len(left) <= 10
    await company.require_told(logs=outcome.changed)


async def test_where_two_connections_cant_share_a_snapshot_the_sweep_goes_carefully(company, quick, monkeypatch):
    monkeypatch.setattr(QuickBatch, "snapshot_sql", "'00000003-00000FFF-1'")
    await drained(company)
    assert set(quick) == {"Conflict"}
    assert len(quick) < 5, "not every batch tries again"


async def test_a_backend_terminated_in_a_quick_delete_takes_the_batch_with_it(company):
    async with open_transaction(company.dsn, "SELECT 1 FROM logs WHERE id = 3 FOR UPDATE"):
        sweep = asyncio.create_task(company.only())
        await waits_for_lock(company.db, "DELETE FROM")
        await company.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND pid <> pg_backend_pid()"
        )
        outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert len(await company.ids()) == 33
    await drained(company)
