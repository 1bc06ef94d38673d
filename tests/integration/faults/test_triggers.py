"""Triggers of the application: what they veto, refuse, delay or change must show in the counts as it is."""

import pytest

from tests.services.sweeping import document

FUNCTION = """
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER meddle {when} EXECUTE FUNCTION meddle();
"""
EACH = "BEFORE DELETE ON logs FOR EACH ROW"


async def meddle(rig, body, when=EACH):
    await rig.db.execute(FUNCTION.format(body=body, when=when))


async def relent(rig):
    await rig.db.execute("DROP TRIGGER meddle ON logs")
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    assert await rig.ids() == [1001, 1002, 1003]


async def test_what_a_trigger_vetoes_is_counted_as_failed_and_the_rest_goes(rig):
    await rig.company(due=30)
    await meddle(rig, "IF OLD.id IN (3, 17) THEN RETURN NULL; END IF; RETURN OLD;")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 28, 2)
    assert "veto" in outcome.error["remedy"]
    assert await rig.ids() == [3, 17, 1001, 1002, 1003]
    await rig.require_told(logs=28)
    await relent(rig)
    await rig.require_told(logs=30)


async def test_a_trigger_that_vetoes_everything_is_no_drained_target(rig):
    await rig.company()
    await meddle(rig, "RETURN NULL;")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 0, 5)
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0)


REFUSALS = {
    "raise_exception": "RAISE EXCEPTION 'not %', OLD.id;",
    "division": "PERFORM 1 / 0;",
    "disk_full": "RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';",
    "out_of_memory": "RAISE EXCEPTION 'no memory' USING ERRCODE = 'out_of_memory';",
    "check": "RAISE EXCEPTION 'check' USING ERRCODE = 'check_violation';",
    "privilege": "RAISE EXCEPTION 'denied' USING ERRCODE = 'insufficient_privilege';",
    "deadlock": "RAISE EXCEPTION 'deadlock' USING ERRCODE = 'deadlock_detected';",
    "cancelled": "RAISE EXCEPTION 'cancelled' USING ERRCODE = 'query_canceled';",
}


@pytest.mark.parametrize("refusal", sorted(REFUSALS))
async def test_a_record_that_a_trigger_refuses_is_set_aside_and_does_not_block_the_rest(rig, refusal):
    """The batch is halved down to the one record, which is set aside (4-safety, "Postgres, what bites" 10)."""
    await rig.company(due=30)
    await meddle(rig, f"IF OLD.id = 17 THEN {REFUSALS[refusal]} END IF; RETURN OLD;")
    outcome = await rig.only()
    assert await rig.ids() == [17, 1001, 1002, 1003], document(outcome)
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 29, 1)
    assert outcome.error["remedy"]
    await rig.require_told(logs=29)
    await relent(rig)
    await rig.require_told(logs=30)


@pytest.mark.parametrize("refusal", ["raise_exception", "disk_full"])
async def test_a_table_that_refuses_every_delete_is_failed_and_leaves_the_others_working(rig, refusal):
    await rig.company()
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.target("others")
    await meddle(rig, REFUSALS[refusal] + " RETURN OLD;", "BEFORE DELETE ON logs FOR EACH STATEMENT")
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) == ("failed", 0)
    assert found["logs"].error["remedy"]
    assert (found["others"].outcome, found["others"].changed) == ("drained", 5)
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0, others=5)
    await relent(rig)
    await rig.require_told(logs=5)


async def test_a_deferred_trigger_that_refuses_at_the_commit_leaves_no_lie_in_the_ledger(rig):
    await rig.company()
    await rig.db.execute(
        FUNCTION.format(
            body="RAISE EXCEPTION 'not at the end'; RETURN NULL;",
            when="AFTER DELETE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
        ).replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER")
    )
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("failed", 0)
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0)
    await relent(rig)
    await rig.require_told(logs=5)
    await rig.require_settled()


async def test_a_slow_trigger_makes_small_batches_and_everything_goes(rig):
    await rig.company(due=40)
    rig.targets["logs"]["pace"] = {"duty": 1.0, "max_batch": 40, "batch_seconds": 0.1}
    await meddle(rig, "PERFORM pg_sleep(0.02); RETURN OLD;")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 40)
    await rig.require_told(logs=40)


async def test_a_trigger_that_archives_what_is_deleted_sees_each_record_once(rig):
    await rig.company(due=30)
    await rig.db.execute("CREATE TABLE archive AS TABLE logs WITH NO DATA")
    await meddle(rig, "INSERT INTO archive SELECT OLD.*; RETURN OLD;")
    assert (await rig.only()).changed == 30
    assert await rig.ids("archive") == list(range(1, 31))
    await rig.require_told(logs=30)


async def test_a_trigger_that_refreshes_its_row_keeps_it_and_the_counts_say_so(rig):
    """A soft delete: the row is changed in place, and the delete vetoed."""
    await rig.company()
    await meddle(rig, "UPDATE logs SET created_at = now() WHERE id = OLD.id AND id = 3;"
                 " IF OLD.id = 3 THEN RETURN NULL; END IF; RETURN OLD;")  # fmt: skip
    outcome = await rig.only()
    assert await rig.ids() == [3, 1001, 1002, 1003]
    assert outcome.changed == 4
    await rig.require_told(logs=4)


async def test_a_trigger_that_deletes_other_due_rows_counts_each_row_once_at_most(rig):
    """What a trigger deletes is the application's doing, and is not in the ledger's count; it is never counted twice."""
    await rig.company(due=6)
    await meddle(
        rig, "DELETE FROM logs WHERE id = OLD.id + 3 AND OLD.id <= 3; RETURN OLD;", "AFTER DELETE ON logs FOR EACH ROW"
    )
    for _ in range(2):
        outcome = await rig.only()
    assert outcome.outcome == "drained"
    assert await rig.ids() == [1001, 1002, 1003]
    told = sum(e["counts"]["erased"] for e in await rig.ledger() if e["kind"] == "outcome")
    assert 3 <= told <= 6


async def test_a_trigger_that_changes_what_anonymising_writes_is_not_believed(rig):
    """It keeps the address of one record: that record is not anonymised, and must not be counted as such for good."""
    await rig.company()
    rig.targets["logs"] |= {"action": "anonymise", "anonymise": {"columns": {"ip": None}}}
    await meddle(rig, "IF NEW.id = 3 THEN NEW.ip := OLD.ip; END IF; RETURN NEW;", "BEFORE UPDATE ON logs FOR EACH ROW")
    outcome = await rig.only()
    kept = await rig.db.fetchval("SELECT count(*) FROM logs WHERE id < 1000 AND ip IS NOT NULL")
    assert kept == 1
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 4, 1)
    await rig.require_told(logs=4)
