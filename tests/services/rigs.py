"""A rig for each test: a database of its own with the control state in it, or with `apart` in another one."""

import uuid
from contextlib import AsyncExitStack

import asyncpg
import pytest

from tests.services.postgres import limited_role
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


@pytest.fixture
async def limited(rig):
    """A function that lets the targets and the directory be reached as a new role with the given grants alone."""
    async with AsyncExitStack() as roles:

        async def become(*grants, attributes=""):
            dsn = await roles.enter_async_context(limited_role(rig.dsn, *grants))
            if attributes:
                await rig.db.execute(f"ALTER ROLE {dsn.split('//')[1].split('@')[0]} {attributes}")
            for target in rig.targets.values():
                target["dsn"] = dsn
            if rig.accounts is not None:
                rig.accounts["dsn"] = dsn
            return dsn

        yield become
