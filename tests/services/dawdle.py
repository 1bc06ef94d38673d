"""A batch that takes its time: deletions from the demo-like table `request_logs` sleep, so that a test can come in between."""

import asyncpg

from tests.services.daemon import until

# Slow only where something is deleted: the first windows of a sweep have nothing due.
SLOW = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM gone) THEN PERFORM pg_sleep({seconds}); END IF; RETURN NULL; END $$;
CREATE TRIGGER dawdle AFTER DELETE ON request_logs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
"""


async def in_a_batch(company: asyncpg.Connection) -> None:
    """Wait until a deleting statement is under way."""

    async def begun():
        return await company.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid <> pg_backend_pid()"
        )

    await until(begun, lambda: "no batch began")
