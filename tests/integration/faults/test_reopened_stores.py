"""A store that is opened again while shards sweep by it: one process has one store of a target, and several users."""

import asyncio

import asyncpg
import pytest

from retentiond.errors import Blind
from retentiond.stores.postgres import opening
from retentiond.sweep.sweeper import Sweeper

DUE = 400
NOTES = "CREATE TABLE notes (log_id bigint REFERENCES logs ON DELETE CASCADE)"


@pytest.fixture
async def cut(apart):
    """A table that is cut into four shards."""
    rig = apart
    await rig.company(due=DUE)
    rig.target("logs", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await rig.db.execute("ANALYZE logs")
    return rig


@pytest.fixture
def after_batch(monkeypatch):
    """`after_batch(work)`: once, when a shard has erased its first batch and before it begins its second."""

    def set_up(work):
        whole, done = Sweeper._batch, []

        async def batch(self, *args):
            if self._lease.unit.shard and self.outcome.batches == 1 and not done:
                done.append(self._lease.unit.shard)
                await work()
            return await whole(self, *args)

        monkeypatch.setattr(Sweeper, "_batch", batch)
        return done

    return set_up


async def changed_while_it_is_read(app, monkeypatch, connection):
    """Open the target's store again, and a foreign key is added between the two looks at the table.

    Other shards may be opening it as well; what they see is not what this is about.
    """
    read, looks, mine = opening.read_table, [], asyncio.current_task()

    async def reading(*args):
        found = await read(*args)
        if asyncio.current_task() is not mine:
            return found
        looks.append(found)
        if len(looks) == 1:
            await connection.execute(NOTES)
            await connection.execute("INSERT INTO notes SELECT id FROM logs")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(opening, "read_table", reading)
        with pytest.raises(Blind, match="is being changed"):
            await app.engine.open(app.spec.target("logs"))
    assert len(looks) == 2


async def test_a_shard_at_work_never_sweeps_by_half_of_what_another_opening_found(cut, after_batch, monkeypatch):
    """The mark of a table with a foreign key beside the SQL of one without it: what refers to its rows would go too."""
    other, referred = await asyncpg.connect(cut.dsn), []

    async def changed():
        await changed_while_it_is_read(app, monkeypatch, other)
        referred.extend(await cut.ids())

    async with cut.app() as app:
        done = after_batch(changed)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    await other.close()
    assert done, "no shard came to its second batch"
    assert await cut.ids() == referred, "what refers to a record keeps it"
    assert await cut.ids("notes", "log_id") == referred
    assert "schema" in outcome.error["message"]
    assert outcome.changed == DUE + 3 - len(referred)
    await cut.require_told(logs=outcome.changed)


async def test_a_plan_from_before_a_column_changed_erases_nothing_by_a_store_that_was_opened_after(cut, after_batch):
    """Its holds are in the text that the column had."""
    cut.accounts = None
    cut.target("logs", tier="free", pace={"duty": 1.0, "max_batch": 10, "shards": 4})
    await cut.db.execute("UPDATE logs SET account_id = 7 WHERE id BETWEEN 50 AND 90")
    other = await asyncpg.connect(cut.dsn)

    async def altered():
        await other.execute("ALTER TABLE logs ALTER account_id TYPE text USING lpad(account_id::text, 3, '0')")
        await app.engine.open(app.spec.target("logs"))

    async with cut.app() as app:
        await cut.hold(app, accounts=("007",))
        done = after_batch(altered)
        outcome = await app.engine.sweep(app.spec.target("logs"))
    await other.close()
    assert done, "no shard came to its second batch"
    assert set(await cut.ids()) >= set(range(50, 91)), "they are held"
    assert "schema" in outcome.error["message"]
    await cut.require_told(logs=outcome.changed)
    assert (await cut.only()).held == 41
    assert set(await cut.ids()) == {*range(50, 91), 1001, 1002, 1003}
