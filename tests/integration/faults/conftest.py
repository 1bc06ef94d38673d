"""A rig for each test: a database of its own with the control state in it, or with `apart` in another one."""

import uuid

import asyncpg
import pytest

from tests.services.sweeping import Rig


@pytest.fixture
async def rig(database, tmp_path):
    connection = await asyncpg.connect(database)
    yield Rig(database, connection, tmp_path, database)
    await connection.close()


@pytest.fixture
async def apart(rig, postgres_server):
    """The rig with its control state in a database apart from the target's."""
    name = f"c_{uuid.uuid4().hex[:12]}"
    await rig.db.execute(f'CREATE DATABASE "{name}"')
    rig.control = postgres_server.dsn(name)
    yield rig
    await rig.db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
