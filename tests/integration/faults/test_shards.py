"""A sweep that is divided into shards: what they come to together is what one sweep would have come to."""

import asyncio

import orjson
import pytest

from retentiond.control import units, workers
from retentiond.domain.permit import Unit
from retentiond.sweep.enforced import Enforced
from retentiond.sweep.events import BatchDone
from retentiond.sweep.sweeper import Sweeper

DUE = 400


class Killed(BaseException):
    """What no handler of errors meets."""


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def cut(either):
    """A table that is cut into four shards."""
    rig = either
    await rig.company(due=DUE)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await rig.db.execute("ANALYZE logs")
    return rig


def first_batch():
    """An event that is set once a batch has erased something, and the observer that sets it."""
    reached = asyncio.Event()

    def first(event):
        if isinstance(event, BatchDone) and event.changed:
            reached.set()

    return reached, first


async def shards(rig):
    async with rig.control_connection() as control:
        return await control.fetch("SELECT * FROM retentiond.units WHERE shard <> '' ORDER BY shard")


async def outcomes(rig):
    return [entry for entry in await rig.ledger() if entry["kind"] == "outcome"]


async def test_shards_together_erase_what_is_due_each_under_its_own_lease(cut):
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed, outcome.batches >= DUE // 10) == ("drained", DUE, True)
    assert await cut.ids() == [1001, 1002, 1003]
    told = {entry["shard"] for entry in await outcomes(cut)}
    assert told == {"1/4", "2/4", "3/4", "4/4"}
    await cut.require_told(logs=DUE)
    await cut.require_settled()
    left = await shards(cut)
    assert [row["sweep"] for row in left] == [None] * 4
    assert [row["owner"] for row in left] == [None] * 4


async def test_shards_that_were_all_over_when_their_sweep_was_left_are_put_together_and_not_walked_again(
    cut, monkeypatch
):
    cut.guards = {"max_records": DUE, "max_fraction": 1.0, "min_records": 0}

    async def dying(*_):
        raise Killed

    monkeypatch.setattr(Enforced, "_put_together", dying)
    monkeypatch.setattr(units, "release", lambda *_: asyncio.sleep(0))
    with pytest.raises(Killed):
        await cut.only()
    monkeypatch.undo()
    assert await cut.ids() == [1001, 1002, 1003]
    await cut.let_leases_run_out()
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    await cut.require_told(logs=DUE)


async def test_a_table_without_statistics_is_not_cut(cut):
    await cut.db.execute("DELETE FROM pg_statistic WHERE starelid = 'logs'::regclass")
    assert (await cut.only()).changed == DUE
    assert await shards(cut) == []


async def test_held_records_and_those_without_an_anchor_are_counted_once(cut):
    await cut.db.execute("INSERT INTO logs SELECT 2000 + i, 1, NULL FROM generate_series(1, 5) i")
    async with cut.app() as app:
        await cut.hold(app, records={"logs": ("1", "200", "400")})
    outcome = await cut.only()
    assert (outcome.changed, outcome.held, outcome.unresolved) == (DUE - 3, 3, 5)
    assert set(await cut.ids()) >= {1, 200, 400}


async def test_several_engines_share_the_shards(cut):
    async with cut.app() as first, cut.app() as second, cut.app() as third:
        for app in (first, second, third):
            app.engine.shards_at_once = 1
        sweep = asyncio.create_task(first.engine.sweep(first.spec.target("logs")))
        took = set()
        while not sweep.done():
            for state in await shards(cut):
                for app in (second, third):
                    if await app.engine.sweep_shard(Unit("logs", state["shard"])) is not None:
                        took.add(app.engine.tools.worker)
            await asyncio.sleep(0.01)
        outcome = await sweep
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    assert took, "the others had nothing to do"
    await cut.require_told(logs=DUE)


async def test_a_bound_that_was_approved_holds_for_all_shards_together(cut):
    cut.guards = {"max_records": DUE, "max_fraction": 1.0, "min_records": 0}
    stopped = asyncio.Event()

    def more(event):
        if isinstance(event, BatchDone) and not stopped.is_set():
            stopped.set()
            asyncio.get_running_loop().create_task(insert())

    async def insert():
        await cut.db.execute(
            "INSERT INTO logs SELECT 5000 + i, 1, now() - interval '300 days' + i * interval '1 hour'"
            " FROM generate_series(1, 300) i"
        )

    outcome = (await cut.sweep(observer=more))["logs"]
    assert outcome.changed <= DUE
    left = await cut.db.fetchval("SELECT count(*) FROM logs")
    assert left == DUE + 300 + 3 - outcome.changed
    await cut.require_told(logs=outcome.changed)


async def test_a_hold_placed_while_shards_are_at_work_binds_every_one_of_them(cut):
    reached, first = first_batch()
    async with cut.app() as other, cut.app(observer=first) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await reached.wait()
        await cut.hold(other, accounts=("1",))
        left = await cut.ids()
        outcome = await sweep
    assert await cut.ids() == left
    assert outcome.changed == DUE + 3 - len(left)
    await cut.require_told(logs=outcome.changed)


async def test_a_shard_whose_worker_is_gone_is_gone_on_with_where_it_was(cut, monkeypatch):
    """Also past the half of what it may act on, which is what was due in it."""
    cut.guards = {"max_records": DUE, "max_fraction": 1.0, "min_records": 0}
    batches = 0
    whole = Sweeper._batch

    async def dying(self, *args):
        nonlocal batches
        batches += self._lease.unit.shard == "2/4"
        if batches == 8 and self._lease.unit.shard == "2/4":
            raise Killed
        return await whole(self, *args)

    monkeypatch.setattr(Sweeper, "_batch", dying)
    monkeypatch.setattr(units, "release", lambda *_: asyncio.sleep(0))  # a killed process gives no lease back
    with pytest.raises(Killed):
        await cut.only()
    monkeypatch.undo()
    (state,) = [row for row in await shards(cut) if row["shard"] == "2/4"]
    assert state["owner"] is not None
    await cut.let_leases_run_out()
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    assert await cut.ids() == [1001, 1002, 1003]
    await cut.require_told(logs=DUE)
    assert len({entry["sweep"] for entry in await outcomes(cut)}) == 1, "it is one sweep"


async def test_a_worker_that_comes_back_after_its_shard_was_taken_over_is_fenced(cut, monkeypatch):
    reached, go_on = asyncio.Event(), asyncio.Event()
    run = Sweeper.run

    async def stopped(self, *args, **kwargs):
        if self._lease.unit.shard == "1/4" and not reached.is_set():
            reached.set()
            await go_on.wait()
        return await run(self, *args, **kwargs)

    monkeypatch.setattr(Sweeper, "run", stopped)
    async with cut.app() as slow, cut.app() as quick:
        sweep = asyncio.create_task(slow.engine.sweep(slow.spec.target("logs")))
        await reached.wait()
        async with cut.control_connection() as control:
            await control.execute("UPDATE retentiond.units SET lease_until = now() WHERE shard = '1/4'")
        taken = await quick.engine.sweep_shard(Unit("logs", "1/4"))
        assert taken is not None
        assert taken.outcome == "drained"
        go_on.set()
        outcome = await sweep
    assert outcome.changed == DUE
    assert await cut.ids() == [1001, 1002, 1003]
    await cut.require_told(logs=DUE)


async def test_a_policy_put_in_force_meanwhile_stops_the_shards_and_the_next_sweep_divides_anew(cut):
    async with cut.app() as app:
        app.engine.shards_at_once = 0
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        while len(await shards(cut)) < 4:
            await asyncio.sleep(0.02)
        app.engine.drain()
        assert (await sweep).outcome == "capped"
    assert [row["sweep"] is not None for row in await shards(cut)] == [True] * 4
    cut.policy = {"classes": {"operational_logs": {"ttl": {"free": "P200D", "pro": "P365D", "enterprise": "P365D"}}}}
    await cut.approve_policy()
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    assert len({entry["sweep"] for entry in await outcomes(cut)}) == 1


async def test_a_sweep_of_shards_that_was_told_to_stop_is_gone_on_with_by_the_next(cut):
    reached, first = first_batch()
    async with cut.app(observer=first) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await reached.wait()
        app.engine.drain()
        first_outcome = await sweep
    assert first_outcome.outcome == "capped"
    outcome = await cut.only()
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    await cut.require_told(logs=DUE)
    assert len({entry["sweep"] for entry in await outcomes(cut)}) == 1


async def test_a_process_that_is_told_twice_of_a_shard_takes_it_once(cut):
    async with cut.app() as app:
        app.engine.shards_at_once = 8
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    intents = [entry["shard"] for entry in await cut.ledger() if entry["kind"] == "intent"]
    assert sorted(intents) == ["", "1/4", "2/4", "3/4", "4/4"]
    assert [row["fence"] for row in await shards(cut)] == [1, 1, 1, 1]


async def test_a_process_that_is_at_a_shard_and_hears_of_it_takes_nothing_from_itself(cut, monkeypatch):
    """Its own lease would not stand in its way, and its first batch would be fenced by itself."""
    whole, found = Sweeper._batch, {}

    async def hearing(self, *args):
        if (shard := self._lease.unit.shard) and shard not in found:
            found[shard] = self
            found[shard] = await app.engine.sweep_shard(self._lease.unit)
        return await whole(self, *args)

    monkeypatch.setattr(Sweeper, "_batch", hearing)
    async with cut.app() as app:
        outcome = await app.engine.sweep(app.spec.target("logs"))
    assert (outcome.outcome, outcome.changed) == ("drained", DUE)
    assert found == dict.fromkeys(("1/4", "2/4", "3/4", "4/4"))
    assert [row["fence"] for row in await shards(cut)] == [1, 1, 1, 1]


async def test_a_division_of_long_ago_is_begun_anew(cut):
    async with cut.app() as app:
        app.engine.shards_at_once = 0
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        while len(await shards(cut)) < 4:
            await asyncio.sleep(0.02)
        app.engine.drain()
        await sweep
    (old,) = {row["sweep"] and orjson.loads(row["sweep"])["sweep"] for row in await shards(cut)}
    async with cut.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.units SET sweep = jsonb_set(sweep, '{now}', '\"2020-01-01T00:00:00.000000Z\"')"
        )
    assert (await cut.only()).changed == DUE
    assert {entry["sweep"] for entry in await outcomes(cut)} != {old}


async def test_a_pause_reaches_every_shard(cut):
    reached, first = first_batch()
    async with cut.app(observer=first) as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await reached.wait()
        async with cut.control_connection() as control:
            await control.execute("UPDATE retentiond.flags SET paused = true, paused_by = 'x'")
        outcome = await sweep
    assert outcome.outcome == "paused"
    assert outcome.changed < DUE
    await cut.require_told(logs=outcome.changed)


async def test_who_works_on_which_shard_can_be_told(cut, monkeypatch):
    seen = []

    async def look(app):
        async with app.database.transaction() as tx:
            await workers.appear(tx, app.presence("all"))
            seen.extend(await workers.everybody(tx))

    async with cut.app() as app:
        whole = Sweeper._batch

        async def looking(self, *args):
            found = await whole(self, *args)
            if self._lease.unit.shard == "3/4" and self.outcome.batches == 2:
                await look(app)
            return found

        monkeypatch.setattr(Sweeper, "_batch", looking)
        await app.engine.sweep(app.spec.target("logs"))
    (me,) = seen
    works = {work.unit.shard: work for work in me.works}
    assert me.alive
    assert works["3/4"].cursor["so_far"]["erased"] == 20
