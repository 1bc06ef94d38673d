"""Two targets over the same records: a hold on one would not reach the other, so neither is swept."""

import pytest

from tests.services.process import run_retentiond
from tests.services.sweeping import ACCOUNTS

TREE = (
    ACCOUNTS
    + """
CREATE TABLE logs (id bigint, account_id bigint, created_at timestamptz, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE logs_1a PARTITION OF logs_1 FOR VALUES FROM (0) TO (500);
CREATE TABLE logs_1b PARTITION OF logs_1 FOR VALUES FROM (500) TO (1000);
INSERT INTO logs SELECT i, 1, now() - interval '400 days' FROM generate_series(498, 503) i;
"""
)


async def both_blind(rig, one, other, rows):
    found = await rig.sweep()
    for name in (one, other):
        assert (found[name].outcome, found[name].changed) == ("blind", 0)
        assert one in found[name].error["message"]
        assert other in found[name].error["message"]
        assert f"targets.{one}" in found[name].error["remedy"]
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == rows
    await rig.require_told(**{one: 0, other: 0})
    return found


@pytest.mark.parametrize(("one", "other"), [("logs", "logs_1"), ("logs", "logs_1a"), ("logs_1", "logs_1b")])
async def test_a_table_and_a_part_of_it_are_not_both_swept(rig, one, other):
    await rig.db.execute(TREE)
    rig.target(one)
    rig.target(other)
    async with rig.app() as app:
        await rig.hold(app, targets=(other,))
    await both_blind(rig, one, other, 6)


async def test_parts_beside_one_another_are_swept_and_each_hold_is_kept(rig):
    await rig.db.execute(TREE)
    rig.target("logs_1a")
    rig.target("logs_1b")
    async with rig.app() as app:
        await rig.hold(app, targets=("logs_1b",))
    found = await rig.sweep()
    assert [found[name].changed for name in ("logs_1a", "logs_1b")] == [2, 0]
    assert await rig.ids() == [500, 501, 502, 503]
    await rig.require_told(logs_1a=2, logs_1b=0)


async def test_one_table_by_two_addresses_is_seen_and_other_targets_go_on(rig):
    await rig.company()
    await rig.db.execute("CREATE TABLE more (LIKE logs INCLUDING ALL); INSERT INTO more TABLE logs")
    rig.target("again", table="public.logs", dsn=rig.dsn.replace("127.0.0.1", "127.1"))
    rig.target("more")
    found = await both_blind(rig, "logs", "again", 8)
    assert (found["more"].outcome, found["more"].changed) == ("drained", 5)


async def test_a_target_that_is_out_of_reach_does_not_stop_the_others(rig):
    await rig.company()
    rig.target("away", table="public.logs", dsn="postgresql://postgres@127.0.0.1:1/nowhere")
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) == ("drained", 5)
    assert found["away"].outcome == "failed"
    assert await rig.ids() == [1001, 1002, 1003]
    await rig.require_told(logs=5, away=0)


async def test_tables_that_inherit_from_two_parents_are_of_both(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "CREATE TABLE others (LIKE logs INCLUDING ALL); CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (logs, others);"
        "INSERT INTO heir VALUES (1, 1, now() - interval '400 days')"
    )
    rig.target("logs")
    rig.target("others")
    await both_blind(rig, "logs", "others", 1)


@pytest.fixture
async def elsewhere(rig):
    """A partition that is a foreign table. Its server needs no handler for the catalogues to have it."""
    await rig.db.execute(
        TREE + "CREATE FOREIGN DATA WRAPPER none_ NO HANDLER; CREATE SERVER far FOREIGN DATA WRAPPER none_;"
        "CREATE TABLE rest (id bigint, account_id bigint, created_at timestamptz) PARTITION BY RANGE (id);"
        "CREATE FOREIGN TABLE rest_far PARTITION OF rest FOR VALUES FROM (1000) TO (2000) SERVER far;"
        "CREATE TABLE rest_near PARTITION OF rest FOR VALUES FROM (0) TO (1000);"
        "INSERT INTO rest SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 5) i;"
        "ALTER TABLE rest ALTER id SET NOT NULL"
    )
    rig.target("rest", key="id")
    return rig


async def test_a_table_with_a_foreign_partition_is_not_swept(elsewhere):
    outcome = await elsewhere.only("rest")
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "rest_far" in outcome.error["message"]
    assert "DETACH PARTITION rest_far" in outcome.error["remedy"]
    assert await elsewhere.ids("rest_near") == [1, 2, 3, 4, 5]
    await elsewhere.require_told(rest=0)


async def test_check_says_what_would_keep_targets_from_being_swept(elsewhere):
    elsewhere.target("logs")
    elsewhere.target("logs_1")
    async with elsewhere.app():
        pass  # `check` makes no state of its own
    done = await run_retentiond("check", "--json", env=elsewhere.environment())
    told = {each["subject"]: each["message"] for each in done.json["findings"] if each["severity"] == "error"}
    assert "rest_far" in told["rest"]
    assert "same records" in told["logs"]
    assert "logs_1" in told["logs"]
    assert "same records" in told["logs_1"]
