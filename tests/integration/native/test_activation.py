"""A hold becomes active only when the targets' own databases keep it: whatever comes between, no promise is broken."""

import asyncio

import asyncpg
import pytest

from retentiond.control import holds, natives
from retentiond.domain.holds import HoldState, Scope
from retentiond.errors import Unreachable
from retentiond.stores.postgres import native as native_module
from tests.services.gates import gate, open_transaction, waits_for_lock
from tests.services.native import HELD, let_end, refused


@pytest.fixture
async def company(rig):
    await rig.company()
    rig.targets["logs"]["native_holds"] = True
    return rig


async def placed(app, **scope):
    draft = holds.HoldDraft(matter="m", reason="r", scope=Scope(**scope))
    return await holds.place(app.database, draft, "test", record=app.hold_recorder("test"))


async def activate(app):
    """One try of what a daemon or a command does again and again; the holds it made active, and why others wait."""
    why = {}
    active = await holds.activate_pending(
        app.database,
        app.fences(),
        lambda hold, reasons: why.update({hold.id: list(reasons)}),
        native=app.natives(),
        record=app.hold_recorder("test"),
    )
    return [hold.id for hold in active], why


async def until_active(app, hold):
    for _ in range(1200):
        await activate(app)
        async with app.database.transaction(read_only=True) as tx:
            found = await holds.get(tx, hold.id)
        if found.state is HoldState.ACTIVE:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"hold {hold.id} is still {found.state}")


@pytest.mark.parametrize(("end", "left"), [("COMMIT", False), ("ROLLBACK", True)])
async def test_a_delete_that_began_before_the_trigger_is_over_before_the_hold_is_active(company, end, left):
    async with company.app() as app, open_transaction(company.dsn, "DELETE FROM logs WHERE id = 1") as other:
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert active == []
        (reason,) = why[hold.id]
        assert (reason.why, reason.target) == ("native", "logs")
        assert str(other.get_server_pid()) in reason.detail
        await other.execute("DELETE FROM logs WHERE id = 2")
        await other.execute(end)
        await until_active(app, hold)
        assert (1 in await company.ids()) is left
        await refused(company.db, "DELETE FROM logs WHERE id = 3")


async def test_a_delete_that_comes_while_the_trigger_waits_is_refused_and_none_slips_by(company):
    """It queues behind the trigger, which waits for one from before; when it goes on, the trigger is there."""
    async with company.app() as app, open_transaction(company.dsn, "DELETE FROM logs WHERE id = 1") as first:
        hold = await placed(app, accounts=("1",))
        activating = asyncio.create_task(activate(app))
        await waits_for_lock(company.db, "CREATE OR REPLACE TRIGGER")
        second = await asyncpg.connect(company.dsn)
        deleting = asyncio.create_task(second.execute("DELETE FROM logs WHERE id = 2"))
        await waits_for_lock(company.db, "DELETE FROM logs WHERE id = 2")
        await first.execute("COMMIT")
        active, _ = await activating
        if active == [hold.id]:
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await deleting
            assert refusal.value.sqlstate == HELD
        else:  # the wait was given up just before: then nothing was promised yet
            await deleting
        await second.close()


async def test_writers_are_not_kept_waiting_for_long_and_not_again_at_once(company):
    async with company.app() as app, open_transaction(company.dsn, "DELETE FROM logs WHERE id = 1"):
        await placed(app, accounts=("1",))
        await activate(app)
        await company.db.execute("INSERT INTO logs VALUES (9, 1, now(), '')")
        native = app.native["logs"]
        native._not_before += 3600
        _, why = await activate(app)  # comes back at once, and says the same
        assert "write to public.logs" in str(why)


async def test_a_crash_between_the_trigger_and_the_activation_is_made_good_by_anyone(company):
    async with company.app() as app:
        hold = await placed(app, accounts=("1",))
        await natives.settle(app.database, app.natives())
    await refused(company.db, "DELETE FROM logs WHERE id = 1")
    async with company.app() as another:
        active, _ = await activate(another)
        assert active == [hold.id]
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_a_connection_that_dies_while_the_trigger_is_made_leaves_nothing_and_the_hold_pending(company):
    async with company.app() as app, open_transaction(company.dsn, "DELETE FROM logs WHERE id = 1") as other:
        hold = await placed(app, accounts=("1",))
        activating = asyncio.create_task(activate(app))
        await waits_for_lock(company.db, "CREATE OR REPLACE TRIGGER")
        await company.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE OR REPLACE TRIGGER%'"
            " AND pid <> pg_backend_pid()"
        )
        active, why = await activating
        assert (active, why[hold.id][0].why) == ([], "native")
        assert await company.db.fetchval("SELECT to_regnamespace('retentiond_holds')") is None
        await other.execute("ROLLBACK")
        await until_active(app, hold)


async def test_several_may_activate_at_once_and_one_does(company):
    async with company.app() as one, company.app() as two, company.app() as three:
        hold = await placed(one, accounts=("1",))
        found = await asyncio.gather(*(activate(app) for app in (one, two, three)))
        await until_active(one, hold)
        assert [hold.id for active, _ in found for _ in active] in ([], [hold.id])
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
    events = [e["event"] for e in await company.ledger() if e["kind"] == "hold"]
    assert events == ["placed", "activated"]


async def test_an_older_view_of_the_holds_takes_none_away(company):
    """A daemon that read the holds before another one was placed, was stopped, and comes back."""
    async with company.app() as slow, company.app() as app:
        async with slow.database.transaction(read_only=True) as tx:
            before = await holds.list_all(tx)
        await company.hold(app, accounts=("1",))
        assert await slow.native["logs"].settle(before) == {}
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_an_older_view_that_brings_a_released_hold_back_is_put_right_by_the_next_look(company):
    async with company.app() as slow, company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        async with slow.database.transaction(read_only=True) as tx:
            before = await holds.list_all(tx)
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        assert await let_end(app) == {}
        await slow.native["logs"].settle(before)
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert await natives.settle(app.database, app.natives()) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_a_hold_that_the_control_database_has_lost_is_kept(company):
    async with company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        assert await app.native["logs"].settle([]) == {}
        error = await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert hold.id in error.detail


async def test_a_target_that_can_not_be_reached_keeps_the_hold_pending_and_others_not(apart, postgres_server):
    await apart.company()
    await apart.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    apart.targets["logs"]["native_holds"] = True
    apart.target("others", native_holds=True, dsn=postgres_server.dsn("no_such_database"))
    async with apart.app() as app:
        here, there = await placed(app, targets=("logs",)), await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert active == [here.id]
        (reason,) = why[there.id]
        assert (reason.why, reason.target) == ("native", "others")
        assert "no_such_database" in reason.detail
        await refused(apart.db, "DELETE FROM logs WHERE id = 1")


async def test_holds_from_before_it_was_turned_on_are_put_in_force_by_the_next_look(company):
    company.targets["logs"]["native_holds"] = False
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await company.db.execute("UPDATE logs SET ip = ip WHERE id = 1")
        assert await company.db.fetchval("SELECT to_regnamespace('retentiond_holds')") is None
    company.targets["logs"]["native_holds"] = True
    async with company.app() as app:
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_turning_it_on_needs_no_approval_of_the_policy(company):
    company.targets["logs"]["native_holds"] = False
    async with company.app() as app:
        before = app.spec.digest
    company.targets["logs"]["native_holds"] = True
    async with company.app() as app:
        assert app.spec.digest == before


async def test_a_batch_of_ours_that_is_under_way_ends_before_the_hold_is_active(apart):
    """It deletes, and is stopped; the hold waits for it, in the target as in the control database."""
    await apart.company(due=3)
    apart.targets["logs"]["native_holds"] = True
    async with apart.app() as app, gate(apart.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        await app.engine.open(app.spec.target("logs"))
        sweeping = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await stop.reached()
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert active == []
        assert {reason.why for reason in why[hold.id]} == {"batch", "native"}
        await stop.open()
        outcome = await sweeping
        await until_active(app, hold)
        assert outcome.changed == 3
        await refused(apart.db, "DELETE FROM logs WHERE id = 1001")


async def test_two_control_databases_keep_their_holds_on_one_table_apart(company, postgres_server):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        other = "c_" + company.dsn.rsplit("t_", 1)[1]
        await company.db.execute(f'CREATE DATABASE "{other}"')
        company.control, state = postgres_server.dsn(other), company.state
        company.state = state / "other"
        try:
            async with company.app() as second:
                hold = await company.hold(second, records={"logs": ("1001",)})
                await holds.release(second.database, hold.id, "test", "over", grace_seconds=0)
                assert await let_end(second) == {}
        finally:
            await company.db.execute(f'DROP DATABASE "{other}" WITH (FORCE)')
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_a_process_that_stops_while_it_has_the_table_locked_does_not_keep_writers_for_good(company, monkeypatch):
    """The server ends its transaction; nothing of it stands, and the hold is made active by another one."""
    made, stopped = native_module._make, asyncio.Event()

    async def stop(*given):
        await made(*given)
        stopped.set()
        await asyncio.Event().wait()

    async with company.app() as app:
        hold = await placed(app, accounts=("1",))
        monkeypatch.setattr(native_module, "_make", stop)
        activating = asyncio.create_task(activate(app))
        await stopped.wait()
        await company.db.execute("DELETE FROM logs WHERE id = 1")  # waits until the server has ended it
        monkeypatch.setattr(native_module, "_make", made)
        assert await company.db.fetchval("SELECT to_regnamespace('retentiond_holds')") is None
        activating.cancel()
        await asyncio.gather(activating, return_exceptions=True)
        await until_active(app, hold)
        await refused(company.db, "DELETE FROM logs WHERE id = 2")


async def test_a_commit_whose_answer_never_came_is_found_done(company, monkeypatch):
    """The trigger is there, and the process does not know: the hold is pending until somebody looks."""
    async with company.app() as app:
        hold = await placed(app, accounts=("1",))
        native = app.native["logs"]
        settled = type(native)._settle

        async def unanswered(self, known):
            await settled(self, known)
            raise Unreachable("target logs: the connection was lost")

        monkeypatch.setattr(type(native), "_settle", unanswered)
        active, why = await activate(app)
        assert (active, why[hold.id][0].why) == ([], "native")
        monkeypatch.setattr(type(native), "_settle", settled)
        assert (await activate(app))[0] == [hold.id]
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_a_release_waits_for_who_reads_the_table_and_is_carried_on(company):
    async with company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        async with open_transaction(company.dsn, "SELECT count(*) FROM logs") as reader:
            await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
            missing = await let_end(app)
            assert f"backends {reader.get_server_pid()} have transactions open that use" in missing["logs"][hold.id]
            await refused(company.db, "DELETE FROM logs WHERE id = 1")
            await reader.execute("COMMIT")
        app.native["logs"]._not_before = 0.0
        assert await natives.settle(app.database, app.natives()) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")
