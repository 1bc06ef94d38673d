"""`check` shows every drift and every right that is missing, with what mends it; the next look mends what it may."""

import asyncpg
import pytest

from retentiond.control import holds, natives
from retentiond.stores.postgres.native_check import findings
from tests.integration.native.test_activation import activate, placed
from tests.services.native import let_end, refused


@pytest.fixture
async def company(rig):
    await rig.company()
    rig.targets["logs"]["native_holds"] = True
    return rig


async def found(app, name="logs"):
    async with app.database.transaction(read_only=True) as tx:
        known = await holds.list_all(tx)
    return await findings(app.native[name], known)


async def mended(app):
    assert await natives.settle(app.database, app.natives()) == {}
    assert await found(app) == []


async def test_nothing_is_found_where_all_is_in_step(company):
    async with company.app() as app:
        assert await found(app) == []
        hold = await company.hold(app, accounts=("1",))
        await company.hold(app, accounts=("2",))
        assert await found(app) == []
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        assert await let_end(app) == {}
        assert await found(app) == []
        assert app.native["logs"].mended == ()


DRIFT = {
    "disabled": ("ALTER TABLE logs DISABLE TRIGGER {trigger}_delete", "is disabled"),
    "replica": ("ALTER TABLE logs ENABLE REPLICA TRIGGER {trigger}_delete", "is disabled"),
    "dropped": ("DROP TRIGGER {trigger}_update ON logs", "has no trigger"),
    "truncate": ("DROP TRIGGER {trigger}_truncate ON logs", "has no trigger"),
    "function": (
        (
            "CREATE OR REPLACE FUNCTION retentiond_holds.{function}() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RETURN NULL; END'"
        ),
        "was changed",
    ),
    "condition": (
        (
            "CREATE OR REPLACE TRIGGER {trigger}_delete AFTER DELETE ON logs FOR EACH ROW WHEN (false)"
            " EXECUTE FUNCTION retentiond_holds.{function}()"
        ),
        "was changed",
    ),
    "row": ("DELETE FROM retentiond_holds.held", "is not in force"),
    "scope": ("UPDATE retentiond_holds.held SET covers = '{{}}'", "covers other records"),
    "matter": ("UPDATE retentiond_holds.held SET matter = 'other'", "covers other records"),
    "all": ("DROP SCHEMA retentiond_holds CASCADE", "is not in force"),
}


@pytest.mark.parametrize("kind", sorted(DRIFT))
async def test_drift_is_found_and_mended_by_the_next_look(company, kind):
    statement, told = DRIFT[kind]
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        names = app.native["logs"].names
        await company.db.execute(statement.format(trigger=names.trigger, function=names.function))
        listed = await found(app)
        assert told in str(listed)
        assert all(each.severity == "error" and each.subject == "logs" and each.remedy for each in listed)
        await mended(app)
        assert app.native["logs"].mended
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        await refused(company.db, "UPDATE logs SET account_id = 2 WHERE id = 1")
        await refused(company.db, "TRUNCATE logs")


async def test_a_table_that_was_made_anew_under_its_name_is_found_and_mended(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await company.db.execute(
            "CREATE TABLE again (LIKE logs INCLUDING ALL); INSERT INTO again SELECT * FROM logs;"
            " ALTER TABLE logs RENAME TO logs_before; ALTER TABLE again RENAME TO logs"
        )
        assert "has no trigger" in str(await found(app))
        await mended(app)
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        await refused(company.db, "DELETE FROM logs_before WHERE id = 1")


async def test_a_hold_that_the_control_database_does_not_know_is_found_and_its_remedy_ends_it(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        (finding,) = await findings(app.native["logs"], [])
        assert finding.severity == "error"
        assert "does not know it" in finding.message
        await company.db.execute("DELETE FROM retentiond_holds.held" + finding.remedy.partition("held")[2])
        assert await app.native["logs"].settle([]) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_a_released_hold_that_is_still_in_force_there_is_found(company):
    async with company.app() as app:
        hold = await company.hold(app, accounts=("1",))
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        await holds.finish_releases(app.database)
        (finding,) = await found(app)
        assert finding.severity == "warning"
        assert "is released" in finding.message
        await mended(app)


async def test_what_is_left_when_it_was_turned_off_is_found_and_its_remedy_takes_it_away(company):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
    company.targets["logs"]["native_holds"] = False
    async with company.app() as app:
        (finding,) = await found(app)
        assert finding.severity == "warning"
        await company.db.execute(finding.remedy)
        assert await found(app) == []
        await company.db.execute("DELETE FROM logs WHERE id = 1")


USUAL = ("GRANT SELECT, DELETE, UPDATE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")


async def test_rights_that_are_missing_are_found_keep_the_hold_pending_and_can_be_pasted(company, limited):
    control = company.control
    dsn = await limited(*USUAL)
    company.control = control
    async with company.app() as app:
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert active == []
        assert "CREATE SCHEMA retentiond_holds" in why[hold.id][0].detail
        listed = await found(app)
        rights = [each for each in listed if "may not" in each.message]
        assert len(rights) == 2
        for each in rights:
            await company.db.execute(each.remedy)
        active, why = await activate(app)
        assert active == [hold.id], why
        application = await asyncpg.connect(dsn)
        try:
            await refused(application, "DELETE FROM logs WHERE id = 1")
            await application.execute("DELETE FROM logs WHERE id < 1")
        finally:
            await application.close()
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        assert await let_end(app) == {}
        await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_a_second_role_is_told_how_to_use_the_schema_of_the_first(company, limited):
    async with company.app() as app:
        await company.hold(app, accounts=("1",))
        await company.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    logs = company.targets.pop("logs")
    company.target("others", native_holds=True)
    await limited("GRANT SELECT, DELETE, TRIGGER ON others TO {role}", "GRANT SELECT ON accounts TO {role}")
    company.targets["logs"] = logs
    async with company.app(enter=False) as app:
        hold = await placed(app, accounts=("2",))
        active, why = await activate(app)
        assert active == []
        assert why[hold.id][0].target == "others"
        listed = [each for each in await found(app, "others") if "may not" in each.message]
        for each in listed:
            await company.db.execute(each.remedy)
        assert (await activate(app))[0] == [hold.id]
