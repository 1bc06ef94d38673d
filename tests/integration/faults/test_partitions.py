"""Tables of many parts: `ctid` is of one part alone, rows move between them, parts come and go."""

import asyncio

import asyncpg
import pytest

from tests.services.gates import end_when_waited_for, gate, open_transaction, waits_for_lock
from tests.services.sweeping import ACCOUNTS

COLUMNS = "id bigint, account_id bigint, created_at timestamptz, kind text"
PARTITIONS = {
    "range": """
        CREATE TABLE logs ({c}, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
        CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
        CREATE TABLE logs_mid PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        CREATE TABLE logs_rest PARTITION OF logs DEFAULT;""",
    "list": """
        CREATE TABLE logs ({c}, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
        CREATE TABLE logs_a PARTITION OF logs FOR VALUES IN ('a');
        CREATE TABLE logs_b PARTITION OF logs FOR VALUES IN ('b', 'c');
        CREATE TABLE logs_rest PARTITION OF logs DEFAULT;""",
    "hash": """
        CREATE TABLE logs ({c}, PRIMARY KEY (id)) PARTITION BY HASH (id);
        CREATE TABLE logs_0 PARTITION OF logs FOR VALUES WITH (MODULUS 3, REMAINDER 0);
        CREATE TABLE logs_1 PARTITION OF logs FOR VALUES WITH (MODULUS 3, REMAINDER 1);
        CREATE TABLE logs_2 PARTITION OF logs FOR VALUES WITH (MODULUS 3, REMAINDER 2);""",
    "sub": """
        CREATE TABLE logs ({c}, PRIMARY KEY (id, created_at, kind)) PARTITION BY RANGE (created_at);
        CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2025-01-01') PARTITION BY LIST (kind);
        CREATE TABLE logs_old_a PARTITION OF logs_old FOR VALUES IN ('a', 'b');
        CREATE TABLE logs_old_rest PARTITION OF logs_old DEFAULT;
        CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2025-01-01') TO (MAXVALUE);""",
}
FILL = """
INSERT INTO logs SELECT i, 1 + i % 3, CASE WHEN i % 4 = 0 THEN now() - interval '1 day'
    ELSE now() - interval '900 days' + (i % 7) * interval '40 days' END, (ARRAY['a', 'b', 'c', 'd'])[1 + i % 4]
FROM generate_series(1, 60) i
"""
# Accounts 1, 2 and 3 are free, pro and enterprise: rows of 660 and more days are past the term of each.
DUE = "SELECT count(*) FROM logs WHERE created_at < now() - interval '600 days'"


async def partitioned(rig, kind, **settings):
    await rig.db.execute(ACCOUNTS + PARTITIONS[kind].format(c=COLUMNS) + "CREATE INDEX ON logs (created_at);" + FILL)
    rig.target("logs", **settings)


@pytest.mark.parametrize("kind", sorted(PARTITIONS))
async def test_exactly_the_due_rows_of_every_partition_go(rig, kind):
    await partitioned(rig, kind)
    due = await rig.db.fetchval(DUE)
    clash = "SELECT count(*) - count(DISTINCT ctid) FROM logs"
    assert await rig.db.fetchval(clash) > 0, "the same ctid must stand in several partitions"
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", due, 0)
    assert await rig.ids() == [4 * n for n in range(1, 16)]
    await rig.require_told(logs=due)


@pytest.mark.parametrize("kind", sorted(PARTITIONS))
async def test_a_hold_on_a_record_reaches_it_in_its_partition(rig, kind):
    await partitioned(rig, kind)
    key = {"hash": "7", "list": '["7", "d"]'}.get(kind)
    async with rig.app() as app:
        await rig.hold(app, **({"records": {"logs": (key,)}} if key else {"accounts": ("2",)}))
    await rig.only()
    assert 7 in await rig.ids()
    await rig.require_told(logs=60 - await rig.db.fetchval("SELECT count(*) FROM logs"))


async def test_a_row_refreshed_into_another_partition_stays(rig):
    await partitioned(rig, "range")
    refresh = "UPDATE logs SET created_at = now() WHERE id IN (7, 14, 21)"
    async with open_transaction(rig.dsn, refresh) as refreshing:
        sweep = asyncio.create_task(rig.only())
        outcome = await end_when_waited_for(refreshing, rig.db, sweep)
    assert {7, 14, 21} <= set(await rig.ids())
    assert outcome.changed == 60 - await rig.db.fetchval("SELECT count(*) FROM logs")
    assert (await rig.only()).outcome == "drained"
    assert await rig.ids() == sorted([7, 14, 21, *range(4, 61, 4)])
    await rig.require_told(logs=42)


async def test_a_due_row_moved_to_another_partition_goes_then_or_later(rig):
    await partitioned(rig, "list")
    move = "UPDATE logs SET kind = CASE kind WHEN 'c' THEN 'a' ELSE 'c' END WHERE id IN (7, 14, 21)"
    async with open_transaction(rig.dsn, move) as moving:
        sweep = asyncio.create_task(rig.only())
        await end_when_waited_for(moving, rig.db, sweep)
    assert (await rig.only()).outcome == "drained"
    assert await rig.ids() == [4 * n for n in range(1, 16)]
    await rig.require_told(logs=45)


async def test_partitions_attached_and_detached_between_sweeps_are_no_stumbling_block(rig):
    await partitioned(rig, "range")
    await rig.db.execute("ALTER TABLE logs DETACH PARTITION logs_mid")
    apart = await rig.db.fetchval("SELECT count(*) FROM logs_mid")
    assert (await rig.only()).outcome == "drained"
    assert await rig.db.fetchval("SELECT count(*) FROM logs_mid") == apart > 0
    await rig.db.execute("ALTER TABLE logs ATTACH PARTITION logs_mid FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    assert (await rig.only()).changed == apart
    assert await rig.ids() == [4 * n for n in range(1, 16)]
    await rig.require_told(logs=45)


async def test_a_partition_can_be_a_target_of_its_own(rig):
    await partitioned(rig, "range", table="public.logs_mid")
    elsewhere = await rig.db.fetchval("SELECT count(*) FROM logs WHERE tableoid <> 'logs_mid'::regclass")
    inside = await rig.db.fetchval("SELECT count(*) FROM logs_mid")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", inside)
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == elsewhere
    await rig.require_told(logs=inside)


async def test_tables_that_inherit_are_swept_with_their_parent_and_equal_keys_are_told_apart(rig):
    """Each id stands in parent and child, with the same ctid; only one of the two is due."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "CREATE TABLE logs_more (note text, PRIMARY KEY (id)) INHERITS (logs);"
        "INSERT INTO logs SELECT i, 1, now() - (CASE WHEN i % 2 = 0 THEN 400 ELSE 1 END) * interval '1 day'"
        " FROM generate_series(1, 20) i;"
        "INSERT INTO logs_more SELECT i, 1, now() - (CASE WHEN i % 2 = 1 THEN 400 ELSE 1 END) * interval '1 day'"
        " FROM generate_series(1, 20) i"
    )
    rig.target("logs", pace={"duty": 1.0, "max_batch": 7})
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", 20, 0)
    assert await rig.ids("ONLY logs") == list(range(1, 21, 2))
    assert await rig.ids("logs_more") == list(range(2, 21, 2))
    await rig.require_told(logs=20)


async def test_equal_rows_of_parent_and_child_are_both_counted(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "CREATE TABLE logs_more (PRIMARY KEY (id)) INHERITS (logs);"
        "INSERT INTO logs SELECT i, 1, '2020-01-01' FROM generate_series(1, 9) i; INSERT INTO logs_more TABLE ONLY logs"
    )
    rig.target("logs", pace={"duty": 1.0, "max_batch": 4})
    for _ in range(3):
        outcome = await rig.only()
    assert outcome.outcome == "drained"
    assert await rig.ids() == []
    await rig.require_told(logs=18)


async def test_a_partition_detached_by_another_job_in_mid_sweep_keeps_what_it_has_from_then_on(rig):
    await partitioned(rig, "range", pace={"duty": 1.0, "max_batch": 5})
    other = await asyncpg.connect(rig.dsn)
    detach = "ALTER TABLE logs DETACH PARTITION logs_mid"
    async with gate(rig.dsn, "BEFORE DELETE ON logs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only())
        await stop.reached()
        detaching = asyncio.create_task(other.execute(detach))
        await waits_for_lock(rig.db, "DETACH PARTITION")
        await stop.open()
        await detaching
        apart = await rig.ids("logs_mid")
        outcome = await sweep
    await other.close()
    assert await rig.ids("logs_mid") == apart, "what is no part of the target is not touched"
    again = await rig.only()
    assert again.outcome == "drained", again.error
    assert await rig.ids() == [4 * n for n in range(1, 16)]
    assert await rig.ids("logs_mid") == apart
    await rig.require_told(logs=outcome.changed + again.changed)
