"""A fresh control database for each test, and a ledger in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from retentiond.control.database import Database
from retentiond.control.migrations import migrate
from retentiond.ledger.journal import Journal
from retentiond.ledger.keys import SigningKey, origin_of

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    control = await Database.connect(database, application_name="test")
    try:
        await migrate(control)
        yield control
    finally:
        await control.close()


@pytest.fixture
async def superuser(db: Database, database: str) -> AsyncIterator[Connection]:
    """A connection that may do anything to the migrated database, outside of retentiond."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    folder = tmp_path / "state"
    folder.mkdir()
    return SigningKey.load(None, folder)


@pytest.fixture
def origin() -> str:
    return origin_of("1f0e")


@pytest.fixture
def journal(key: SigningKey, origin: str) -> Journal:
    return Journal(key, origin, "1.2.3")
