"""Records that others refer to: a cascade must not take what has its own term or hold, whatever the key's rule is."""

import asyncio

import asyncpg
import pytest

from tests.services.gates import gate
from tests.services.process import run_retentiond
from tests.services.sweeping import ACCOUNTS

JOBS = (
    ACCOUNTS
    + """
CREATE TABLE jobs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);
INSERT INTO jobs SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 6) i;
"""
)
STEPS = """
CREATE TABLE steps (id bigserial PRIMARY KEY, job_id bigint {rule}, account_id bigint, created_at timestamptz);
INSERT INTO steps (job_id, account_id, created_at) VALUES (2, 1, now()), (2, 1, now()), (4, 1, now());
"""
RULES = {
    "no_action": "REFERENCES jobs",
    "restrict": "REFERENCES jobs ON DELETE RESTRICT",
    "cascade": "REFERENCES jobs ON DELETE CASCADE",
    "set_null": "REFERENCES jobs ON DELETE SET NULL",
    "set_default": "DEFAULT 6 REFERENCES jobs ON DELETE SET DEFAULT",
    "deferred": "REFERENCES jobs DEFERRABLE INITIALLY DEFERRED",
    "deferred_cascade": "REFERENCES jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
}


async def jobs(rig, rule="", more=""):
    await rig.db.execute(JOBS + (STEPS.format(rule=rule) if rule else ""))
    if more:
        await rig.db.execute(more)
    rig.target("jobs")


async def steps(rig):
    return [tuple(row) for row in await rig.db.fetch("SELECT job_id, created_at FROM steps ORDER BY id")]


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("indexed", [True, False])
async def test_a_record_that_is_still_referred_to_stays_and_so_do_its_children(rig, rule, indexed):
    await jobs(rig, RULES[rule], "CREATE INDEX ON steps (job_id);" if indexed else "")
    before = await steps(rig)
    outcome = await rig.only("jobs")
    assert await steps(rig) == before
    assert await rig.ids("jobs") == [2, 4]
    assert (outcome.changed, outcome.blocked) == (4, 2)
    await rig.require_told(jobs=4)
    await rig.db.execute("DELETE FROM steps")
    assert (await rig.only("jobs")).changed == 2
    await rig.require_told(jobs=6)


@pytest.mark.parametrize("rule", ["cascade", "set_null", "no_action"])
async def test_a_held_child_keeps_its_parent_and_is_kept(rig, rule):
    await jobs(
        rig, RULES[rule], "CREATE INDEX ON steps (job_id); UPDATE steps SET created_at = now() - interval '401 days';"
    )
    rig.target("steps")
    async with rig.app() as app:
        await rig.hold(app, targets=("steps",), records={"steps": ("3",)})
    for _ in range(2):
        found = await rig.sweep("steps", "jobs")
    assert await rig.ids("steps") == [3]
    assert await rig.db.fetchval("SELECT job_id FROM steps") == 4
    assert await rig.ids("jobs") == [4]
    assert found["steps"].held == 1
    await rig.require_told(jobs=5, steps=2)


@pytest.mark.parametrize("rule", ["cascade", "no_action", "set_null"])
async def test_children_that_are_targets_go_before_their_parents_in_one_pass(rig, rule):
    """`jobs` sorts before `steps`, and is to be swept after it (4-safety, "Postgres, what bites" 5)."""
    await jobs(
        rig, RULES[rule], "CREATE INDEX ON steps (job_id); UPDATE steps SET created_at = now() - interval '401 days';"
    )
    rig.target("steps")
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert result.code == 0, result.stderr
    assert (await rig.ids("steps"), await rig.ids("jobs")) == ([], [])
    await rig.require_told(jobs=6, steps=3)


@pytest.mark.parametrize("rule", ["cascade", "set_null", "no_action", "restrict", "deferred", "deferred_cascade"])
async def test_a_child_inserted_while_its_parents_batch_runs_is_never_lost(rig, rule):
    """Each insert either fails, as its parent has gone, or its child is there afterwards with its parent."""
    await jobs(rig, RULES[rule], "CREATE INDEX ON steps (job_id); TRUNCATE steps;")

    async def insert(job):
        connection = await asyncpg.connect(rig.dsn)
        try:
            await connection.execute("INSERT INTO steps (job_id, account_id, created_at) VALUES ($1, 1, now())", job)
        except asyncpg.ForeignKeyViolationError:
            return None
        finally:
            await connection.close()
        return job

    async with gate(rig.dsn, "BEFORE DELETE ON jobs FOR EACH ROW") as stop:
        sweep = asyncio.create_task(rig.only("jobs"))
        await stop.reached()
        inserting = [asyncio.create_task(insert(job)) for job in range(1, 7)]
        await asyncio.wait(inserting, timeout=0.5)
        await stop.open()
        outcome = await sweep
        done = {job for job in await asyncio.gather(*inserting) if job is not None}
    kept = {row[0] for row in await rig.db.fetch("SELECT job_id FROM steps")}
    assert kept == done, "a child that was inserted and committed has gone with its parent, or lost it"
    assert done <= set(await rig.ids("jobs"))
    assert outcome.changed == 6 - len(await rig.ids("jobs"))
    if outcome.outcome != "drained":
        assert (await rig.only("jobs")).outcome == "drained"
    await rig.require_told(jobs=6 - len(await rig.ids("jobs")))


async def test_a_table_that_refers_to_itself_goes_from_its_leaves(rig):
    """1 ← 2 ← 3 are due; 4 is, but young 5 refers to it; 6 refers to itself."""
    await jobs(
        rig,
        more="ALTER TABLE jobs ADD parent bigint REFERENCES jobs ON DELETE CASCADE; CREATE INDEX ON jobs (parent);"
        "UPDATE jobs SET parent = CASE id WHEN 2 THEN 1 WHEN 3 THEN 2 WHEN 5 THEN 4 WHEN 6 THEN 6 END;"
        "UPDATE jobs SET created_at = now() WHERE id = 5",
    )
    for _ in range(4):
        outcome = await rig.only("jobs")
    assert {4, 5} <= set(await rig.ids("jobs")) <= {4, 5, 6}
    assert outcome.blocked >= 1
    await rig.require_told(jobs=6 - len(await rig.ids("jobs")))


async def test_a_composite_key_with_a_null_in_it_refers_to_nothing(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE jobs (id bigint, part text, account_id bigint, created_at timestamptz,"
        " PRIMARY KEY (id, part));"
        "INSERT INTO jobs SELECT i, 'a', 1, now() - interval '400 days' FROM generate_series(1, 4) i;"
        "CREATE TABLE steps (id int, job_id bigint, job_part text,"
        " FOREIGN KEY (job_id, job_part) REFERENCES jobs (id, part) ON DELETE CASCADE);"
        "INSERT INTO steps VALUES (1, 1, 'a'), (2, 2, NULL), (3, NULL, 'a')"
    )
    rig.target("jobs")
    outcome = await rig.only("jobs")
    assert (outcome.changed, outcome.blocked) == (3, 1)
    assert await rig.ids("steps") == [1, 2, 3]
    await rig.require_told(jobs=3)


async def test_a_partitioned_child_keeps_its_parents(rig):
    await jobs(
        rig,
        more="CREATE TABLE steps (id bigint, job_id bigint REFERENCES jobs ON DELETE CASCADE, at date)"
        " PARTITION BY RANGE (at);"
        "CREATE TABLE steps_1 PARTITION OF steps FOR VALUES FROM ('2020-01-01') TO ('2024-01-01');"
        "CREATE TABLE steps_2 PARTITION OF steps DEFAULT;"
        "INSERT INTO steps VALUES (1, 1, '2021-01-01'), (2, 3, now())",
    )
    outcome = await rig.only("jobs")
    assert (outcome.changed, outcome.blocked) == (4, 2)
    assert await rig.ids("steps") == [1, 2]
    await rig.require_told(jobs=4)


async def test_a_partitioned_parent_keeps_what_is_referred_to(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE jobs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
        " PARTITION BY HASH (id);"
        "CREATE TABLE jobs_0 PARTITION OF jobs FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE jobs_1 PARTITION OF jobs FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO jobs SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 6) i;"
        + STEPS.format(rule=RULES["cascade"])
    )
    rig.target("jobs")
    outcome = await rig.only("jobs")
    assert (outcome.changed, outcome.blocked) == (4, 2)
    assert len(await rig.ids("steps")) == 3
    await rig.require_told(jobs=4)


async def test_a_child_under_row_security_that_the_role_can_not_see_keeps_its_parent(rig, limited):
    """The check for children must not be fooled by rows that are hidden: the cascade would take them all the same."""
    await jobs(rig, RULES["cascade"], "ALTER TABLE steps ENABLE ROW LEVEL SECURITY;")
    await limited("GRANT SELECT, DELETE, UPDATE ON jobs TO {role}", "GRANT SELECT ON accounts, steps TO {role}")
    outcome = await rig.only("jobs")
    assert len(await rig.ids("steps")) == 3
    assert {2, 4} <= set(await rig.ids("jobs"))
    await rig.require_told(jobs=outcome.changed)
