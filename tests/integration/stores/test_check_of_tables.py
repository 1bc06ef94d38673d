"""What `check` finds about a target's table, and that its remedies are SQL that mends it."""

from contextlib import asynccontextmanager

import asyncpg
import pytest

from retentiond.stores.postgres.config import AccountsConfig, PostgresTarget
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.store import PostgresStore
from tests.services.postgres import limited_role

LOGS = """
CREATE TABLE logs (id int PRIMARY KEY, account bigint NOT NULL, at timestamptz);
CREATE INDEX ON logs (at); CREATE INDEX ON logs (account);
"""


@pytest.fixture
async def admin(database):
    found = await asyncpg.connect(database)
    yield found
    await found.close()


@asynccontextmanager
async def opened(dsn, directory=None, **more):
    action = more.pop("action", "delete")
    config = {"store": "postgres", "class": "logs", "dsn": dsn, "table": "logs", "anchor": "at", "account": "account"}
    store = PostgresStore("logs", PostgresTarget.model_validate(config | more), action=action, space="t", secret=b"k")
    try:
        await store.open(directory)
        yield store
    finally:
        await store.close()
        if directory is not None:
            await directory.close()


async def findings(dsn, directory=None, **more):
    async with opened(dsn, directory, **more) as store:
        return [each for each in await store.check() if "pace.health" not in each.message]


async def test_a_sound_table_has_no_findings(admin, database):
    await admin.execute(LOGS)
    assert await findings(database) == []


@pytest.mark.parametrize(
    ("grants", "severity", "said"),
    [
        ("SELECT, UPDATE", "error", "may not DELETE"),
        ("SELECT, DELETE", "warning", "FOR UPDATE"),
    ],
)
async def test_a_missing_grant_is_found_and_its_remedy_gives_it(admin, database, grants, severity, said):
    await admin.execute(LOGS)
    async with limited_role(
        database, "GRANT USAGE ON SCHEMA public TO {role}", f"GRANT {grants} ON logs TO {{role}}"
    ) as dsn:
        (found,) = await findings(dsn)
        assert (found.severity, said in found.message) == (severity, True)
        await admin.execute(found.remedy)
        assert await findings(dsn) == []


async def test_without_update_a_table_with_children_is_an_error_and_so_is_an_unreadable_child(admin, database):
    await admin.execute(
        LOGS + "CREATE TABLE parts (id int PRIMARY KEY, log int REFERENCES logs); CREATE INDEX ON parts (log)"
    )
    async with limited_role(database, "GRANT SELECT, DELETE ON logs TO {role}") as dsn:
        found = await findings(dsn)
        assert {each.severity for each in found} == {"error"}
        assert any("FOR UPDATE" in each.message for each in found)
        assert any("may not SELECT" in each.message for each in found)
        for each in found:
            await admin.execute(each.remedy)
        assert await findings(dsn) == []


async def test_row_level_security_that_hides_rows_is_an_error(admin, database):
    await admin.execute(LOGS + "ALTER TABLE logs ENABLE ROW LEVEL SECURITY")
    async with limited_role(database, "GRANT SELECT, UPDATE, DELETE ON logs TO {role}") as dsn:
        (found,) = await findings(dsn)
        assert "row level security" in found.message
        await admin.execute(found.remedy)
        assert await findings(dsn) == []


async def test_a_role_whose_transactions_are_read_only_is_an_error(admin, database):
    await admin.execute(LOGS)
    async with limited_role(
        database,
        "GRANT SELECT, UPDATE, DELETE ON logs TO {role}",
        "ALTER ROLE {role} SET default_transaction_read_only = on",
    ) as dsn:
        (found,) = await findings(dsn)
        assert "read-only" in found.message
        await admin.execute(found.remedy)
        assert await findings(dsn) == []


async def test_a_missing_index_is_a_warning_that_names_the_partial_one_which_does_not_serve(admin, database):
    await admin.execute("CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    await admin.execute("CREATE INDEX half ON logs (at) WHERE account IS NOT NULL; CREATE INDEX ON logs (account)")
    (found,) = await findings(database)
    assert (found.severity, "only the partial half" in found.message) == ("warning", True)
    await admin.execute(found.remedy)
    assert await findings(database) == []


async def test_an_invalid_index_is_a_warning(admin, database):
    await admin.execute(LOGS + "INSERT INTO logs VALUES (1, 1), (2, 1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON logs (account)")
    (found,) = await findings(database)
    assert (found.severity, "broken is not valid" in found.message) == ("warning", True)
    await admin.execute("DELETE FROM logs")
    await admin.execute(found.remedy)
    assert await findings(database) == []


async def test_a_cascade_and_an_unindexed_child_are_warnings_whose_remedies_mend_them(admin, database):
    await admin.execute(LOGS + 'CREATE TABLE "P" (id int PRIMARY KEY, "Log" int REFERENCES logs ON DELETE CASCADE)')
    found = await findings(database)
    assert {each.severity for each in found} == {"warning"}
    assert len(found) == 2
    for each in found:
        await admin.execute(each.remedy)
    assert await findings(database) == []


async def test_a_table_that_others_inherit_from_is_warned_of(admin, database):
    await admin.execute(LOGS + "CREATE TABLE older () INHERITS (logs)")
    (found,) = await findings(database)
    assert (found.severity, "inherit" in found.message) == ("warning", True)


async def test_partitions_are_no_inheritance(admin, database):
    await admin.execute(
        "CREATE TABLE logs (id int, account bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE one PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');"
        "CREATE INDEX ON logs (at); CREATE INDEX ON logs (account)"
    )
    assert await findings(database) == []


async def test_the_remedies_of_partitioned_tables_are_such_as_they_can_take(admin, database):
    await admin.execute(
        "CREATE TABLE logs (id int, account bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        "CREATE TABLE one PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');"
        "CREATE TABLE lines (log int, at timestamptz, FOREIGN KEY (log, at) REFERENCES logs) PARTITION BY RANGE (at);"
    )
    found = await findings(database)
    assert len(found) == 3
    for each in found:
        await admin.execute(each.remedy)
    assert await findings(database) == []


async def test_a_trigger_is_to_be_known_and_its_remedy_shows_it(admin, database):
    await admin.execute(
        LOGS + "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER veto BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION veto()"
    )
    (found,) = await findings(database)
    assert found.severity == "info"
    assert "CREATE TRIGGER veto" in await admin.fetchval(found.remedy)


async def test_anonymising_a_not_null_column_to_null_is_an_error_until_it_may_be_null(admin, database):
    await admin.execute(LOGS)
    (found,) = await findings(database, action="anonymise")
    assert (found.severity, "NOT NULL" in found.message) == ("error", True)
    await admin.execute(found.remedy)
    assert await findings(database, action="anonymise") == []


@pytest.mark.parametrize("made", ["GENERATED ALWAYS AS (id + 1) STORED", "GENERATED ALWAYS AS IDENTITY"])
async def test_anonymising_a_column_that_the_database_makes_is_an_error(admin, database, made):
    await admin.execute(LOGS + f"ALTER TABLE logs ADD COLUMN made int {made}")
    listed = await findings(database, action="anonymise", anonymise={"columns": {"made": 0}})
    (found,) = [each for each in listed if each.severity != "info"]
    assert (found.severity, "generated" in found.message) == ("error", True)


async def test_an_account_that_cannot_be_compared_with_the_directory_s_ids_is_an_error(admin, database):
    await admin.execute(LOGS + "CREATE TABLE accounts (id uuid PRIMARY KEY, tier text)")
    found = await findings(database, Directory(AccountsConfig(dsn=database, table="accounts")))
    assert any(each.severity == "error" and "can't be compared with accounts.id" in each.message for each in found)


async def test_the_columns_that_an_anonymised_record_keeps_are_named(admin, database):
    await admin.execute(
        "CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz, ip inet, agent text);"
        "CREATE INDEX ON logs (at); CREATE INDEX ON logs (account)"
    )
    (found,) = await findings(database, action="anonymise")
    assert found.severity == "info"
    assert "changes account of" in found.message
    assert found.message.endswith("stay as they are: ip, agent")
    assert "targets.logs.anonymise.columns" in found.remedy
    rules = {"columns": {"account": None, "ip": {"truncate_ip": True}, "agent": "gone"}}
    assert await findings(database, action="anonymise", anonymise=rules) == []
