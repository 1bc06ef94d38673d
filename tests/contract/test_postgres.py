"""The contract, kept by a table: its batch's transaction is the fence."""

import asyncio
from contextlib import contextmanager

import pytest

from retentiond.stores.postgres.batch import PostgresBatch
from tests.contract.behaviours import Contract, Subject


class PostgresSubject(Subject):
    """Rows of a table in a database apart from the control state."""

    async def add(self, key, *, account="1", days=400):
        await self.rig.db.execute(
            "INSERT INTO logs VALUES ($1, $2::text::bigint, now() - make_interval(secs => $3 * 86400.0), '10.0.0.1')"
            " ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at",
            key,
            account,
            float(days),
        )

    async def left(self):
        return set(await self.rig.ids())

    @contextmanager
    def dying(self, at):
        whole, erase = PostgresBatch.commit, PostgresBatch.erase
        destroys = []

        async def erased(batch, permit, window, *, salt):
            found = await erase(batch, permit, window, salt=salt)
            destroys.extend([batch] if found.changed else [])
            return found

        async def commit(batch):
            if batch not in destroys:
                return await whole(batch)
            if at == "after":
                await whole(batch)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PostgresBatch, "commit", commit)
            patch.setattr(PostgresBatch, "erase", erased)
            yield

    @contextmanager
    def meanwhile(self, work):
        whole, done = PostgresBatch.erase, []

        async def erase(batch, permit, window, *, salt):
            if not done and window.walk == "term":
                done.append(permit)
                await work()
            return await whole(batch, permit, window, salt=salt)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PostgresBatch, "erase", erase)
            yield
        assert done

    async def let_time_pass(self):
        """Nothing has to: the transaction is over with its connection."""


@pytest.fixture
async def subject(apart):
    await apart.company(due=0, young=0)
    return PostgresSubject(apart)


class TestPostgres(Contract):
    """All that every store does."""
