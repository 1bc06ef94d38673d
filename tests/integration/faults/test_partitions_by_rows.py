"""Partitions that go by rows since somebody said so: the configuration, or a hold that the database itself keeps."""

import pytest

from tests.services.parted import EACH, OLD, YOUNG, attached, parted, tables, whole

DEFAULT = "CREATE TABLE logs_rest PARTITION OF logs DEFAULT;"


async def findings(rig):
    async with rig.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        return [each for each in await store.check() if "not dropped" in each.message]


@pytest.mark.parametrize("default", ["", DEFAULT])
async def test_with_partitions_rows_none_is_dropped(apart, default):
    await parted(apart, more=default, partitions="rows")
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await tables(apart) == [*OLD, YOUNG, *(["logs_rest"] if default else [])]
    assert await whole(apart) == 0
    assert await findings(apart) == [], "it is as it was wanted"


async def test_the_way_they_go_enters_no_verdict(apart):
    await parted(apart)
    async with apart.app() as app:
        before = app.spec.digest
    apart.targets["logs"]["partitions"] = "rows"
    async with apart.app() as app:
        assert app.spec.digest == before


async def test_while_a_native_hold_covers_the_table_all_go_by_rows_and_check_says_for_what(apart):
    """Also what the control database has lost is kept by it: no proof would mind that."""
    await parted(apart, native_holds=True)
    async with apart.app() as app:
        await apart.hold(app, accounts=("77",))
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await attached(apart) == [*OLD, YOUNG]
    assert await whole(apart) == 0
    (finding,) = await findings(apart)
    assert "a hold is in force on it in the database itself (native_holds)" in finding.message
    assert finding.severity == "info"
    assert "when no hold covers" in finding.remedy


async def test_a_trigger_of_somebody_else_is_named_before_our_own(apart):
    await parted(apart, native_holds=True)
    async with apart.app() as app:
        await apart.hold(app, accounts=("77",))
    await apart.db.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
        "CREATE TRIGGER no BEFORE DELETE ON logs_p1 FOR EACH ROW EXECUTE FUNCTION no()"
    )
    told = {each.message.rpartition(": ")[2] for each in await findings(apart)}
    assert told == {
        "it has a trigger on deletes",
        "a hold is in force on it in the database itself (native_holds)",
    }
