"""A row of `held` that can't be read keeps no other target's holds, loses none of its own, and is told of."""

import json

import pytest

from retentiond.control import holds, natives
from retentiond.domain.holds import TargetHold
from retentiond.stores.postgres import native_covers
from retentiond.stores.postgres.native import NativeHolds
from retentiond.stores.postgres.native_check import findings
from tests.integration.native.test_activation import activate, placed
from tests.services.native import let_end, refused

UNREADABLE = [
    '{"since": "x"}',
    '{"since": "2026-01-01T00:00:00"}',
    '{"until": 7}',
    '{"accounts": "1"}',
    '{"accounts": [1]}',
    '{"records": null}',
    '{"prefixes": {"a": 1}}',
    '{"colour": ["red"]}',
    "[]",
    "null",
    '"all"',
]


@pytest.fixture
async def company(rig):
    await rig.company()
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.targets["logs"]["native_holds"] = True
    rig.target("others", native_holds=True)
    return rig


async def spoil(rig, covers='{"since": "x"}'):
    await rig.db.execute("UPDATE retentiond_holds.held SET covers = $1::text::jsonb WHERE target = 'logs'", covers)


async def found(app, known=None):
    async with app.database.transaction(read_only=True) as tx:
        return await findings(app.native["logs"], await holds.list_all(tx) if known is None else known)


@pytest.mark.parametrize("covers", UNREADABLE)
async def test_it_is_found_with_the_sql_that_mends_it_and_written_anew_by_the_next_look(company, covers):
    async with company.app() as app:
        hold = await company.hold(app, targets=("logs",), accounts=("1",))
        await spoil(company, covers)
        (finding,) = await found(app)
        assert finding.severity == "error"
        assert f"the row of hold {hold.id} in retentiond_holds.held can't be read" in finding.message
        assert finding.remedy.startswith("DELETE FROM retentiond_holds.held WHERE")
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        assert await natives.settle(app.database, app.natives()) == {}
        assert await found(app) == []
        assert "rows of retentiond_holds.held were changed" in app.native["logs"].mended
        await refused(company.db, "DELETE FROM logs WHERE id = 1")


async def test_its_remedy_mends_it_too(company):
    async with company.app() as app:
        await company.hold(app, targets=("logs",), accounts=("1",))
        await spoil(company)
        (finding,) = await found(app)
        await company.db.execute(finding.remedy.partition("--")[0])
        assert await natives.settle(app.database, app.natives()) == {}
        assert await found(app) == []


async def test_other_holds_become_active_meanwhile_there_and_elsewhere(company):
    async with company.app() as app:
        await company.hold(app, targets=("logs",), accounts=("1",))
        await spoil(company)
        here = await company.hold(app, targets=("logs",), accounts=("2",))
        await spoil(company)
        elsewhere = await company.hold(app, targets=("others",))
        assert (here.state, elsewhere.state) == ("active", "active")
        await refused(company.db, "DELETE FROM others")


async def test_one_that_is_released_goes_with_its_row(company):
    async with company.app() as app:
        hold = await company.hold(app, targets=("logs",), accounts=("1",))
        await spoil(company)
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
        assert await let_end(app) == {}
        assert await found(app) == []
        await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_of_a_hold_that_nobody_knows_it_leaves_all_as_it_is_until_somebody_decides(company):
    """The trigger's own text is then all that keeps the hold in force: to write it anew would be to lose it."""
    async with company.app() as app:
        lost = await company.hold(app, targets=("logs",), accounts=("1",))
        row = "UPDATE retentiond_holds.held SET hold_id = 'lost', covers = '{\"since\": \"x\"}' WHERE target = 'logs'"
        await holds.release(app.database, lost.id, "test", "over", grace_seconds=0)
        await company.db.execute(row)
        await holds.finish_releases(app.database)
        hold, elsewhere = await placed(app, targets=("logs",), accounts=("2",)), await placed(app, targets=("others",))
        active, why = await activate(app)
        assert active == [elsewhere.id]
        (reason,) = why[hold.id]
        assert (reason.why, reason.target) == ("native", "logs")
        assert "the row of hold lost in retentiond_holds.held can't be read" in reason.detail
        assert "DELETE FROM retentiond_holds.held" in reason.detail
        await refused(company.db, "DELETE FROM logs WHERE id = 1")
        (finding,) = [each for each in await found(app) if "can't be read" in each.message]
        assert "does not know the hold" in finding.message
        await company.db.execute("DELETE FROM" + finding.remedy.rpartition("DELETE FROM")[2])
        assert (await activate(app))[0] == [hold.id]
        await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_a_mistake_of_ours_in_one_target_is_a_reason_for_its_own_holds_alone(company, monkeypatch):
    settle = NativeHolds.settle

    async def mistaken(self, known):
        if self.store.name == "logs":
            raise ZeroDivisionError("of account 4711")
        return await settle(self, known)

    async with company.app() as app:
        monkeypatch.setattr(NativeHolds, "settle", mistaken)
        here, elsewhere = await placed(app, accounts=("1",)), await placed(app, targets=("others",))
        active, why = await activate(app)
        assert active == [elsewhere.id]
        (reason,) = why[here.id]
        assert (reason.why, reason.target) == ("native", "logs")
        assert "unexpected: ZeroDivisionError" in reason.detail
        assert "4711" not in reason.detail
        defects = []
        missing = await natives.settle(app.database, app.natives(), lambda name, error: defects.append((name, error)))
        assert missing == {"logs": {here.id: "unexpected: ZeroDivisionError"}}
        ((name, error),) = defects
        assert (name, type(error)) == ("logs", ZeroDivisionError)


def test_what_is_written_is_read_as_it_was():
    for text in ("{}", '{"accounts": ["1"], "since": "2026-01-01T00:00:00Z"}', '{"prefixes": ["a"], "records": []}'):
        covers = native_covers.read("h", text)
        assert native_covers.read("h", native_covers.document(covers)) == covers
    assert json.loads(native_covers.document(TargetHold("h", accounts=frozenset({"2", "1"})))) == {
        "accounts": ["1", "2"]
    }
