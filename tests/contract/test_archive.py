"""The contract, kept by a table whose records are archived; and what went is in just those archives that the ledger names."""

import pytest

from services.archives import archives, place
from tests.contract.behaviours import Contract
from tests.contract.test_postgres import PostgresSubject


@pytest.fixture
async def subject(apart, moto_server):
    await apart.company(due=0, young=0)
    async with moto_server.bucket() as ground:
        apart.target("logs", action="archive", region_group="eu", archive=place(moto_server, ground.name))
        yield PostgresSubject(apart)
        named = {
            entry["archive"]["key"]: entry["counts"]["archived"]
            for entry in await apart.ledger()
            if entry["kind"] == "outcome" and "archive" in entry
        }
        found = await archives(ground)
        assert {each.key: len(each.records) for each in found} == named
        assert len(await ground.keys()) == 2 * len(found)
        ids = [int(record["id"]) for each in found for record in each.records]
        assert sorted({*ids}) == sorted(ids)


class TestArchive(Contract):
    """All that every store does."""
