"""Whole partitions on Postgres 18, which has changed what DETACH and DROP go by since 14."""

import asyncpg
import pytest

from tests.services.parted import EACH, YOUNG, attached, noted, parted, tables, whole
from tests.services.sweeping import Rig


@pytest.fixture
async def rig18(database18, tmp_path):
    connection = await asyncpg.connect(database18)
    yield Rig(database18, connection, tmp_path, database18)
    await connection.close()


@pytest.mark.parametrize("default", ["", "CREATE TABLE logs_rest PARTITION OF logs DEFAULT;"])
async def test_what_is_due_as_a_whole_goes_and_one_record_keeps_its_partition(rig18, default):
    await parted(rig18, more=default)
    async with rig18.app() as app:
        at = await rig18.db.fetchval("SELECT created_at::text FROM logs WHERE id = 1007")
        await rig18.hold(app, records={"logs": (f'["1007", "{at}"]',)})
    outcome = await rig18.only()
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 3 * EACH - 1, 1), outcome.error
    assert await tables(rig18) == await attached(rig18) == ["logs_p1", YOUNG, *(["logs_rest"] if default else [])]
    assert await noted(rig18) == []
    assert await whole(rig18) == 2
    await rig18.require_told(logs=3 * EACH - 1)
