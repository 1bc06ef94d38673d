"""What the other tests stand on does what it says."""

import asyncpg
import pytest

from services.postgres import limited_role


async def test_a_limited_role_may_do_only_what_it_was_granted(database):
    owner = await asyncpg.connect(database)
    await owner.execute("CREATE TABLE open (); CREATE TABLE closed ()")
    async with limited_role(database, "GRANT SELECT ON open TO {role}") as dsn:
        guest = await asyncpg.connect(dsn)
        assert await guest.fetch("SELECT FROM open") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await guest.fetch("SELECT FROM closed")
        await guest.close()
    assert await owner.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'r\\_%'") == 0
    await owner.close()


async def test_each_test_has_a_database_of_its_own_also_on_postgres_18(database18):
    connection = await asyncpg.connect(database18)
    assert await connection.fetchval("SHOW server_version_num") >= "180000"
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()
