"""Records and directory that tell accounts apart in different ways: what looks the same on one side is two on the other."""

import asyncpg
import pytest

from tests.services.citext import citext

# No embedded binaries know ICU, and no other collation is made nondeterministic: so one is called so afterwards.
LOOSE = """
CREATE COLLATION loose (provider = libc, locale = 'C');
UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'loose';
CREATE DOMAIN number AS bigint;
CREATE TYPE mood AS ENUM ('1', '2');
"""
LOGS = "CREATE TABLE logs (id bigint PRIMARY KEY, account_id {type}, created_at timestamptz);"


async def made(rig, records, ids, elsewhere=False):
    """Tables whose account is of one type here and of another in the directory, which may be in another database."""
    here = await asyncpg.connect(rig.dsn, server_settings={"allow_system_table_mods": "on"})
    await here.execute(citext() + LOOSE + LOGS.format(type=records))
    await here.close()
    dsn = rig.control if elsewhere else rig.dsn
    there = await asyncpg.connect(dsn, server_settings={"allow_system_table_mods": "on"})
    if elsewhere:
        await there.execute(citext() + LOOSE)
    await there.execute(f"CREATE TABLE accounts (id {ids} PRIMARY KEY, tier text, deleted_at timestamptz)")
    rig.accounts = {"dsn": dsn, "overrides": None}
    rig.target("logs")
    return there


async def test_a_record_is_not_judged_by_an_account_of_which_it_only_looks_to_be(apart):
    """`ann` is nobody that the directory knows, and `Ann` is on the shortest term: records of 100 days are due for her."""
    there = await made(apart, "citext", "text", elsewhere=True)
    await there.execute("INSERT INTO accounts VALUES ('Ann', 'free')")
    await there.close()
    await apart.db.execute("INSERT INTO logs VALUES (1, 'Ann', now() - '100 days'::interval)")
    await apart.db.execute("INSERT INTO logs VALUES (2, 'ann', now() - '100 days'::interval)")
    outcome = await apart.only()
    assert 2 in await apart.ids()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "citext" in outcome.error["message"]
    assert "texts" in outcome.error["message"]


async def test_a_living_accounts_records_do_not_go_with_those_of_one_that_is_missing_and_only_looks_the_same(rig):
    there = await made(rig, "citext", "text")
    await there.execute("INSERT INTO accounts VALUES ('Ann', 'enterprise'), ('ann', 'enterprise')")
    rig.accounts |= {"missing": "deleted"}
    rig.guards = {"max_accounts_shortened": 1.0}
    await rig.db.execute("INSERT INTO logs VALUES (1, 'ann', now() - '1 day'::interval)")
    await rig.db.execute("INSERT INTO logs VALUES (2, 'Ann', now() - '1 day'::interval)")
    first = await rig.only()
    await there.execute("DELETE FROM accounts WHERE id = 'ann'")
    await there.close()
    await rig.only()
    async with rig.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.account_memory SET missing_since = now() - interval '60 days' WHERE missing_since IS NOT NULL"
        )
    await rig.only()
    assert 2 in await rig.ids()
    assert first.outcome == "blind"
    assert "TYPE citext" in first.error["remedy"]


JOINED = [
    ("bigint", "int", True),
    ("numeric", "bigint", True),
    ("number", "bigint", True),
    ("varchar(10)", "text", True),
    ("char(4)", "char(8)", True),
    ("citext", "citext", True),
    ("mood", "mood", True),
    ("text", "citext", False),
    ("citext", "text", False),
    ("varchar(10)", "char(4)", False),
    ("float8", "bigint", False),
    ('text COLLATE "loose"', "text", False),
    ("text", 'text COLLATE "loose"', False),
]


@pytest.mark.parametrize(("records", "ids", "swept"), JOINED)
async def test_a_target_joined_with_its_directory_is_swept_where_both_tell_accounts_apart_alike(
    rig, records, ids, swept
):
    await judged(rig, records, ids, swept, elsewhere=False)


BY_TEXT = [
    ("bigint", "int", True),
    ("bigint", "text", True),
    ("uuid", "text", True),
    ("varchar(10)", "text", True),
    ("char(4)", "text", True),
    ("numeric(20, 0)", "bigint", True),
    ("number", "number", True),
    ("mood", "mood", True),
    ("numeric", "numeric", False),
    ("numeric(10, 2)", "numeric(10, 2)", False),
    ("float8", "float8", False),
    ("citext", "citext", False),
    ("text", "citext", False),
    ('text COLLATE "loose"', 'text COLLATE "loose"', False),
]


@pytest.mark.parametrize(("records", "ids", "swept"), BY_TEXT)
async def test_a_target_whose_directory_is_asked_by_texts_is_swept_where_texts_tell_accounts_apart(
    apart, records, ids, swept
):
    await judged(apart, records, ids, swept, elsewhere=True)


async def judged(rig, records, ids, swept, *, elsewhere):
    there = await made(rig, records, ids, elsewhere)
    account = "00000000-0000-0000-0000-000000000001" if "uuid" in (records, ids) else "1"
    plain = ids.partition(" COLLATE")[0]
    await there.execute(f"INSERT INTO accounts VALUES ($1::text::{plain}, 'free')", account)
    await there.close()
    await rig.db.execute(
        f"INSERT INTO logs VALUES (1, $1::text::{records.partition(' COLLATE')[0]}, now() - interval '100 days')",
        account,
    )
    outcome = await rig.only()
    if swept:
        assert (outcome.outcome, outcome.changed) == ("drained", 1), outcome.error
    else:
        assert (outcome.outcome, outcome.changed) == ("blind", 0)
        assert "another account's term" in outcome.error["message"]
        assert outcome.error["remedy"]


async def test_a_directory_that_is_a_query_is_told_by_what_the_query_gives(rig):
    there = await made(rig, "text", "citext")
    await there.execute("INSERT INTO accounts VALUES ('Ann', 'free')")
    await there.close()
    await rig.db.execute("INSERT INTO logs VALUES (1, 'Ann', now() - '100 days'::interval)")
    rig.accounts = {"overrides": None, "table": None, "query": "SELECT id, tier, deleted_at FROM accounts"}
    assert (await rig.only()).outcome == "blind"
    rig.accounts |= {"query": "SELECT id::text AS id, tier, deleted_at FROM accounts"}
    await rig.approve_policy()
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 1), outcome.error


async def test_an_account_column_that_is_given_another_collation_in_mid_sweep_ends_it(rig):
    there = await made(rig, "text", "text")
    await there.execute("INSERT INTO accounts VALUES ('1', 'free')")
    await there.close()
    await rig.db.execute("INSERT INTO logs VALUES (1, '1', now() - '100 days'::interval)")
    async with rig.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        before = store.mark
        await rig.db.execute('ALTER TABLE logs ALTER account_id TYPE text COLLATE "loose"')
        async with store.transaction() as connection:
            assert await store.read_mark(connection) != before
