"""How old a survey of the directory is, by the measure that its rows' own ages have."""

from contextlib import AsyncExitStack
from types import SimpleNamespace

import asyncpg

from retentiond.stores.postgres.pieces import _age


async def test_a_row_written_after_the_survey_is_never_older_than_that_however_many_transactions_are_open(database):
    db = await asyncpg.connect(database)
    await db.execute("CREATE TABLE accounts (id int, tier text); INSERT INTO accounts VALUES (1, 'free')")
    surveyed = await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    await db.execute("UPDATE accounts SET tier = 'pro'")
    plan = SimpleNamespace(surveyed=SimpleNamespace(transaction=surveyed))
    shape = SimpleNamespace(directory=SimpleNamespace(changed_at=None))
    async with AsyncExitStack() as stack:
        for _ in range(5):
            other = await asyncpg.connect(database)
            stack.push_async_callback(other.close)
            await other.execute("BEGIN")
            await other.fetchval("SELECT pg_current_xact_id()::text")
        async with db.transaction():
            await db.fetchval("SELECT pg_current_xact_id()::text")  # as a batch has one before it judges
            assert await _age(db, shape, plan) >= await db.fetchval("SELECT age(xmin) FROM accounts")
        # What was there before the survey is older, or nothing would ever be.
        surveyed = plan.surveyed.transaction = surveyed + 1
        async with db.transaction():
            await db.fetchval("SELECT pg_current_xact_id()::text")
            assert await _age(db, shape, plan) < await db.fetchval("SELECT age(xmin) FROM accounts")
    await db.close()
