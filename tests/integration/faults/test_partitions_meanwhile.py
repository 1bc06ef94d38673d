"""What may come between the look at a partition, its DETACH, the proof and its DROP: each at just that moment."""

from dataclasses import replace

import asyncpg
import pytest

from retentiond.control import detached
from retentiond.stores.base import PartState
from retentiond.stores.postgres import detach
from retentiond.stores.postgres.partbatch import PartBatch
from retentiond.stores.postgres.partitions import PostgresPartitions
from retentiond.sweep.parts import WholeParts
from tests.services.gates import open_transaction
from tests.services.parted import (
    COLUMNS,
    EACH,
    OLD,
    YOUNG,
    attached,
    execute,
    noted,
    parted,
    require_done,
    tables,
    when,
    whole,
)

DEFAULT = "CREATE TABLE logs_rest PARTITION OF logs DEFAULT;"


async def test_a_hold_placed_between_detach_and_drop_brings_the_partition_back(apart, monkeypatch):
    await parted(apart)
    seen = []
    async with apart.app() as app:

        async def place(_):
            seen.append(await attached(apart))
            seen.append(await apart.hold(app, accounts=("2",)))

        when(monkeypatch, PostgresPartitions, "detach", place, times=1)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert "logs_p0" not in seen[0], "it was detached when the hold came"
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 3 * EACH // 2, 3 * EACH // 2), outcome.error
    assert await whole(apart) == 0
    kept = [1000 * k + i for k in range(3) for i in range(1, EACH + 1, 2)]
    await require_done(apart, *kept, gone=3 * EACH // 2)


@pytest.mark.parametrize("default", ["", DEFAULT])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts SET tier = 'enterprise' WHERE id = 2",
        "UPDATE logs_p0 SET account_id = 3 WHERE account_id = 2",
    ],
    ids=["an upgraded account", "records that change hands"],
)
async def test_what_is_no_longer_due_after_the_look_stays(apart, monkeypatch, statement, default):
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    await parted(apart, more=default)
    when(monkeypatch, PartBatch, "erase", execute(apart, statement), before=True)
    await apart.only()
    assert "logs_p0" in await attached(apart)
    assert [number for number in await apart.ids() if number <= EACH] == list(range(1, EACH + 1, 2))
    assert await noted(apart) == []
    assert await attached(apart) == await tables(apart)


@pytest.mark.parametrize("default", ["", DEFAULT])
async def test_a_record_inserted_straight_into_the_partition_meanwhile_is_judged_as_well(apart, monkeypatch, default):
    await parted(apart, more=default)
    insert = "INSERT INTO logs_p0 SELECT 777, 3, created_at, 'x' FROM logs_p0 LIMIT 1"
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    when(monkeypatch, PartBatch, "erase", execute(apart, insert), before=True)
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    await require_done(apart, 777)


@pytest.mark.parametrize("default", ["", DEFAULT])
async def test_nobody_writes_between_the_proof_and_the_drop(apart, monkeypatch, default):
    await parted(apart, more=default)
    refused = []

    async def write(_):
        writer = await asyncpg.connect(apart.dsn)
        try:
            await writer.execute("SET lock_timeout = 50")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await writer.execute("INSERT INTO logs_p0 SELECT 777, 3, created_at, 'x' FROM logs_p0 LIMIT 1")
            refused.append(True)
        finally:
            await writer.close()

    when(monkeypatch, PartBatch, "erase", write)
    await apart.only()
    assert refused == [True]
    await require_done(apart)


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("ALTER TABLE logs DETACH PARTITION logs_p1 CONCURRENTLY", True),
        ("DROP TABLE logs_p1", False),
        ("ALTER TABLE logs_p1 RENAME TO logs_q1", False),
    ],
)
async def test_another_job_that_takes_a_partition_after_the_look_has_it(apart, monkeypatch, statement, left):
    """It is not attached again, and none of its records is told of as erased but those that a row went of."""
    await parted(apart)
    when(monkeypatch, WholeParts, "_detached", execute(apart, statement), before=True)
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    assert ("logs_p1" in await tables(apart)) is left
    assert ("logs_p1" in await attached(apart)) is False
    told = 2 * EACH + (EACH if "RENAME" in statement else 0)
    await apart.require_told(logs=told)
    await apart.require_settled()
    assert await noted(apart) == []


async def test_a_partition_that_another_job_attached_again_before_the_drop_stays(apart, monkeypatch):
    await parted(apart)

    async def back(batch):
        del batch
        for each in ("logs_p0", "logs_p1", "logs_p2"):
            k = OLD.index(each)
            await apart.db.execute(
                f"DO $$ BEGIN EXECUTE format('ALTER TABLE logs ATTACH PARTITION {each} FOR VALUES FROM (%L) TO (%L)',"
                f" current_date - {900 - 100 * k}, current_date - {800 - 100 * k}); END $$"
            )

    when(monkeypatch, PartBatch, "erase", back, before=True)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await attached(apart) == [*OLD, YOUNG]
    assert await whole(apart) == 0
    await require_done(apart)


async def test_a_trigger_that_came_after_the_look_is_heeded(apart, monkeypatch):
    await parted(apart)
    when(
        monkeypatch,
        PartBatch,
        "erase",
        execute(
            apart,
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER no BEFORE DELETE ON logs_p1 FOR EACH ROW EXECUTE FUNCTION no()",
        ),
        before=True,
    )
    await apart.only()
    assert await attached(apart) == ["logs_p1", YOUNG]
    assert [number for number in await apart.ids() if number < 9000] == list(range(1001, 1001 + EACH))


async def test_a_view_that_the_catalogue_does_not_tell_of_brings_it_back_and_it_is_not_tried_again(apart, monkeypatch):
    await parted(apart)
    tried = []

    async def count(_):
        tried.append(True)

    when(monkeypatch, PostgresPartitions, "detach", count, times=99)
    await apart.db.execute("CREATE TABLE typed (one logs_p1)")
    async with apart.app() as app:
        for _ in range(2):
            outcome = await app.engine.sweep(app.spec.target("logs"))
    assert outcome.outcome == "drained", outcome.error
    assert len(tried) == 3
    assert await attached(apart) == [*OLD, YOUNG]
    await require_done(apart)


async def test_a_long_transaction_over_the_table_is_not_waited_for(apart):
    await parted(apart)
    async with open_transaction(apart.dsn, "SELECT count(*) FROM logs") as reader:
        outcome = await apart.only()
        assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
        await reader.execute("COMMIT")
    assert await attached(apart) == [*OLD, YOUNG]
    assert await whole(apart) == 0
    await require_done(apart)


async def test_with_a_default_partition_a_lock_on_the_table_is_not_waited_for(apart):
    await parted(apart, more=DEFAULT)
    async with open_transaction(apart.dsn, "SELECT count(*) FROM logs") as reader:
        outcome = await apart.only()
        assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
        await reader.execute("COMMIT")
    assert await whole(apart) == 0
    await require_done(apart)


async def test_notes_are_written_under_the_lease(apart, monkeypatch):
    await parted(apart)

    async def fenced(_):
        async with apart.control_connection() as control:
            await control.execute("UPDATE retentiond.units SET fence = fence + 1")

    when(monkeypatch, WholeParts, "_detached", fenced, before=True)
    outcome = await apart.only()
    assert outcome.outcome == "failed"
    assert await attached(apart) == [*OLD, YOUNG]
    assert await noted(apart) == []


async def test_a_fenced_worker_destroys_nothing_and_brings_back_what_it_took(apart, monkeypatch):
    await parted(apart)

    async def fenced(_):
        async with apart.control_connection() as control:
            await control.execute("UPDATE retentiond.units SET fence = fence + 1")

    when(monkeypatch, PostgresPartitions, "detach", fenced, times=1)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert await attached(apart) == [*OLD, YOUNG]


async def test_a_pause_between_detach_and_drop_brings_them_back(apart, monkeypatch):
    await parted(apart)

    async def pause(_):
        async with apart.control_connection() as control:
            await control.execute("UPDATE retentiond.flags SET paused = true, paused_by = 'test'")

    when(monkeypatch, PostgresPartitions, "detach", pause, times=1)
    assert (await apart.only()).outcome == "paused"
    assert await attached(apart) == [*OLD, YOUNG]
    assert await noted(apart) == []


async def test_a_partition_whose_accounts_told_too_little_is_detached_once_and_then_read_first(apart, monkeypatch):
    """All accounts that there are have short terms; a record of an unknown one lies behind what the sample sees."""
    columns = COLUMNS.replace("account_id bigint", "account_id bigint NOT NULL")
    await parted(apart, columns=columns)
    await apart.db.execute(
        "DELETE FROM accounts WHERE tier = 'enterprise';"
        "INSERT INTO logs SELECT 100000 + i, 1 + i % 2, current_date - 850, 'x' FROM generate_series(1, 3000) i;"
        "INSERT INTO logs VALUES (777, 77, current_date - 850, 'x')"
    )
    tried = []

    async def count(_):
        tried.append(True)

    when(monkeypatch, PostgresPartitions, "detach", count, times=99)
    apart.targets["logs"]["pace"] = {"duty": 1.0}
    async with apart.app() as app:
        first = await app.engine.sweep(app.spec.target("logs"))
        second = await app.engine.sweep(app.spec.target("logs"))
    assert (first.outcome, first.changed, second.changed) == ("drained", 3 * EACH + 3000, 0)
    assert len(tried) == 3
    assert await attached(apart) == ["logs_p0", YOUNG]
    assert 777 in await apart.ids()


async def test_states_are_told_as_they_are(apart):
    await parted(apart)
    async with apart.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        plan = await app.engine.plan(app.spec.target("logs"))
        (group,) = [each async for each in store.partitions.due(lambda: plan)]
        assert [part.name for part in group] == [f"public.{each}" for each in OLD]
        assert [part.records for part in group] == [EACH] * 3
        await apart.db.execute("ALTER TABLE logs DETACH PARTITION logs_p1; DROP TABLE logs_p2")
        states = await store.partitions.states([*group, replace(group[0], number=1)])
    assert list(states.values()) == [PartState.ATTACHED, PartState.DETACHED, PartState.GONE, PartState.GONE]
    assert detached.FINAL_SECONDS > detach._IDLE_MS / 1000 + detach._STATEMENT_MS / 1000
