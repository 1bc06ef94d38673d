"""What the memory of the account directory does for the real process: missing accounts, downgrades, the guard."""

import asyncpg
import pytest

from tests.acceptance.test_core import company, env, sweep  # noqa: F401 - fixtures
from tests.services.process import run_retentiond

MINE = "SELECT count(*) FROM request_logs WHERE account_id = $1"


@pytest.fixture
async def elsewhere(postgres_server, env):
    """The directory in a database of its own, without a column for the tier's change."""
    administrator = await asyncpg.connect(postgres_server.dsn())
    await administrator.execute("DROP DATABASE IF EXISTS directory WITH (FORCE)")
    await administrator.execute("CREATE DATABASE directory")
    dsn = postgres_server.dsn("directory")
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);"
        " INSERT INTO accounts SELECT i, (ARRAY['free', 'pro', 'enterprise'])[1 + i % 3], NULL, NULL"
        " FROM generate_series(1, 60) i"
    )
    env["RETENTIOND_ACCOUNTS__DSN"] = dsn
    yield connection
    await connection.close()
    await administrator.execute("DROP DATABASE directory WITH (FORCE)")
    await administrator.close()


async def missed_for(company, days):
    """As if the last survey had missed its accounts so many days ago."""
    await company.execute(
        f"UPDATE retentiond.account_memory SET missing_since = missing_since - interval '{days} days'"
    )


async def lost_account_is_erased(env, company, directory):
    env["RETENTIOND_ACCOUNTS__MISSING"] = "deleted"
    assert (await sweep(env))[0].code == 0
    invoices = await company.fetchval("SELECT count(*) FROM invoices WHERE account_id = 7")
    await directory.execute("DELETE FROM accounts WHERE id = 7")
    await company.execute("INSERT INTO request_logs (account_id, created_at) VALUES (999, now())")
    before = await company.fetchval(MINE, 7)
    assert before > 0
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval(MINE, 7) == before
    await missed_for(company, 31)
    newest = await company.fetchval("SELECT id FROM request_logs WHERE account_id = 7 ORDER BY created_at DESC LIMIT 1")
    explained = await run_retentiond("explain", "request_logs", str(newest), "--json", env=env)
    assert (explained.json["verdict"], explained.json["reason"]) == ("erase", "account_erasure")
    planned = await run_retentiond("plan", "--target", "request_logs", "--json", env=env)
    assert planned.json["targets"]["request_logs"]["records"] == before
    result, targets = await sweep(env)
    assert result.code == 0, result.stderr
    assert targets["request_logs"]["erased"] == before
    assert await company.fetchval(MINE, 7) == 0
    assert await company.fetchval(MINE, 999) == 1
    assert await company.fetchval("SELECT count(*) FROM invoices WHERE account_id = 7") == invoices


async def test_an_account_that_the_directory_lost_is_erased_after_the_grace(env, company):
    await lost_account_is_erased(env, company, company)


async def test_an_account_that_a_directory_elsewhere_lost_is_erased_after_the_grace(env, company, elsewhere):
    await lost_account_is_erased(env, company, elsewhere)


async def test_an_account_that_came_back_is_not_erased(env, company):
    env["RETENTIOND_ACCOUNTS__MISSING"] = "deleted"
    assert (await sweep(env))[0].code == 0
    await company.execute("DELETE FROM accounts WHERE id = 7")
    assert (await sweep(env))[0].code == 0
    await missed_for(company, 31)
    await company.execute("INSERT INTO accounts (id, tier) VALUES (7, 'pro')")
    before = await company.fetchval(MINE, 7)
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval(MINE, 7) == before > 0


async def test_a_missing_account_is_unknown_by_default(env, company):
    assert (await sweep(env))[0].code == 0
    await company.execute("DELETE FROM accounts WHERE id = 7")
    assert (await sweep(env))[0].code == 0
    await missed_for(company, 400)
    before = await company.fetchval(MINE, 7)
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval(MINE, 7) == before > 0


async def test_a_downgrade_in_a_directory_elsewhere_has_its_grace(env, company, elsewhere):
    assert (await sweep(env))[0].code == 0
    await elsewhere.execute("UPDATE accounts SET tier = 'free' WHERE id = 7")
    before = await company.fetchval(MINE, 7)
    oldest = await company.fetchval("SELECT id FROM request_logs WHERE account_id = 7 ORDER BY created_at LIMIT 1")
    for _ in range(2):
        explained = await run_retentiond("explain", "request_logs", str(oldest), "--json", env=env)
        assert (explained.json["verdict"], explained.json["term"]) == ("keep", "P7Y")
        assert (await sweep(env))[0].code == 0
        assert await company.fetchval(MINE, 7) == before
    await company.execute("UPDATE retentiond.account_memory SET changed_at = changed_at - interval '31 days'")
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval(MINE, 7) < before


async def test_a_directory_that_looks_damaged_waits_for_an_approval_of_its_count(env, company):
    env["RETENTIOND_GUARDS__MIN_ACCOUNTS_SHORTENED"] = "2"
    assert (await sweep(env))[0].code == 0
    assert (await run_retentiond("approve", "accounts", env=env)).code == 2
    await company.execute("UPDATE accounts SET deleted_at = now() - interval '60 days' WHERE id BETWEEN 1 AND 5")
    before = await company.fetchval("SELECT count(*) FROM request_logs")
    result, targets = await sweep(env)
    assert (result.code, targets["request_logs"]["outcome"]) == (3, "guarded")
    granted = await run_retentiond("approve", "accounts", "--json", env=env)
    assert granted.json["bound"] == 5
    await company.execute("UPDATE accounts SET deleted_at = now() - interval '60 days' WHERE id = 6")
    assert (await sweep(env))[0].code == 3
    assert await company.fetchval("SELECT count(*) FROM request_logs") == before
    assert (await run_retentiond("approve", "accounts", "--json", env=env)).json["bound"] == 6
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval("SELECT count(*) FROM request_logs") < before
    entries = (await run_retentiond("ledger", "show", "--kind", "approval", "--json", env=env)).json["entries"]
    assert [(e["event"], e["bound"]) for e in entries if e["subject"] == "directory"][:3] == [
        ("granted", 5),
        ("granted", 6),
        ("used", 6),
    ]


async def test_an_approval_that_nobody_needs_any_more_lapses(env, company):
    env["RETENTIOND_GUARDS__MIN_ACCOUNTS_SHORTENED"] = "2"
    assert (await sweep(env))[0].code == 0
    await company.execute("CREATE TABLE lost AS SELECT * FROM accounts WHERE id BETWEEN 1 AND 5")
    await company.execute("DELETE FROM accounts WHERE id BETWEEN 1 AND 5")
    assert (await sweep(env))[0].code == 3
    assert (await run_retentiond("approve", "accounts", env=env)).code == 0
    await company.execute("INSERT INTO accounts SELECT * FROM lost")
    assert (await sweep(env))[0].code == 0
    await company.execute("DELETE FROM accounts WHERE id BETWEEN 11 AND 14")
    assert (await sweep(env))[0].code == 3
    await company.execute("INSERT INTO accounts SELECT i, 'pro' FROM generate_series(11, 14) i")
    assert (await sweep(env))[0].code == 0
    assert await company.fetchval("SELECT count(*) FROM retentiond.waiting") == 0
    assert (await run_retentiond("approve", "accounts", env=env)).code == 2


async def test_each_sweep_has_its_intent_in_the_ledger_before_its_first_batch(env, company):
    assert (await sweep(env, "--target", "request_logs"))[0].code == 0
    shown = await run_retentiond("ledger", "show", "--kind", "intent", "--kind", "outcome", "--json", env=env)
    intent, *outcomes = shown.json["entries"]
    assert (intent["kind"], intent["target"], intent["mode"]) == ("intent", "request_logs", "enforce")
    assert {outcome["sweep"] for outcome in outcomes} == {intent["sweep"]}
    assert set(intent["cutoffs"]) == {"free", "pro", "enterprise", "none", "unknown"}
