"""What `check` finds about the account directory: accounts are counted, and named by nothing but their hash."""

from datetime import UTC, datetime

import asyncpg
import pytest

from retentiond.domain.accounts import TierRules
from retentiond.domain.policy import parse_policy
from retentiond.stores.postgres.config import AccountsConfig
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.inspect_directory import Rules
from tests.services.postgres import limited_role

NOW = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
POLICY = {
    "tiers": ["free", "pro"],
    "downgrade_grace": "P30D",
    "deletion_grace": "P30D",
    "unknown_tier": "longest",
    "no_account": "free",
    "classes": {
        "logs": {"ttl": {"free": "P90D", "pro": "P365D"}, "override": {"pro": {"max": "P7Y"}}},
        "account_data": {"after": "account_deleted", "ttl": "P30D"},
    },
}
TABLE = "CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, gone timestamptz, retention jsonb)"


@pytest.fixture
async def admin(database):
    found = await asyncpg.connect(database)
    yield found
    await found.close()


async def findings(dsn, classes=("logs",), **config):
    policy, faults = parse_policy(POLICY, used_classes=frozenset(POLICY["classes"]))
    assert policy is not None, faults
    used = tuple(policy.classes[name] for name in classes)
    rules = Rules(policy, TierRules({"hobby": "free"}), used, NOW, lambda account: f"hash-of-{len(account)}-digits")
    if "query" not in config:
        config = {"table": "accounts"} | config
    directory = Directory(AccountsConfig(dsn=dsn, **config))
    try:
        return await directory.check(rules)
    finally:
        await directory.close()


async def test_a_sound_directory_has_no_findings(admin, database):
    await admin.execute(TABLE)
    await admin.execute("INSERT INTO accounts (id, tier) VALUES (1, 'free'), (2, 'hobby')")
    await admin.execute("""INSERT INTO accounts VALUES (3, 'pro', NULL, '{"logs": "P3Y"}')""")
    assert await findings(database, deleted_at="gone", overrides="retention") == []


async def test_a_directory_that_is_not_there_is_an_error_that_says_so(database):
    (found,) = await findings(database)
    assert (found.severity, '"accounts" does not exist' in found.message) == ("error", True)


async def test_a_missing_grant_is_found_and_its_remedy_gives_it(admin, database):
    await admin.execute(TABLE + "; INSERT INTO accounts VALUES (1, 'free')")
    async with limited_role(database) as dsn:
        (found,) = await findings(dsn)
        assert (found.severity, "permission denied" in found.message) == ("error", True)
        await admin.execute(found.remedy)
        assert await findings(dsn) == []


async def test_a_query_that_is_no_sql_is_an_error(admin, database):
    (found,) = await findings(database, query="SELEC 1")
    assert (found.severity, "can't be read" in found.message) == ("error", True)


async def test_a_missing_column_and_one_of_a_type_that_does_not_do_are_errors(admin, database):
    await admin.execute(TABLE)
    found = await findings(database, tier="plan", deleted_at="tier", overrides="id")
    assert [each.severity for each in found] == ["error"] * 3
    assert "one of: id, tier, gone, retention" in found[0].remedy
    assert "is of type text" in found[1].message


async def test_null_and_unmapped_tiers_are_counted(admin, database):
    await admin.execute(TABLE)
    await admin.execute("INSERT INTO accounts (id, tier) VALUES (1, NULL), (2, NULL), (3, 'gold'), (4, 'free')")
    found = {each.message.partition(":")[0]: each for each in await findings(database)}
    assert found["2 accounts have no tier"].severity == "warning"
    assert len(await admin.fetch(found["2 accounts have no tier"].remedy)) == 2
    gold = found["1 accounts have the tier 'gold', which is not mapped"]
    assert '{"gold":"free|pro"}' in gold.remedy


async def test_overrides_at_fault_are_counted_and_the_accounts_hashed_never_named(admin, database):
    await admin.execute(TABLE)
    await admin.execute(
        """INSERT INTO accounts (id, tier, retention) VALUES (87654321, 'pro', '{"logs": "ninety days"}'),
        (87654322, 'pro', '{"logs": "P99Y"}'), (87654323, 'pro', '["logs"]'), (87654324, 'pro', '{"logs": 5}'),
        (5, 'pro', '{"logs": "P7Y"}'), (6, 'free', '{"logs": "P7Y"}'), (7, 'pro', '{"other": "x"}'), (8, 'pro', 'null')"""
    )
    (found,) = await findings(database, overrides="retention")
    assert found.message.startswith("4 accounts have an override for logs")
    assert "hash-of-8-digits" in found.message
    assert "8765432" not in found.message + found.remedy
    assert len(await admin.fetch(found.remedy)) == 8


async def test_overrides_that_are_no_json_are_an_error(admin, database):
    await admin.execute("CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, retention text)")
    await admin.execute("INSERT INTO accounts VALUES (1, 'free', '{oops')")
    (found,) = await findings(database, overrides="retention")
    assert (found.severity, "JSON" in found.message) == ("error", True)
    assert "oops" not in found.message


async def test_ids_that_are_null_or_stand_twice_are_errors_and_no_unique_index_a_warning(admin, database):
    await admin.execute("CREATE TABLE accounts (id bigint, tier text)")
    await admin.execute("INSERT INTO accounts VALUES (1, 'free'), (1, 'pro'), (NULL, 'free')")
    found = await findings(database)
    assert [(each.severity, each.message[:5]) for each in found] == [
        ("error", "1 acc"),
        ("error", "1 ids"),
        ("warning", "no un"),
    ]
    assert len(await admin.fetch(found[1].remedy)) == 1
    await admin.execute("DELETE FROM accounts")
    await admin.execute(found[2].remedy)
    assert "empty" in (await findings(database))[0].message


async def test_an_index_that_leaves_accounts_out_does_not_do(admin, database):
    await admin.execute("CREATE TABLE accounts (id bigint, tier text); INSERT INTO accounts VALUES (1, 'free')")
    await admin.execute("CREATE UNIQUE INDEX ON accounts (id) WHERE tier = 'free'")
    (found,) = await findings(database)
    assert (found.severity, "no unique index" in found.message) == ("warning", True)


async def test_of_a_view_it_says_what_cannot_be_known(admin, database):
    await admin.execute(TABLE + "; CREATE VIEW v AS SELECT * FROM accounts; INSERT INTO accounts VALUES (1, 'free')")
    (found,) = await findings(database, table="v")
    assert (found.severity, "can't be known" in found.message) == ("info", True)


async def test_a_class_counted_from_deletion_without_deletions_is_a_warning(admin, database):
    await admin.execute(TABLE + "; INSERT INTO accounts VALUES (1, 'free')")
    (found,) = await findings(database, classes=("account_data",))
    assert (found.severity, "account_data is ever due" in found.message) == ("warning", True)
