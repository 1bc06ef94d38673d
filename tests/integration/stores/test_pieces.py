"""Which rows of the directory count as newer than its survey, by the statements' own measure."""

from contextlib import AsyncExitStack
from types import SimpleNamespace

import asyncpg

from retentiond.stores.postgres.pieces import since_survey

NEWER = "SELECT age(xmin) <= age($1::text::xid) FROM accounts"


async def newer(db, surveyed):
    plan = SimpleNamespace(surveyed=SimpleNamespace(transaction=surveyed))
    shape = SimpleNamespace(directory=SimpleNamespace(changed_at=None))
    return await db.fetchval(NEWER, since_survey(shape, plan))


async def test_a_row_written_after_the_survey_is_newer_on_every_connection_however_many_transactions_are_open(database):
    db, reader = await asyncpg.connect(database), await asyncpg.connect(database)
    await db.execute("CREATE TABLE accounts (id int, tier text); INSERT INTO accounts VALUES (1, 'free')")
    surveyed = await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    await db.execute("UPDATE accounts SET tier = 'pro'")
    async with AsyncExitStack() as stack:
        for _ in range(5):
            other = await asyncpg.connect(database)
            stack.push_async_callback(other.close)
            await other.execute("BEGIN")
            await other.fetchval("SELECT pg_current_xact_id()::text")
        async with db.transaction():
            await db.fetchval("SELECT pg_current_xact_id()::text")  # as a batch has one before it judges
            assert await newer(db, surveyed)
            assert await newer(reader, surveyed), "the evidence is read without a number of its own"
            # What was there before the survey is older, or nothing would ever be.
            assert not await newer(db, surveyed + 1)
            assert not await newer(reader, surveyed + 1)
    await db.close()
    await reader.close()
