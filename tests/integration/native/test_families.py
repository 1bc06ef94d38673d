"""Partitions and heirs: each table that records lie in keeps what is held, also one that comes later."""

import pytest

from retentiond.control import holds, natives
from retentiond.stores.postgres.native_check import findings
from tests.integration.native.test_activation import activate, placed, until_active
from tests.services.gates import open_transaction
from tests.services.native import refused

PARTED = """
CREATE TABLE logs (id bigint, account_id bigint, created_at timestamptz NOT NULL, ip text, PRIMARY KEY (id, created_at))
  PARTITION BY RANGE (created_at);
CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2030-01-01') PARTITION BY RANGE (created_at);
CREATE TABLE logs_new_1 PARTITION OF logs_new FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE logs_new_2 PARTITION OF logs_new DEFAULT;
INSERT INTO logs SELECT i, 1 + i % 2, '2019-06-01'::timestamptz + i * interval '100 days' FROM generate_series(1, 10) i;
"""


@pytest.fixture
async def parted(rig):
    await rig.db.execute(PARTED)
    rig.accounts = None
    rig.target("logs", native_holds=True)
    return rig


async def test_partitions_keep_what_is_held_whichever_way_they_are_reached(parted):
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        db = parted.db
        await refused(db, "DELETE FROM logs WHERE id = 2")
        await refused(db, "DELETE FROM logs_old WHERE account_id = 1")
        await refused(db, "DELETE FROM logs_new_1")
        for table in ("logs", "logs_old", "logs_new", "logs_new_1", "logs_new_2"):
            await refused(db, f"TRUNCATE {table}")
        await refused(db, "UPDATE logs SET account_id = 2 WHERE account_id = 1")
        await db.execute("DELETE FROM logs WHERE account_id = 2")
        assert await db.fetchval("SELECT count(*) FROM logs") == 5


async def test_a_key_with_a_time_in_it_is_told_alike_in_every_zone(parted):
    async with parted.app() as app:
        key = await parted.db.fetchval(
            "SELECT jsonb_build_array(id::text, created_at::text)::text FROM logs WHERE id = 4"
        )
        await parted.hold(app, records={"logs": (key,)})
        await parted.db.execute("SET TimeZone = 'Pacific/Chatham'; SET DateStyle = 'German'")
        await refused(parted.db, "DELETE FROM logs WHERE id = 4")
        await refused(parted.db, "UPDATE logs SET created_at = created_at + interval '1 s' WHERE id = 4")
        await parted.db.execute("DELETE FROM logs WHERE id <> 4")


async def test_a_partition_that_is_attached_later_keeps_its_rows_at_once_and_itself_after_the_next_look(parted):
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        await parted.db.execute(
            "CREATE TABLE logs_next (LIKE logs INCLUDING ALL); INSERT INTO logs_next VALUES (99, 1, '2030-05-01');"
            " ALTER TABLE logs ATTACH PARTITION logs_next FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')"
        )
        await refused(parted.db, "DELETE FROM logs WHERE id = 99")
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(parted.db, "TRUNCATE logs_next")
        assert "logs_next" in str(app.native["logs"].mended)


async def test_a_partition_can_be_detached_and_attached_again(parted):
    """DDL is not refused; what is in our hands is that it meets no leftover of ours that it stumbles over."""
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        await parted.db.execute("ALTER TABLE logs DETACH PARTITION logs_old")
        await refused(parted.db, "TRUNCATE logs_old")
        assert await natives.settle(app.database, app.natives()) == {}
        await parted.db.execute(
            "ALTER TABLE logs ATTACH PARTITION logs_old FOR VALUES FROM (MINVALUE) TO ('2020-01-01')"
        )
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(parted.db, "DELETE FROM logs_old WHERE account_id = 1")


async def test_a_trigger_disabled_on_one_partition_is_mended(parted):
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        await parted.db.execute("ALTER TABLE logs_new_1 DISABLE TRIGGER ALL")
        await parted.db.execute("DELETE FROM logs_new_1 WHERE id = 4")
        await parted.db.execute("INSERT INTO logs VALUES (44, 1, '2020-08-01')")
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(parted.db, "DELETE FROM logs_new_1")
        await refused(parted.db, "TRUNCATE logs_new_1")


async def test_tables_that_inherit_keep_what_is_held(rig):
    await rig.company()
    await rig.db.execute(
        "CREATE TABLE more () INHERITS (logs); ALTER TABLE more ADD PRIMARY KEY (id);"
        " INSERT INTO more VALUES (7000, 1, now(), 'x'), (7001, 2, now(), 'x')"
    )
    rig.targets["logs"]["native_holds"] = True
    async with rig.app() as app:
        await rig.hold(app, accounts=("1",))
        await refused(rig.db, "DELETE FROM logs WHERE id = 7000")
        await refused(rig.db, "DELETE FROM more WHERE id = 7000")
        await refused(rig.db, "TRUNCATE more")
        await rig.db.execute("DELETE FROM logs WHERE id = 7001")
        await rig.db.execute("CREATE TABLE later () INHERITS (logs); INSERT INTO later VALUES (8000, 1, now(), 'x')")
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(rig.db, "DELETE FROM later")


async def test_our_own_sweep_of_a_partitioned_table_goes_on_beside_a_hold(parted):
    parted.policy = {"classes": {"operational_logs": {"ttl": "P365D"}}}
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.failed) == ("drained", 0), outcome.error
    assert await parted.db.fetchval("SELECT count(*) FROM logs WHERE account_id = 1") == 5


async def test_who_owns_the_table_can_make_partitions_with_no_right_on_our_schema(parted):
    await parted.db.execute(
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;"
        " CREATE ROLE shop_owner; GRANT CREATE ON SCHEMA public TO shop_owner; ALTER TABLE logs OWNER TO shop_owner"
    )
    try:
        async with parted.app() as app:
            await parted.hold(app, accounts=("1",))
            await parted.db.execute(
                "SET ROLE shop_owner;"
                " CREATE TABLE logs_next PARTITION OF logs FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');"
                " INSERT INTO logs VALUES (99, 1, '2030-05-01')"
            )
            await refused(parted.db, "DELETE FROM logs_next")
    finally:
        await parted.db.execute("RESET ROLE; DROP OWNED BY shop_owner CASCADE; DROP ROLE shop_owner")


async def test_a_partition_in_use_keeps_the_hold_pending_and_the_others_unlocked(parted):
    async with parted.app() as app, open_transaction(parted.dsn, "DELETE FROM logs_new_2 WHERE id = 9") as other:
        hold = await placed(app, accounts=("1",))
        active, why = await activate(app)
        assert active == []
        assert str(other.get_server_pid()) in why[hold.id][0].detail
        await parted.db.execute("DELETE FROM logs_old WHERE id = 1")
        await other.execute("COMMIT")
        await until_active(app, hold)
        for table in ("logs_old", "logs_new_1", "logs_new_2"):
            await refused(parted.db, f"TRUNCATE {table}")


WHEN = "CREATE OR REPLACE TRIGGER {trigger}_{kind} AFTER {what} WHEN (false) EXECUTE FUNCTION retentiond_holds.{function}()"


async def replaced(app, db, kind, what):
    names = app.native["logs"].names
    await db.execute(WHEN.format(trigger=names.trigger, function=names.function, kind=kind, what=what))


async def drift(app):
    async with app.database.transaction(read_only=True) as tx:
        return [each.message for each in await findings(app.native["logs"], await holds.list_all(tx))]


@pytest.fixture
async def inherited(rig):
    await rig.company()
    await rig.db.execute(
        "CREATE TABLE more () INHERITS (logs); CREATE TABLE evenmore () INHERITS (more);"
        " INSERT INTO more VALUES (7000, 1, now(), 'x'); INSERT INTO evenmore VALUES (8000, 1, now(), 'x')"
    )
    rig.targets["logs"]["native_holds"] = True
    return rig


@pytest.mark.parametrize("table", ["more", "evenmore"])
@pytest.mark.parametrize(("kind", "what"), [("delete", "DELETE"), ("update", "UPDATE")])
async def test_a_condition_changed_on_a_table_that_inherits_is_found_and_mended(inherited, table, kind, what):
    async with inherited.app() as app:
        await inherited.hold(app, accounts=("1",))
        assert await drift(app) == []
        await replaced(app, inherited.db, kind, f"{what} ON {table} FOR EACH ROW")
        (message,) = await drift(app)
        assert f"a trigger on public.{table} was changed" in message
        assert await natives.settle(app.database, app.natives()) == {}
        assert app.native["logs"].mended
        assert await drift(app) == []
        await refused(inherited.db, f"DELETE FROM ONLY {table}")
        await refused(inherited.db, f"UPDATE ONLY {table} SET account_id = 2")


async def test_a_table_that_comes_with_triggers_of_somebody_elses_making_is_found_and_mended(inherited):
    async with inherited.app() as app:
        await inherited.hold(app, accounts=("1",))
        await inherited.db.execute("CREATE TABLE later () INHERITS (logs); INSERT INTO later VALUES (9000, 1, now())")
        for kind in ("delete", "update"):
            await replaced(app, inherited.db, kind, f"{kind.upper()} ON later FOR EACH ROW")
        await inherited.db.execute(
            "CREATE TRIGGER {t}_truncate AFTER TRUNCATE ON later EXECUTE FUNCTION retentiond_holds.{f}()".format(
                t=app.native["logs"].names.trigger, f=app.native["logs"].names.function
            )
        )
        (message,) = await drift(app)
        assert "a trigger on public.later was changed" in message
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(inherited.db, "DELETE FROM later")


async def test_a_table_that_inherits_no_more_is_no_drift(inherited):
    async with inherited.app() as app:
        await inherited.hold(app, accounts=("1",))
        await inherited.db.execute("DROP TABLE evenmore")
        assert await drift(app) == []
        assert await natives.settle(app.database, app.natives()) == {}
        assert app.native["logs"].mended == ()


async def test_a_condition_on_truncate_of_a_partition_is_found_and_mended(parted):
    async with parted.app() as app:
        await parted.hold(app, accounts=("1",))
        await replaced(app, parted.db, "truncate", "TRUNCATE ON logs_new_1")
        (message,) = await drift(app)
        assert "public.logs_new_1 has no trigger" in message
        assert await natives.settle(app.database, app.natives()) == {}
        await refused(parted.db, "TRUNCATE logs_new_1")
