"""With `native_holds` the database itself refuses to lose what a hold covers, whoever asks, and nothing else."""

import io

import asyncpg
import pytest

from retentiond.control import holds
from retentiond.domain.holds import HoldState
from tests.services.native import HELD, let_end, refused

CHILDREN = """
CREATE TABLE people (id bigint PRIMARY KEY);
INSERT INTO people VALUES (1), (2);
CREATE TABLE logs (id bigint PRIMARY KEY, person bigint REFERENCES people ON DELETE {action} ON UPDATE CASCADE,
                   account_id bigint, created_at timestamptz, ip text);
INSERT INTO logs SELECT i, 1 + i % 2, 1 + i % 2, now(), '10.0.0.1' FROM generate_series(1, 10) i;
"""


@pytest.fixture
async def company(rig):
    """Records of accounts 1 (due and young) and 2 (ids 2001 to 2003)."""
    await rig.company()
    await rig.db.execute("INSERT INTO logs SELECT 2000 + i, 2, now(), '10.0.0.9' FROM generate_series(1, 3) i")
    rig.targets["logs"]["native_holds"] = True
    return rig


async def test_a_held_record_can_not_be_deleted_by_anyone_and_the_error_names_the_matter(company):
    async with company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        error = await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert error.sqlstate == HELD
        assert "legal hold" in str(error)
        assert "matter m" in str(error)
        assert f"retentiond hold release {hold.id}" in error.hint
        assert hold.id in error.detail
        assert (error.schema_name, error.table_name) == ("public", "logs")
        assert await company.db.execute("DELETE FROM logs WHERE account_id = 2") == "DELETE 3"


async def test_the_reason_of_a_hold_is_nowhere_in_the_target(company):
    async with company.app() as app:
        draft = holds.HoldDraft(matter="m", reason="secret-reason", scope=holds_scope(accounts=("1",)))
        await holds.place(app.database, draft, "test")
        await company.hold(app, accounts=("2",))
    found = await company.db.fetchval(
        "SELECT string_agg(prosrc, '') || (SELECT string_agg(h::text, '') FROM retentiond_holds.held h) FROM pg_proc"
        " WHERE pronamespace = 'retentiond_holds'::regnamespace"
    )
    assert "secret-reason" not in found


def holds_scope(**scope):
    from retentiond.domain.holds import Scope

    return Scope(**scope)


async def test_truncate_is_refused_while_a_hold_covers_the_table(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        error = await refused(company.db, "TRUNCATE logs")
        assert "TRUNCATE on public.logs" in str(error)
        await company.db.execute("CREATE TABLE parents (id bigint PRIMARY KEY)")
        await company.db.execute("ALTER TABLE logs ADD parent bigint REFERENCES parents")
        await refused(company.db, "TRUNCATE parents CASCADE")


async def test_inserts_copies_and_updates_that_lose_nothing_go_on(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        db = company.db
        await db.execute("INSERT INTO logs VALUES (5000, 1, now(), 'x')")
        await db.copy_to_table("logs", source=io.BytesIO(b"5001\t1\t2020-01-01 00:00:00+00\ty\n"))
        await db.execute("UPDATE logs SET ip = 'z' WHERE account_id = 1")
        await db.execute("INSERT INTO logs VALUES (5000, 1, now(), 'w') ON CONFLICT (id) DO UPDATE SET ip = 'w'")
        await db.execute("UPDATE logs SET created_at = now() WHERE id = 1")
        await refused(db, "DELETE FROM logs WHERE id = 5001")


async def test_an_update_that_moves_a_record_out_from_under_the_hold_is_refused(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await refused(company.db, "UPDATE logs SET account_id = 2 WHERE id = 1")
        await refused(company.db, "UPDATE logs SET account_id = NULL WHERE id = 1")
        assert await company.db.execute("UPDATE logs SET account_id = 1 WHERE account_id = 2") == "UPDATE 3"


async def test_a_hold_on_records_keeps_their_keys_and_one_on_a_range_their_anchors(company):
    async with company.app() as app:
        await company.hold(app, records={"logs": ("0003",)})
        await refused(company.db, "UPDATE logs SET id = 3003 WHERE id = 3")
        await company.db.execute("UPDATE logs SET id = 4004 WHERE id = 4")
        until = await company.db.fetchval("SELECT now() - interval '30 days'")
        await company.hold(app, until=until)
        await company.db.execute("UPDATE logs SET created_at = created_at - interval '1 day' WHERE id = 1")
        await refused(company.db, "UPDATE logs SET created_at = now() WHERE id = 1")
        await refused(company.db, "DELETE FROM logs WHERE id = 4004")
        await company.db.execute("DELETE FROM logs WHERE id = 1001")


async def test_what_another_trigger_makes_of_an_update_is_judged_as_it_comes_out(company):
    await company.db.execute(
        "CREATE FUNCTION zz() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.account_id := NULL; RETURN NEW; END $$;"
        "CREATE TRIGGER zz BEFORE UPDATE ON logs FOR EACH ROW EXECUTE FUNCTION zz()"
    )
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await refused(company.db, "UPDATE logs SET ip = 'only this' WHERE id = 1")


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
async def test_a_cascade_is_refused_where_it_reaches_a_held_record(rig, action):
    await rig.db.execute(CHILDREN.format(action=action))
    rig.accounts = None
    rig.target("logs", native_holds=True, account="person")
    async with rig.app() as app:
        await rig.hold(app, accounts=("1",))
        await refused(rig.db, "DELETE FROM people WHERE id = 1")
        await refused(rig.db, "UPDATE people SET id = 7 WHERE id = 1")
        assert await rig.db.fetchval("SELECT count(*) FROM logs WHERE person = 1") == 5
        await rig.db.execute("DELETE FROM people WHERE id = 2")
        assert await rig.db.fetchval("SELECT count(*) FROM logs WHERE person = 2") == 0


async def test_an_anonymising_update_of_a_held_record_is_refused(company):
    company.targets["logs"] |= {"action": "anonymise", "anonymise": {"columns": {"ip": None}, "marker": "done"}}
    await company.db.execute("ALTER TABLE logs ADD done boolean, ADD note text")
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await refused(company.db, "UPDATE logs SET ip = NULL WHERE id = 1")
        await refused(company.db, "UPDATE logs SET done = true WHERE id = 1")
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        await company.db.execute("UPDATE logs SET note = 'seen', ip = ip WHERE id = 1")
        await company.db.execute("UPDATE logs SET ip = NULL WHERE account_id = 2")


async def test_an_application_without_any_right_on_our_schema_is_refused_as_clearly(company):
    await company.db.execute("CREATE ROLE shop_app LOGIN; GRANT SELECT, DELETE ON logs TO shop_app")
    try:
        async with company.app() as app:
            await company.hold(app, accounts=("1",))
            await company.db.execute("SET ROLE shop_app")
            error = await refused(company.db, "DELETE FROM logs WHERE id = 1")
            assert error.sqlstate == HELD
            for table in ("held", "installed"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await company.db.execute(f"DELETE FROM retentiond_holds.{table}")
            await company.db.execute("DELETE FROM logs WHERE id = 2001; RESET ROLE")
    finally:
        await company.db.execute("RESET ROLE; DROP OWNED BY shop_app; DROP ROLE shop_app")


async def test_a_matter_may_have_any_characters(company):
    matter = 'o\'Neil \\ $$ % {0} "x" v. \n Ünal'
    async with company.app() as app:
        draft = holds.HoldDraft(matter=matter, reason="r", scope=holds_scope(records={"logs": ("1", "it's \\ 'q'")}))
        await holds.place(app.database, draft, "test")
        await company.hold(app, accounts=("2",))
        await holds.activate_pending(app.database, app.fences(), native=app.natives())
        assert matter in str(await refused(company.db, "DELETE FROM logs WHERE id = 1"))


async def test_our_own_sweep_goes_as_quickly_as_without_and_takes_what_is_not_held(apart):
    """The trigger counts neither as a veto nor as a change of the table."""
    await apart.company(due=50)
    apart.targets["logs"]["native_holds"] = True
    async with apart.app() as app:
        await apart.hold(app, records={"logs": ("7", "8")})
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        assert not store.may_veto
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 48, 0), outcome.error
    assert await apart.ids() == [7, 8, 1001, 1002, 1003]


async def test_a_released_hold_is_in_force_until_its_grace_is_over_and_then_gone(company):
    async with company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=3600)
        await let_end(app)
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        await holds.reinstate(app.database, hold.id, "test", "appeal")
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert await let_end(app) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")
        await company.db.execute("TRUNCATE logs")
        assert await company.db.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'retentiond%'") == 0
        assert await company.db.fetchval("SELECT count(*) FROM retentiond_holds.held") == 0


async def test_the_end_of_one_hold_leaves_another_one_in_force(company):
    async with company.app() as app:
        first = await company.hold(app, accounts=("1",))
        await company.hold(app, accounts=("2",))
        await holds.release(app.database, first.id, "test", "over", grace_seconds=0)
        assert await let_end(app) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")
        error = await refused(company.db, "DELETE FROM logs WHERE id = 2001")
        assert first.id not in error.detail


async def test_a_record_under_several_holds_is_refused_in_the_name_of_each(company):
    async with company.app() as app:
        found = [await company.hold(app, accounts=("1",)), await company.hold(app, records={"logs": ("1",)})]
        error = await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert all(hold.id in error.detail for hold in found)


async def test_a_hold_of_ten_thousand_records_keeps_just_those(company):
    await company.db.execute("INSERT INTO logs SELECT i, 3, now(), '' FROM generate_series(10001, 20002) i")
    async with company.app() as app:
        await company.hold(app, records={"logs": tuple(map(str, range(10001, 20001)))})
        assert await company.db.execute("DELETE FROM logs WHERE id > 20000") == "DELETE 2"
        await refused(company.db, "DELETE FROM logs WHERE id = 15000")


async def test_a_transaction_with_an_old_snapshot_is_refused_too(company):
    """Under REPEATABLE READ it sees no row that was written since; the hold is in code, which it runs as it is now."""
    async with company.app() as app:
        await company.hold(app, accounts=("2",))
        old = await asyncpg.connect(company.dsn)
        try:
            await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM logs")
            active = await company.hold(app, accounts=("1",))
            assert active.state is HoldState.ACTIVE
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await old.execute("DELETE FROM logs WHERE id = 1")
            assert refusal.value.sqlstate == HELD
        finally:
            await old.close()


async def test_a_prepared_statement_from_before_the_hold_is_refused_too(company):
    statement = await company.db.prepare("DELETE FROM logs WHERE id = $1")
    await statement.fetch(2)
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await statement.fetch(3)
        assert refusal.value.sqlstate == HELD


async def test_our_own_anonymising_leaves_what_is_held_and_does_the_rest(company):
    company.targets["logs"] |= {"action": "anonymise", "anonymise": {"columns": {"ip": None}}}
    async with company.app() as app:
        await company.hold(app, records={"logs": ("3",)})
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 4, 0), outcome.error
    assert await company.db.fetchval("SELECT array_agg(id) FROM logs WHERE id < 1000 AND ip IS NOT NULL") == [3]
