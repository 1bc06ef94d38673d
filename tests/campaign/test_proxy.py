"""The proxy's faults, between a real client and a real server."""

import asyncio

import asyncpg
import pytest

from tests.campaign.proxy import Armed, Proxy

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
GONE = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)


@pytest.fixture
async def proxy(postgres_server):
    found = Proxy((postgres_server.host, postgres_server.port), "127.0.0.1")
    await found.start()
    yield found
    await found.close()


@pytest.fixture
async def db(database):
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE t (id int)")
    yield connection
    await connection.close()


@pytest.fixture
async def through(database, db, proxy):
    name = database.rsplit("/", 1)[1]
    connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}", timeout=10)
    yield connection
    connection.terminate()


async def committed(through):
    async with through.transaction():
        await through.execute("INSERT INTO t VALUES (1)")


async def count(db):
    return await db.fetchval("SELECT count(*) FROM t")


async def until_there(db):
    async with asyncio.timeout(30):
        while not await count(db):
            await asyncio.sleep(0.05)


async def test_what_is_not_disturbed_passes(through, db):
    await committed(through)
    assert await count(db) == 1


async def test_a_commit_whose_answer_is_lost_has_taken_effect(through, db, proxy):
    proxy.armed.append(Armed("lose"))
    with pytest.raises(GONE):
        await committed(through)
    await until_there(db)
    assert proxy.done == {"lose": 1}


async def test_a_transaction_that_changes_nothing_is_left_alone(through, proxy):
    proxy.armed.append(Armed("drop"))
    async with through.transaction():
        await through.fetchval("SELECT count(*) FROM t")
    assert proxy.armed


async def test_a_late_commit_takes_effect_when_its_client_has_given_up(through, db, proxy):
    proxy.armed.append(Armed("late", 1.0))
    with pytest.raises(GONE):
        await committed(through)
    assert await count(db) == 0
    await until_there(db)


async def test_a_late_commit_is_on_its_way_also_when_all_connections_are_cut(through, db, proxy):
    proxy.armed.append(Armed("late", 1.0))
    with pytest.raises(GONE):
        await committed(through)
    proxy.cut()
    await until_there(db)


async def test_a_commit_that_is_dropped_has_not(through, db, proxy):
    proxy.armed.append(Armed("drop"))
    with pytest.raises(GONE):
        await committed(through)
    await db.execute("ALTER TABLE t ADD COLUMN extra int")  # waits until the transaction is over
    assert await count(db) == 0


async def test_cut_connections_are_over_and_new_ones_are_refused_in_a_partition(through, proxy):
    proxy.partition(on=True)
    with pytest.raises(GONE):
        await through.fetchval("SELECT 1")
    with pytest.raises(GONE):
        await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", timeout=10)
    proxy.heal()
    again = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", timeout=10)
    assert await again.fetchval("SELECT 1") == 1
    await again.close()


async def test_while_it_is_frozen_nothing_passes_and_afterwards_all_does(through, proxy):
    proxy.freeze(on=True)
    asked = asyncio.create_task(through.fetchval("SELECT 7"))
    await asyncio.sleep(0.3)
    assert not asked.done()
    proxy.freeze(on=False)
    assert await asked == 7
