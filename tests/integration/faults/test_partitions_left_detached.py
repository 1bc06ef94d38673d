"""What a worker that is gone has left detached is brought back, or told of: by the next sweep, whatever it left."""

import pytest

from retentiond.stores.postgres.partitions import PostgresPartitions
from tests.services.parted import (
    EACH,
    OLD,
    STEPS,
    YOUNG,
    attached,
    died,
    grow_old,
    noted,
    parted,
    require_done,
    tables,
    whole,
)
from tests.services.sweeping import document


@pytest.mark.parametrize("step", sorted(STEPS))
async def test_whatever_a_crash_leaves_the_next_sweep_finishes(apart, monkeypatch, step):
    await parted(apart)
    await died(apart, monkeypatch, step)
    await grow_old(apart)
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    await require_done(apart)
    assert await tables(apart) == [YOUNG]


async def test_what_a_crash_left_detached_is_back_before_the_guard_counts_and_a_hold_keeps_it(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    assert await attached(apart) == [YOUNG]
    async with apart.app() as app:
        await apart.hold(app, accounts=("2",))
    outcome = await apart.only()
    assert (outcome.outcome, outcome.held) == ("drained", 3 * EACH // 2)
    assert await attached(apart) == [*OLD, YOUNG]
    checks = "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'logs_p0'::regclass"
    assert await apart.db.fetchval(checks) == 0, "no trace of the detach"


async def test_one_that_was_noted_by_a_worker_that_may_yet_detach_it_is_remembered(apart, monkeypatch):
    """The worker is stopped just before its DETACH, another sweeps, and it comes back and is killed after it."""
    apart.targets.clear()
    await parted(apart)
    await died(apart, monkeypatch, "after the note")
    async with apart.app() as app:
        monkeypatch.setattr(PostgresPartitions, "due", no_parts)
        await app.engine.sweep(app.spec.target("logs"))
        assert "public.logs_p0" in await noted(apart)
        await apart.db.execute("ALTER TABLE logs DETACH PARTITION logs_p0 CONCURRENTLY")
        await app.engine.sweep(app.spec.target("logs"))
    assert await attached(apart) == [*OLD, YOUNG]


async def no_parts(_, plan):
    for each in ():
        yield each, plan


async def test_the_partition_of_a_living_worker_is_left_to_it(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    async with apart.control_connection() as control:
        await control.execute(
            "INSERT INTO retentiond.units (target, shard, fence, owner, lease_until)"
            " VALUES ('logs', 'b', 3, 'other', now() + interval '1 hour');"
            "UPDATE retentiond.detached SET shard = 'b', fence = 3, owner = 'other'"
        )
    assert (await apart.only()).outcome == "drained"
    assert await attached(apart) == [YOUNG]
    assert len(await noted(apart)) == 3


async def test_one_that_cant_be_attached_again_is_dropped_once_proved(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    await apart.db.execute(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE logs_x PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',"
        " current_date - 850, current_date - 820); END $$"
    )
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await tables(apart) == [YOUNG, "logs_x"]
    assert await noted(apart) == []
    await apart.require_told(logs=3 * EACH)


async def test_one_that_cant_be_attached_and_has_a_held_record_is_told_of_by_every_sweep(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    await apart.db.execute(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE logs_x PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',"
        " current_date - 850, current_date - 820); END $$"
    )
    async with apart.app() as app:
        await apart.hold(app, accounts=("2",))
    await grow_old(apart)
    for _ in range(2):
        outcome = await apart.only()
        assert outcome.outcome == "failed"
        assert "public.logs_p0 was a partition of target logs" in outcome.error["message"]
        assert "ATTACH PARTITION public.logs_p0 FOR VALUES" in outcome.error["remedy"]
        assert document(outcome)["error"]["kind"] == "refused"
    assert await tables(apart) == [*OLD, YOUNG, "logs_x"]
    assert await attached(apart) == ["logs_p1", "logs_p2", YOUNG, "logs_x"]
    assert await noted(apart) == ["public.logs_p0"]
    await apart.db.execute("DROP TABLE logs_x")
    assert (await apart.only()).outcome == "drained"
    assert await attached(apart) == [*OLD, YOUNG]


async def test_a_note_of_another_table_is_told_of_and_nothing_is_done_to_it(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    async with apart.control_connection() as control:
        await control.execute("UPDATE retentiond.detached SET place = 'app/public/others'")
    outcome = await apart.only()
    assert outcome.outcome == "failed"
    assert "it is of app/public/others" in outcome.error["message"]
    assert await attached(apart) == [YOUNG]


CHECKS = """
SELECT conname::text FROM pg_constraint WHERE contype = 'c' AND conrelid = 'logs_p0'::regclass ORDER BY 1
"""


async def checks(rig):
    return [row[0] for row in await rig.db.fetch(CHECKS)]


async def brought_back(rig):
    """By a sweep under a hold, so that nothing goes; which constraints the first partition has then."""
    async with rig.app() as app:
        await rig.hold(app, targets=("logs",))
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert outcome.outcome == "drained", outcome.error
    assert await attached(rig) == [*OLD, YOUNG]
    return await checks(rig)


async def test_a_constraint_that_somebody_added_to_the_detached_table_is_there_when_it_is_back(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    assert len(await checks(apart)) == 1, "the copy of the bounds"
    await apart.db.execute("ALTER TABLE logs_p0 ADD CONSTRAINT theirs CHECK (id > 0)")
    assert await brought_back(apart) == ["theirs"]


async def test_a_constraint_that_a_migration_added_to_the_whole_and_to_the_detached_table_is_merged(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    for table in ("logs", *OLD):
        await apart.db.execute(f"ALTER TABLE {table} ADD CONSTRAINT positive CHECK (id > 0)")
    assert await brought_back(apart) == ["positive"]
    await apart.db.execute("ALTER TABLE logs DROP CONSTRAINT positive")
    assert await checks(apart) == [], "it is the whole table's"


async def test_a_constraint_that_says_what_the_bounds_say_stays_where_it_was_there_before(apart, monkeypatch):
    """PostgreSQL makes no copy then."""
    await parted(apart)
    bounds = await apart.db.fetchval("SELECT pg_get_partition_constraintdef('logs_p0'::regclass)")
    await apart.db.execute(f"ALTER TABLE logs_p0 ADD CONSTRAINT theirs CHECK ({bounds})")
    await died(apart, monkeypatch, "before the proof")
    assert await brought_back(apart) == ["theirs"]


async def test_of_two_that_say_what_the_bounds_say_the_later_one_stays(apart, monkeypatch):
    await parted(apart)
    bounds = await apart.db.fetchval("SELECT pg_get_partition_constraintdef('logs_p0'::regclass)")
    await died(apart, monkeypatch, "before the proof")
    await apart.db.execute(f"ALTER TABLE logs_p0 ADD CONSTRAINT a_theirs CHECK ({bounds})")
    assert await brought_back(apart) == ["a_theirs"]


async def test_the_copy_of_bounds_over_several_levels_goes_with_those_of_its_parts(apart, monkeypatch):
    await parted(apart, records="")
    await apart.db.execute(
        "CREATE TABLE logs_q (LIKE logs) PARTITION BY HASH (id);"
        "CREATE TABLE logs_q_0 PARTITION OF logs_q FOR VALUES WITH (MODULUS 1, REMAINDER 0); DROP TABLE logs_p0;"
        "ALTER TABLE logs ATTACH PARTITION logs_q FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');"
        "INSERT INTO logs SELECT i, 1, '2001-06-01', '' FROM generate_series(1, 30) i"
    )
    await died(apart, monkeypatch, "before the proof")
    async with apart.app() as app:
        await apart.hold(app, targets=("logs",))
        assert (await app.engine.sweep(app.spec.target("logs"))).outcome == "drained"
    assert "logs_q" in await attached(apart)
    left = "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text LIKE 'logs_q%'"
    assert await apart.db.fetchval(left) == 0


async def test_what_was_left_detached_is_brought_back_also_where_whole_ones_go_no_more(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    apart.targets["logs"]["partitions"] = "rows"
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await attached(apart) == [*OLD, YOUNG]
    assert await whole(apart) == 0


async def test_one_that_cant_be_attached_is_not_dropped_where_whole_ones_go_no_more(apart, monkeypatch):
    await parted(apart)
    await died(apart, monkeypatch, "before the proof")
    await apart.db.execute(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE logs_x PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',"
        " current_date - 850, current_date - 820); END $$"
    )
    apart.targets["logs"]["partitions"] = "rows"
    outcome = await apart.only()
    assert outcome.outcome == "failed"
    assert "public.logs_p0 was a partition of target logs" in outcome.error["message"]
    assert "logs_p0" in await tables(apart)
