"""A divided sweep while the control database takes no entries: no shard is taken again and again without a pause."""

import asyncio

import pytest

from retentiond.sweep import enforced
from retentiond.sweep.events import BatchDone
from tests.services.daemon import until

DUE = 400
REFUSE = """
CREATE FUNCTION retentiond.refuse() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON retentiond.ledger_entries FOR EACH ROW EXECUTE FUNCTION retentiond.refuse();
"""


@pytest.fixture
async def cut(apart):
    """A table that is cut into four shards."""
    await apart.company(due=DUE)
    apart.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await apart.db.execute("ANALYZE logs")
    return apart


async def refused(cut, pause, monkeypatch, failed, *, stop):
    """Sweep while every entry is refused from the first batch on until `failed`; then `stop` it or let it go on."""
    began = asyncio.Event()

    def first(event):
        if isinstance(event, BatchDone) and event.changed:
            began.set()

    monkeypatch.setattr(enforced, "pause", pause)
    async with cut.app(observer=first) as app, cut.control_connection() as control:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await began.wait()
        await control.execute(REFUSE)
        await until(failed, lambda: f"{sweep}")
        fences = [row[0] for row in await control.fetch("SELECT fence FROM retentiond.units WHERE shard <> ''")]
        await control.execute("DROP TRIGGER refuse ON retentiond.ledger_entries")
        if stop:
            app.engine.drain()
        return fences, await asyncio.wait_for(sweep, 60)


async def test_a_shard_whose_end_could_not_be_written_waits_before_it_is_taken_again(cut, monkeypatch):
    asked = []

    def pause(number):
        asked.append(number)
        return float("inf")

    async def all_failed():
        return len(asked) >= 4

    fences, _ = await refused(cut, pause, monkeypatch, all_failed, stop=True)
    assert fences == [1, 1, 1, 1]
    await cut.only()
    assert await cut.ids() == [1001, 1002, 1003]
    await cut.require_told(logs=DUE)


async def test_each_pause_is_longer_than_the_last_and_the_sweep_goes_on_by_itself(cut, monkeypatch):
    asked = []

    def pause(number):
        asked.append(number)
        return 0.01

    async def often():
        return max(asked, default=0) >= 3

    _, outcome = await refused(cut, pause, monkeypatch, often, stop=False)
    assert (outcome.outcome, await cut.ids()) == ("drained", [1001, 1002, 1003])
    await cut.require_told(logs=DUE)
