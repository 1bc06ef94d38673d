"""Foreign keys that reach a target by another table: its root, a partition, one that inherits; or in mid-sweep."""

import pytest

from retentiond.sweep import sweeper

ACCOUNTS = (
    "CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb,"
    " tier_changed_at timestamptz); INSERT INTO accounts (id, tier) VALUES (1, 'free');"
)
LOGS = "(id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
CHILD = (
    "CREATE TABLE child (id bigint PRIMARY KEY, log_id bigint REFERENCES {} (id) ON DELETE CASCADE, account_id bigint,"
    " created_at timestamptz); INSERT INTO child VALUES (1, 1, 1, now() - interval '400 days');"
)
ROOT = f"CREATE TABLE logs {LOGS} PARTITION BY RANGE (id); CREATE TABLE logs_1 PARTITION OF logs DEFAULT;"
HEIR = f"CREATE TABLE logs {LOGS}; CREATE TABLE logs_1 (PRIMARY KEY (id)) INHERITS (logs);"


@pytest.mark.parametrize(
    ("tables", "referred", "swept"),
    [(ROOT, "logs", "logs_1"), (ROOT, "logs_1", "logs"), (ROOT, "logs", "logs"), (HEIR, "logs_1", "logs")],
)
async def test_a_held_child_keeps_its_parent_by_whatever_table_it_refers_to_it(rig, tables, referred, swept):
    await rig.db.execute(
        ACCOUNTS + tables + "INSERT INTO logs_1 SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 3) i;"
    )
    await rig.db.execute(CHILD.format(referred))
    rig.target(swept)
    rig.target("child")
    async with rig.app() as app:
        await rig.hold(app, targets=("child",))
        outcome = await app.engine.sweep(app.spec.target(swept))
    assert (outcome.outcome, outcome.changed, outcome.blocked) == ("drained", 2, 1), outcome.error
    assert await rig.ids("child") == [1]
    assert await rig.ids() == [1]


async def after_the_first_batch(monkeypatch, rig, statement):
    rest, done = sweeper.Sweeper._rest, []

    async def changed(self, seconds, records):
        if not done:
            done.append(statement)
            await rig.db.execute(statement)
        return await rest(self, seconds, records)

    monkeypatch.setattr(sweeper.Sweeper, "_rest", changed)


async def test_a_foreign_key_added_in_mid_sweep_ends_it_before_it_can_cascade(rig, monkeypatch):
    await rig.company(due=50)
    await rig.db.execute(
        "CREATE TABLE child (id bigint PRIMARY KEY, log_id bigint, account_id bigint, created_at timestamptz);"
        "INSERT INTO child VALUES (1, 45, 1, now() - interval '400 days')"
    )
    added = "ALTER TABLE child ADD FOREIGN KEY (log_id) REFERENCES logs (id) ON DELETE CASCADE"
    await after_the_first_batch(monkeypatch, rig, added)
    outcome = await rig.only()
    assert outcome.outcome == "blind"
    assert "changed in the middle" in outcome.error["message"]
    assert await rig.ids("child") == [1]
    outcome = await rig.only()
    assert (outcome.outcome, outcome.blocked) == ("drained", 1)
    assert await rig.ids() == [45, 1001, 1002, 1003]


async def test_an_anchor_that_becomes_naive_in_mid_sweep_ends_it_before_it_is_misread(rig, monkeypatch):
    await rig.company(due=50)
    rig.targets["logs"]["timezone"] = "America/Los_Angeles"
    await after_the_first_batch(monkeypatch, rig, "ALTER TABLE logs ALTER created_at TYPE timestamp")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 10)
    assert (await rig.only()).outcome == "drained"


async def test_a_new_partition_in_mid_sweep_disturbs_nothing(rig, monkeypatch):
    await rig.db.execute(
        ACCOUNTS + f"CREATE TABLE logs {LOGS} PARTITION BY RANGE (id);"
        "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (1000);"
        "INSERT INTO logs SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 30) i"
    )
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10})
    await after_the_first_batch(
        monkeypatch, rig, "CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM (1000) TO (2000)"
    )
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 30), outcome.error
