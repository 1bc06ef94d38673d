"""An account that changes while a batch waits for a row: what the row is judged by must not be the account of before."""

import asyncio

import pytest

from retentiond.sweep import enforced
from tests.services.gates import end_when_waited_for, open_transaction

ACCOUNTS = """
CREATE TABLE accounts (
    id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb, tier_changed_at timestamptz
);
INSERT INTO accounts (id, tier, deleted_at) VALUES (4, 'free', now() - interval '90 days'),
    (5, 'free', now() - interval '90 days'), (6, 'free', NULL);
"""
LOGS = """
CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz, ip text);
INSERT INTO logs VALUES (1, 4, now(), 'a'), (2, 5, now(), 'b');
"""


async def test_an_account_restored_while_its_own_row_is_waited_for_stays(rig):
    await rig.db.execute(ACCOUNTS)
    rig.target("accounts", class_="account_data", anchor="deleted_at", account="id")
    async with open_transaction(rig.dsn, "UPDATE accounts SET deleted_at = NULL WHERE id = 4") as meanwhile:
        sweep = asyncio.create_task(rig.only("accounts"))
        outcome = await end_when_waited_for(meanwhile, rig.db, sweep)
    assert (outcome.outcome, outcome.changed) == ("drained", 1), outcome.error
    assert await rig.ids("accounts") == [4, 6]
    await rig.require_told(accounts=1)


@pytest.mark.parametrize("action", ["delete", "anonymise"])
async def test_a_record_touched_by_the_transaction_that_restores_its_account_stays(rig, action):
    await rig.db.execute(ACCOUNTS + LOGS)
    more = {"anonymise": {"columns": {"ip": None}}} if action == "anonymise" else {}
    rig.target("logs", action=action, **more)
    restored = "UPDATE accounts SET deleted_at = NULL WHERE id = 4; UPDATE logs SET ip = 'restored' WHERE id = 1"
    async with open_transaction(rig.dsn, restored) as meanwhile:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(meanwhile, rig.db, sweep)
    assert (outcome.outcome, outcome.changed) == ("drained", 1), outcome.error
    assert await rig.db.fetchval("SELECT ip FROM logs WHERE id = 1") == "restored"
    assert await rig.db.fetchval("SELECT count(*) FROM logs WHERE id = 2 AND ip IS NOT NULL") == 0
    await rig.require_told(logs=1)


async def test_a_sweep_takes_no_more_than_its_guard_allowed_though_more_became_due(rig, monkeypatch):
    """The directory is damaged between the guard's count and the delete: the batch is undone, and asked about."""
    await rig.company(due=300, young=900)
    await rig.db.execute("UPDATE logs SET created_at = now() - interval '200 days', account_id = 2 WHERE id > 1000")
    await rig.db.execute("ALTER TABLE accounts ADD tier_changed_at timestamptz")
    rig.targets["logs"]["pace"] = {"duty": 1.0, "max_batch": 5000}
    rig.accounts = {"tier_changed_at": "tier_changed_at"}
    rig.guards = {"max_fraction": 0.3, "min_records": 10}
    guarded = enforced.backlog

    async def damaged(*given):
        bound = await guarded(*given)
        await rig.db.execute("UPDATE accounts SET tier = 'free'")
        return bound

    with monkeypatch.context() as patched:
        patched.setattr(enforced, "backlog", damaged)
        outcome = await rig.only()
    assert outcome.outcome in ("guarded", "capped"), outcome
    gone = 1200 - len(await rig.ids())
    assert 0 <= gone <= 360
    await rig.require_told(logs=gone)
