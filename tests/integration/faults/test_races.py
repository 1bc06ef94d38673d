"""What the application does to the rows of a batch, and operators to a sweep, while it is under way."""

import asyncio

import pytest

from retentiond.control import approvals, flags, policies
from retentiond.sweep.events import BatchDone
from tests.services.gates import end_when_waited_for, gate, open_transaction


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


BEFORE_EACH = "BEFORE DELETE ON logs FOR EACH ROW"


async def gone(rig, had):
    return had - await rig.db.fetchval("SELECT count(*) FROM logs")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE logs SET created_at = now() WHERE id = 3",
        "UPDATE logs SET created_at = NULL WHERE id = 3",
        "UPDATE logs SET created_at = 'infinity' WHERE id = 3",
        "UPDATE logs SET account_id = 3 WHERE id = 3",
        "UPDATE logs SET created_at = now(), id = 30 WHERE id = 3",
    ],
)
async def test_a_row_refreshed_between_its_selection_and_its_deletion_stays(either, change):
    rig = either
    await rig.company()
    await rig.db.execute("UPDATE logs SET created_at = now() - interval '200 days' WHERE id = 3")
    async with open_transaction(rig.dsn, change) as refreshing:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(refreshing, rig.db, sweep)
    assert await rig.ids() == sorted([30 if "30" in change else 3, 1001, 1002, 1003])
    assert (outcome.changed, outcome.failed) == (4, 0)
    await rig.require_told(logs=4)


async def test_a_row_deleted_by_the_application_meanwhile_is_not_counted(either):
    rig = either
    await rig.company()
    async with open_transaction(rig.dsn, "DELETE FROM logs WHERE id = 3") as deleting:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(deleting, rig.db, sweep)
    assert await rig.ids() == [1001, 1002, 1003]
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 4, 0)
    await rig.require_told(logs=4)


async def test_a_change_that_is_rolled_back_does_not_save_its_row(either):
    rig = either
    await rig.company()
    async with open_transaction(rig.dsn, "UPDATE logs SET created_at = now() WHERE id = 3") as refreshing:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(refreshing, rig.db, sweep, "ROLLBACK")
    assert await rig.ids() == [1001, 1002, 1003]
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    await rig.require_told(logs=5)


@pytest.mark.parametrize("lock", ["FOR UPDATE", "FOR NO KEY UPDATE", "FOR SHARE", "FOR KEY SHARE"])
async def test_a_row_locked_by_the_application_is_passed_over_and_never_called_drained(either, lock):
    rig = either
    await rig.company()
    async with open_transaction(rig.dsn, f"SELECT 1 FROM logs WHERE id IN (2, 4) {lock}"):
        outcome = await rig.only()
        assert outcome.outcome == "capped"
        assert (outcome.changed, outcome.locked, outcome.failed) == (3, 2, 0)
        assert "locked" in outcome.error["message"]
        assert await rig.ids() == [2, 4, 1001, 1002, 1003]
        await rig.require_told(logs=3)
    again = await rig.only()
    assert (again.outcome, again.changed) == ("drained", 2)
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=5)


async def test_a_row_whose_lock_is_let_go_is_taken_by_the_same_sweep(either):
    rig = either
    await rig.company()
    async with open_transaction(rig.dsn, "SELECT 1 FROM logs WHERE id = 2 FOR UPDATE") as locking:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(locking, rig.db, sweep, "ROLLBACK")
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    await rig.require_told(logs=5)


async def test_an_account_upgraded_while_the_transaction_of_the_batch_is_open_keeps_its_rows(apart):
    """The transaction is open before the permit is asked for: here an upgrade comes between the two."""
    rig = apart
    await rig.company()
    await rig.db.execute("UPDATE logs SET created_at = now() - interval '200 days' WHERE id <= 5")
    await rig.sweep(mode="plan")
    async with gate(rig.control, "BEFORE INSERT ON retentiond.permits FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        await rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 1")
        await stop.open()
        outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0)


async def test_an_account_moved_to_a_longer_term_in_the_middle_of_a_sweep_loses_nothing_more(rig):
    await rig.company(due=60)
    await rig.db.execute("UPDATE logs SET created_at = created_at + interval '200 days' WHERE id <= 60")
    async with gate(rig.dsn, BEFORE_EACH) as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        await rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 1")
        await stop.open()
        outcome = await sweep
    left = await rig.db.fetchval("SELECT count(*) FROM logs")
    assert left >= 53, "only the batch that had begun may go"
    assert outcome.changed == 63 - left
    await rig.require_told(logs=63 - left)


async def test_an_account_held_in_the_middle_of_a_sweep_loses_nothing_from_the_effective_instant_on(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, BEFORE_EACH) as stop, rig.app() as other:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        placing = asyncio.create_task(rig.hold(other, accounts=("1",)))
        while not await rig.db.fetchval("SELECT count(*) FROM retentiond.holds"):
            await asyncio.sleep(0.02)
        assert await rig.db.fetchval("SELECT effective_at FROM retentiond.holds") is None
        await stop.open()
        hold = await placing
        at_activation = await rig.ids()
        outcome = await sweep
    assert hold.effective_at is not None
    assert await rig.ids() == at_activation
    assert len(at_activation) >= 53
    assert (outcome.changed, outcome.held) == (63 - len(at_activation), len(at_activation) - 3)
    await rig.require_told(logs=63 - len(at_activation))


async def test_a_pause_stops_a_sweep_before_its_next_batch(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, BEFORE_EACH) as stop, rig.app() as other:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        async with other.database.transaction() as tx:
            await flags.pause(tx, "test", "look")
        await stop.open()
        outcome = await sweep
        assert outcome.outcome == "paused"
        assert outcome.changed == await gone(rig, 63) <= 10
        await rig.require_told(logs=outcome.changed)
        async with other.database.transaction() as tx:
            await flags.resume(tx)
    assert (await rig.only()).outcome == "drained"
    await rig.require_told(logs=60)


async def test_a_policy_approved_in_the_middle_of_a_sweep_stops_the_one_with_the_old_one(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, BEFORE_EACH) as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        rig.policy = {"classes": {"operational_logs": {"ttl": {"free": "P7Y"}}}}
        async with rig.app(enter=False) as other, other.database.transaction() as tx:
            await policies.adopt(tx, other.spec.digest, other.document, "test")
        await stop.open()
        outcome = await sweep
    assert outcome.outcome == "guarded"
    assert outcome.changed == await gone(rig, 63) <= 10
    assert (await rig.only()).changed == 0
    await rig.require_told(logs=outcome.changed)


async def test_a_mode_set_to_plan_in_the_middle_of_a_sweep_stops_it(rig):
    await rig.company(due=60)
    async with gate(rig.dsn, BEFORE_EACH) as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        async with rig.app(mode="plan"):
            await stop.open()
            outcome = await sweep
    assert outcome.outcome == "paused"
    assert outcome.changed == await gone(rig, 63) <= 10
    await rig.require_told(logs=outcome.changed)


async def test_what_becomes_due_after_an_approval_is_not_covered_by_it(rig):
    await rig.company(due=60)
    rig.guards = {"max_fraction": 0.25, "min_records": 10}
    assert (await rig.only()).outcome == "guarded"
    async with rig.app() as app, app.database.transaction() as tx:
        await approvals.grant(tx, "sweep", "logs", app.spec.digest, 60, "test")
    async with gate(rig.dsn, BEFORE_EACH) as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        await rig.db.execute(
            "INSERT INTO logs SELECT 2000 + i, 1, now() - interval '399 days' FROM generate_series(1, 50) i"
        )
        await stop.open()
        outcome = await sweep
    assert outcome.changed <= 60
    assert outcome.outcome != "drained"
    await rig.require_told(logs=outcome.changed)


async def test_two_sweepers_of_one_target_erase_each_record_once(rig):
    await rig.company(due=60)
    first, second = await asyncio.gather(rig.only(), rig.only())
    assert {first.outcome, second.outcome} == {"drained"}
    assert first.changed + second.changed == 60
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=60)


async def test_a_sweep_under_steady_traffic_takes_the_due_rows_and_no_other(rig):
    await rig.company(due=200)
    over = asyncio.Event()

    async def traffic():
        number = 5000
        while not over.is_set():
            number += 1
            await rig.db.execute("INSERT INTO logs VALUES ($1, 1, now())", number)
            await rig.db.execute("UPDATE logs SET created_at = now() WHERE id = $1", 1 + number * 7 % 200)
        return number - 5000

    batches = []
    busy = asyncio.create_task(traffic())
    outcome = await rig.only(observer=lambda event: batches.append(event) if isinstance(event, BatchDone) else None)
    over.set()
    added = await busy
    assert (await rig.only()).outcome == "drained"
    young = await rig.db.fetchval("SELECT count(*) FROM logs WHERE created_at > now() - interval '30 days'")
    assert young == len(await rig.ids())
    told = 203 + added - young
    assert outcome.changed <= told
    await rig.require_told(logs=told)
