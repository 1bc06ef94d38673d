"""An account directory that says odd things, is damaged, or can't be asked: what it leaves in doubt is kept."""

import json
from dataclasses import replace

import asyncpg
import pytest

from retentiond.sweep.events import BatchDone
from tests.services.process import run_retentiond
from tests.services.sweeping import ACCOUNTS, document

MANY = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);
INSERT INTO accounts SELECT i, 'pro' FROM generate_series(1, 400) i;
CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);
"""
DUE = "INSERT INTO logs SELECT {first} + i, 1 + i % 400, now() - interval '{days} days' FROM generate_series(1, 50) i"


async def one_account(rig, tier, override, days=400):
    """Three records of account 9, `days` old; the override is the JSON of its whole column."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
    )
    await rig.db.execute("INSERT INTO accounts VALUES (9, $1, NULL, $2::text::jsonb)", tier, override)
    await rig.db.execute(
        "INSERT INTO logs SELECT i, 9, now() - $1 * interval '1 day' FROM generate_series(1, 3) i", days
    )
    rig.target("logs")


MALFORMED = [90, 90.5, True, ["P90D"], {"ttl": "P90D"}, "", " ", "-P90D", "P-90D", "P0D", "90", "90 days", "P90", "P1W2D",
             "p90d", "P90D ", "P90D\n", "FOREVER", "forever", "P8Y", "P99999999Y", "٩", "'; DELETE FROM logs; --"]  # fmt: skip


@pytest.mark.parametrize("override", MALFORMED, ids=repr)
async def test_an_override_that_is_no_duration_or_out_of_bounds_keeps_the_accounts_records(rig, override):
    await one_account(rig, "enterprise", json.dumps({"operational_logs": override}), days=4000)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.unresolved) == ("drained", 0, 3), document(outcome)
    assert len(await rig.ids()) == 3
    await rig.require_told(logs=0)


@pytest.mark.parametrize("column", ["[]", "5", '"text"', '["operational_logs"]', "true"])
async def test_overrides_that_are_no_object_keep_the_accounts_records(rig, column):
    await one_account(rig, "free", column)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.unresolved) == ("drained", 0, 3)
    await rig.require_told(logs=0)


@pytest.mark.parametrize(
    ("tier", "column", "days", "gone"),
    [
        ("enterprise", '{"operational_logs": "P7Y"}', 2000, 0),
        ("enterprise", '{"operational_logs": "P7Y"}', 2600, 3),
        ("enterprise", '{"operational_logs": "P30D"}', 40, 3),
        ("enterprise", '{"operational_logs": null}', 400, 3),
        ("enterprise", "null", 400, 3),
        ("enterprise", "{}", 400, 3),
        ("free", '{"operational_logs": "P7Y"}', 400, 3),  # valid for another tier alone: ignored
        ("free", '{"audit_log": "P1D"}', 400, 3),
    ],
)
async def test_an_override_applies_within_the_bounds_of_the_tier(rig, tier, column, days, gone):
    await one_account(rig, tier, column, days)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.unresolved) == ("drained", gone, 0)
    await rig.require_told(logs=gone)


async def test_overrides_in_a_text_column_that_are_no_json_erase_nothing_and_say_so(rig):
    await one_account(rig, "free", None)
    await rig.db.execute(
        "ALTER TABLE accounts ALTER retention TYPE text; UPDATE accounts SET retention = '{oops' WHERE id = 9"
    )
    outcome = await rig.only()
    assert outcome.changed == 0
    assert outcome.outcome in ("blind", "failed") or outcome.unresolved == 3
    assert len(await rig.ids()) == 3
    await rig.require_told(logs=0)


@pytest.mark.parametrize(("tier", "days", "gone"), [("gold", 2000, 0), (None, 2000, 0), ("", 2000, 0), ("Free", 2000, 0),
                                                    ("gold", 2600, 3), ("hobby", 100, 3)])  # fmt: skip
async def test_an_unknown_tier_gets_the_longest_term_and_a_mapped_one_its_own(rig, tier, days, gone):
    await one_account(rig, tier, None, days)
    rig.accounts = {"tier_map": {"hobby": "free"}}
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", gone)
    await rig.require_told(logs=gone)


async def test_an_unknown_tier_whose_longest_term_is_forever_is_kept_and_counted(rig):
    await one_account(rig, "gold", None, 9000)
    rig.target("logs", class_="generated_artifacts")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.unresolved) == ("drained", 0, 3)


async def test_nobodys_records_go_by_the_rule_for_nobody_and_an_unknown_accounts_by_the_longest(rig):
    await one_account(rig, "free", None, 100)
    await rig.db.execute("UPDATE logs SET account_id = CASE id WHEN 1 THEN NULL WHEN 2 THEN 777 ELSE 9 END")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 2)
    assert await rig.ids() == [2]
    await rig.require_told(logs=2)


async def fresh_directory(rig):
    """A directory that has been surveyed once, then 50 records of it that are due."""
    await rig.db.execute(MANY)
    rig.target("logs")
    assert (await rig.only()).outcome == "drained"
    await rig.db.execute(DUE.format(first=0, days=500))


DAMAGE = {
    "six percent are missing": "DELETE FROM accounts WHERE id <= 24",
    "six percent are deleted": "UPDATE accounts SET deleted_at = now() - interval '1 year' WHERE id <= 24",
    "six percent are in a lower tier": "UPDATE accounts SET tier = 'free' WHERE id <= 24",
    "six percent ask for less": "UPDATE accounts SET tier = 'enterprise', retention = '{\"operational_logs\": \"P1D\"}' WHERE id <= 24",
    "a bit of each": "DELETE FROM accounts WHERE id <= 8; UPDATE accounts SET tier = 'free' WHERE id BETWEEN 9 AND 16;"
    "UPDATE accounts SET deleted_at = now() WHERE id BETWEEN 17 AND 24",
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
async def test_a_damaged_directory_stops_the_sweeps_that_depend_on_it_until_approved(rig, damage):
    await fresh_directory(rig)
    await rig.db.execute(DAMAGE[damage])
    for _ in range(2):
        outcome = await rig.only()
        assert (outcome.outcome, outcome.changed) == ("guarded", 0)
        assert "approve --directory" in outcome.error["remedy"]
    assert len(await rig.ids()) == 50
    await rig.require_told(logs=0)


async def test_accounts_that_were_said_to_be_deleted_are_not_missed_and_hide_no_damage(rig):
    await rig.db.execute(MANY)
    rig.target("logs")
    await rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '1 year' WHERE id <= 100")
    assert (await rig.only()).outcome == "drained"
    await rig.db.execute(DUE.format(first=0, days=500))
    await rig.db.execute("DELETE FROM accounts WHERE id <= 100")
    rig.accounts = {"missing": "deleted"}
    await rig.approve_policy()
    assert (await rig.only()).outcome == "drained"
    assert (
        await rig.db.fetchval("SELECT count(*) FROM retentiond.account_memory WHERE missing_since IS NOT NULL") == 100
    )
    left = await rig.ids()
    await rig.db.execute(DUE.format(first=100, days=500))
    await rig.db.execute("DELETE FROM accounts WHERE id BETWEEN 101 AND 121")  # 21 of 300: more than 5 % and than 20
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("guarded", 0)
    assert "of 300 accounts 21 are missing" in outcome.error["message"]
    assert len(await rig.ids()) == len(left) + 50


async def test_accounts_lost_before_the_deletion_that_they_wait_for_are_missing(rig):
    await fresh_directory(rig)
    await rig.db.execute("UPDATE accounts SET deleted_at = now() + interval '90 days' WHERE id <= 24")
    await rig.only()
    left = await rig.ids()
    await rig.db.execute("DELETE FROM accounts WHERE id <= 24")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("guarded", 0)
    assert await rig.ids() == left


ACCOUNTS_AS_TARGET = """
ALTER TABLE accounts ADD created_at timestamptz DEFAULT now() - interval '3 years';
UPDATE accounts SET deleted_at = now() - interval '1 year' WHERE id <= 100;
"""


async def accounts_are_a_target(rig):
    await rig.db.execute(MANY + ACCOUNTS_AS_TARGET)
    rig.policy = {"classes": {"account_rows": {"ttl": "forever"}}}
    rig.target("logs")
    rig.target("accounts", class_="account_rows", account="id")


async def test_the_erasure_of_the_accounts_own_rows_is_no_damage(rig):
    await accounts_are_a_target(rig)
    for erased in (100, 0):
        found = await rig.sweep()
        assert [(each.outcome, each.changed) for each in (found["logs"], found["accounts"])] == [
            ("drained", 0),
            ("drained", erased),
        ]
    assert await rig.ids("accounts") == list(range(101, 401))
    await rig.require_told(accounts=100)


async def test_an_approval_says_whether_the_directory_or_the_target_called_accounts_is_meant(rig):
    await accounts_are_a_target(rig)
    await rig.db.execute("UPDATE accounts SET deleted_at = NULL")
    rig.guards = {"max_fraction": 0.1, "min_records": 10}
    await rig.sweep()
    await rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '1 year' WHERE id <= 100")
    env = rig.environment()

    async def sweep(outcome, erased):
        found = (await rig.sweep("accounts"))["accounts"]
        assert (found.outcome, found.changed) == (outcome, erased), found.error

    await sweep("guarded", 0)
    for _ in range(2):
        asked = await run_retentiond("approve", "accounts", env=env)
        assert asked.code == 2
        assert "approve --directory" in asked.stderr
        assert "approve --target accounts" in asked.stderr
    assert (await run_retentiond("approve", "--target", "accounts", env=env)).code == 2
    granted = await run_retentiond("approve", "--directory", "--json", env=env)
    assert (granted.json["kind"], granted.json["bound"]) == ("directory", 100)
    await sweep("guarded", 0)
    granted = await run_retentiond("approve", "--target", "accounts", "--json", env=env)
    assert (granted.json["kind"], granted.json["target"], granted.json["bound"]) == ("sweep", "accounts", 100)
    await sweep("drained", 100)
    await rig.require_told(accounts=100)


async def test_five_percent_fewer_accounts_are_everyday_life(rig):
    await fresh_directory(rig)
    await rig.db.execute("DELETE FROM accounts WHERE id <= 20")
    outcome = await rig.only()
    assert outcome.outcome == "drained"
    assert outcome.changed == 50 - len(await rig.ids())
    await rig.require_told(logs=outcome.changed)


BLINDNESS = {
    "empty": "DELETE FROM accounts",
    "gone": "DROP TABLE accounts",
    "renamed": "ALTER TABLE accounts RENAME TO customers",
    "without its tier": "ALTER TABLE accounts DROP tier",
    "without its deletion": "ALTER TABLE accounts DROP deleted_at",
    "without its overrides": "ALTER TABLE accounts DROP retention",
    "with an id twice": "ALTER TABLE accounts DROP CONSTRAINT accounts_pkey; INSERT INTO accounts VALUES (1, 'enterprise')",
    "with a null id": "ALTER TABLE accounts DROP CONSTRAINT accounts_pkey, ALTER id DROP NOT NULL; INSERT INTO accounts VALUES (NULL, 'free')",
    "with another type of id": "ALTER TABLE accounts ALTER id TYPE text",
}


@pytest.mark.parametrize("fault", sorted(BLINDNESS))
async def test_a_directory_that_is_no_directory_any_more_blinds_its_targets_and_no_other(rig, fault):
    await fresh_directory(rig)
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.target("others", tier="free", account=None)
    await rig.approve_policy()
    await rig.db.execute(BLINDNESS[fault])
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) in [("blind", 0), ("failed", 0)]
    assert found["logs"].error["remedy"]
    assert len(await rig.ids()) == 50
    assert (found["others"].outcome, found["others"].changed) == ("drained", 50), found["others"].error
    await rig.require_told(logs=0, others=50)


@pytest.fixture
async def elsewhere(rig, postgres_server):
    """The directory in another database than the target's: its DSN, and a connection."""
    name = rig.dsn.rsplit("/", 1)[1] + "_d"
    await rig.db.execute(f'CREATE DATABASE "{name}"')
    dsn = postgres_server.dsn(name)
    connection = await asyncpg.connect(dsn)
    await connection.execute(MANY)
    yield dsn, connection
    await connection.close()
    await rig.db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_directory_of_another_database_is_obeyed_and_unreachable_it_stops_its_targets(rig, elsewhere):
    dsn, directory = elsewhere
    await rig.db.execute(
        "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)"
    )
    rig.accounts = {"dsn": dsn}
    rig.target("logs")
    rig.target("others", tier="free", account=None)
    await rig.db.execute(DUE.format(first=0, days=500))
    await directory.execute(
        "UPDATE accounts SET retention = '{\"operational_logs\": \"P7Y\"}', tier = 'enterprise' WHERE id = 5"
    )
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) == ("drained", 49)
    assert await rig.ids() == [4]
    await rig.db.execute(
        DUE.format(first=100, days=500) + ";" + DUE.format(first=100, days=500).replace("logs", "others")
    )
    rig.accounts = {"dsn": dsn.rsplit("/", 1)[0] + "/nowhere"}
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].error["kind"], found["logs"].changed) == ("failed", "unreachable", 0)
    assert (found["others"].outcome, found["others"].changed) == ("drained", 50), found["others"].error
    await rig.require_told(logs=49, others=50)


async def test_an_upgrade_in_a_directory_elsewhere_is_seen_by_the_next_batch(rig, elsewhere):
    dsn, directory = elsewhere
    await rig.db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    rig.accounts = {"dsn": dsn}
    rig.target("logs")
    await rig.sweep()
    await rig.db.execute("INSERT INTO logs SELECT i, 7, now() - interval '500 days' FROM generate_series(1, 40) i")
    async with rig.app() as app:
        await app.engine.stores["logs"].open(app.engine.directory)
        await directory.execute(
            "UPDATE accounts SET tier = 'enterprise', retention = '{\"operational_logs\": \"P7Y\"}' WHERE id = 7"
        )
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.changed, len(await rig.ids())) == (0, 40)


async def test_an_erasure_cut_short_misses_no_account_of_a_directory_elsewhere(rig, elsewhere):
    """As texts 10 comes before 9, as numbers after it: what a sweep has left behind itself the next one must reach."""
    dsn, directory = elsewhere
    await rig.db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    await directory.execute("UPDATE accounts SET deleted_at = now() - interval '60 days' WHERE id IN (9, 10)")
    rig.accounts = {"dsn": dsn}
    rig.target("logs")
    await rig.db.execute("INSERT INTO logs SELECT i, 9, now() FROM generate_series(1, 25) i")
    async with rig.app() as app:

        def stop(event):
            if isinstance(event, BatchDone) and event.changed:
                app.engine.drain()

        app.engine.tools = replace(app.engine.tools, observer=stop)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("capped", 10)
    await rig.db.execute("INSERT INTO logs SELECT i, 10, now() FROM generate_series(101, 105) i")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 20)
    assert await rig.ids() == []
    await rig.require_told(logs=30)
