"""Stopping a statement of a real process at a chosen moment: a trigger that waits until the test lets it pass.

It polls a lock instead of waiting for it: `lock_timeout` would end a wait, and it is not what is tested.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

T = TypeVar("T")

_KEY = 471_147
_PATIENCE = 60.0
"""Seconds until somebody has to have come, on a machine that has much else to do."""
_GATE = f"""
CREATE SCHEMA IF NOT EXISTS gates;
GRANT USAGE ON SCHEMA gates TO PUBLIC;
CREATE OR REPLACE FUNCTION gates.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT pg_try_advisory_xact_lock_shared({_KEY}) LOOP PERFORM pg_sleep(0.01); END LOOP;
    RETURN COALESCE(NEW, OLD);
END $$;
"""


async def looks(told: str, every: float = 0.02) -> AsyncIterator[None]:
    """Turns of a loop that looks for something, until it is left; fails with `told` when that takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield
        await asyncio.sleep(every)
    raise AssertionError(told)


class Gate:
    """Shut when made; `reached` returns once somebody waits at it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def reached(self) -> int:
        """The process id of the backend that waits."""
        async for _ in looks("nobody came to the gate"):
            pid = await self._connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            )
            if pid is not None:
                return int(pid)
        raise AssertionError

    async def open(self) -> None:
        """Let everybody pass from now on."""
        await self._connection.execute(f"SELECT pg_advisory_unlock({_KEY})")

    async def shut(self) -> None:
        """Stop everybody again."""
        await self._connection.execute(f"SELECT pg_advisory_lock({_KEY})")


@asynccontextmanager
async def gate(dsn: str, trigger: str, *, kind: str = "TRIGGER") -> AsyncIterator[Gate]:
    """A gate where `trigger` says: `BEFORE DELETE ON logs FOR EACH STATEMENT`; opened and removed at the end."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_GATE)
        await connection.execute(f"CREATE {kind} a_gate {trigger} EXECUTE FUNCTION gates.wait()")
        found = Gate(connection)
        await found.shut()
        yield found
        await found.open()
    finally:
        await connection.close()


async def waits_for_lock(connection: asyncpg.Connection, text: str) -> None:
    """Return once a statement that holds `text` waits for a lock."""
    async for _ in looks(f"no statement with {text!r} waits for a lock"):
        if await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND position($1 in query) > 0"
            " AND pid <> pg_backend_pid()",
            text,
        ):
            return


@asynccontextmanager
async def open_transaction(dsn: str, statement: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that has executed the statement and is neither committed nor rolled back; the test ends it."""
    connection = await asyncpg.connect(dsn)
    try:
        # An account written about when the oldest open transaction began is taken for one whose tier has just changed,
        # and keeps the longest term: let the accounts be older than that, as they are in life.
        await connection.execute(
            "DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )
        await connection.execute("BEGIN")
        await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


async def end_when_waited_for(
    connection: asyncpg.Connection,
    watcher: asyncpg.Connection,
    waiting: asyncio.Task[T],
    end: str = "COMMIT",
) -> T:
    """End an open transaction once another one waits for what it has locked; what `waiting` comes to."""
    pid = connection.get_server_pid()
    async for _ in looks("nobody waits for the transaction", every=0.005):
        if await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", pid):
            await connection.execute(end)
            return await waiting
        if waiting.done():
            raise AssertionError(f"it did not wait for the transaction, and came to {waiting.result()}")
    raise AssertionError
