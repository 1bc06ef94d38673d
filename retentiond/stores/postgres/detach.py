"""Taking a partition off its table and bringing it back, so that the application does not notice.

DETACH … CONCURRENTLY runs outside of a transaction, so its limits can't be local to one: it has a connection of its
own, whose settings are given when it connects, and which is asked whether they hold. Behind a pooler that drops them
nothing is detached. They are a fence as well: a worker that is stopped for longer than `_IDLE_MS` before its DETACH
finds the connection closed, so that no DETACH comes long after it was announced (`control.detached.FINAL_SECONDS`).

What is cut off half way (it waits for every transaction that has used the table) is finished by FINALIZE. Before it
begins it looks for such transactions, and lets the partition be while an old one is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from retentiond.errors import Refused, quoted
from retentiond.stores.base import Part, PartState
from retentiond.stores.postgres.batch import LOCK_MS
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection, one, translated
from retentiond.stores.postgres.parts import STATE_SQL, read_parts
from retentiond.stores.postgres.shape import Shape

Writing = Callable[[], AbstractAsyncContextManager[Connection]]

_STATEMENT_MS, _IDLE_MS = 20_000, 10_000
_SETTINGS = {
    "lock_timeout": str(LOCK_MS),
    "statement_timeout": str(_STATEMENT_MS),
    "idle_session_timeout": str(_IDLE_MS),
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
}
_CONNECT_SECONDS = 10.0
_TRIES, _PAUSE_SECONDS = 40, 0.25
_ATTACH_TRIES = 12
_USERS = """
SELECT DISTINCT virtualtransaction AS who FROM pg_catalog.pg_locks
WHERE locktype = 'relation' AND granted AND relation = $1::bigint::oid AND pid <> pg_catalog.pg_backend_pid()
AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_STATE = f"""
SELECT {STATE_SQL} FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
WHERE c.oid = $2::bigint::oid
"""
# What DETACH CONCURRENTLY leaves: a copy of the bounds, under a name that nobody chose. Known by saying just what the
# bounds say, now that they are the table's again; of two that do it is the older, and what is inherited is not ours.
_COPY_OF_BOUNDS = """
SELECT k.conname::text FROM pg_catalog.pg_constraint k
WHERE k.conrelid = $1::bigint::oid AND k.contype = 'c' AND k.coninhcount = 0 AND k.conname <> ALL ($2::text[])
  AND pg_catalog.pg_get_constraintdef(k.oid)
      = pg_catalog.format('CHECK (%s)', pg_catalog.pg_get_partition_constraintdef(k.conrelid))
ORDER BY k.oid LIMIT 1
"""
_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError)
_DONE_OTHERWISE = (
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedTableError,
    asyncpg.WrongObjectTypeError,
)


async def state_of(connection: Connection, shape: Shape, part: Part) -> PartState:
    """How the table of that number stands now."""
    state = await connection.fetchval(_STATE, shape.table.oid, part.number)
    return PartState.GONE if state is None else PartState(state)


async def detach(dsn: str, shape: Shape, part: Part, what: str) -> PartState:
    """Take it off without a lock that others wait for; how it stands then, GONE where others have taken it off.

    Raises Refused where it may not be.
    """
    async with _apart(dsn, what) as connection:
        if not await _old_users_gone(connection, shape):
            return PartState.ATTACHED
        sql = f"ALTER TABLE {shape.table.sql} DETACH PARTITION {part.name}"
        try:
            await connection.execute(f"{sql} CONCURRENTLY")
        except _IN_THE_WAY:
            return await _finalized(connection, shape, part)
        except _DONE_OTHERWISE:
            # No part any more, or half detached: not by us, so it is not ours.
            attached = await state_of(connection, shape, part) is PartState.ATTACHED
            return PartState.ATTACHED if attached else PartState.GONE
        return await state_of(connection, shape, part)


async def _finalized(connection: Connection, shape: Shape, part: Part) -> PartState:
    """Finish a half-done detach, as soon as nobody is in the way, within some seconds."""
    state = PartState.PENDING
    for _ in range(_TRIES):
        state = await state_of(connection, shape, part)
        if state is not PartState.PENDING:
            break
        try:
            await connection.execute(f"ALTER TABLE {shape.table.sql} DETACH PARTITION {part.name} FINALIZE")
        except (*_IN_THE_WAY, *_DONE_OTHERWISE):
            await asyncio.sleep(_PAUSE_SECONDS)
    return state


async def attach(dsn: str, writing: Writing, shape: Shape, part: Part, what: str) -> PartState:
    """Bring it back by its bounds, also one that is half detached; raises Refused where the table won't have it."""
    async with writing() as connection:
        state = await state_of(connection, shape, part)
    if state is PartState.PENDING:
        async with _apart(dsn, what) as connection:
            state = await _finalized(connection, shape, part)
    for tried in range(1, _ATTACH_TRIES + 1):
        if state is not PartState.DETACHED:
            break
        try:
            async with writing() as connection:
                state = await _attach(connection, shape, part)
        except Refused:
            if tried == _ATTACH_TRIES:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    return state


async def _attach(connection: Connection, shape: Shape, part: Part) -> PartState:
    # A table of the same number has kept its name, or is found by no one but its owner.
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
    found = await read_parts(connection, shape, [part.number])
    if not found or found[0].state is not PartState.DETACHED:
        return found[0].state if found else PartState.GONE
    name = found[0].part.name
    await connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
    found = await read_parts(connection, shape, [part.number])
    if not found or found[0].part.name != name or found[0].state is not PartState.DETACHED:
        raise Refused(f"{name} is being changed by another session")
    await connection.execute(f"ALTER TABLE {shape.table.sql} ATTACH PARTITION {name} {part.bounds}")
    # ATTACH has just saved a scan by it; what else came meanwhile is of others.
    copy = await connection.fetchval(_COPY_OF_BOUNDS, part.number, list(part.checks))
    if copy is not None:
        await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {quote(copy)}")
    return PartState.ATTACHED


@asynccontextmanager
async def _apart(dsn: str, what: str) -> AsyncIterator[Connection]:
    """A connection with the settings for statements outside of transactions; raises Refused where none has them."""
    settings = {"application_name": "retentiond", **_SETTINGS}
    with translated(what):
        try:
            connection = await asyncpg.connect(
                dsn, timeout=_CONNECT_SECONDS, statement_cache_size=0, server_settings=settings
            )
        except (asyncpg.ProtocolViolationError, asyncpg.FeatureNotSupportedError) as error:
            raise Refused(f"{what}: partitions can't be detached through this pooler: {quoted(error)}") from error
        try:
            await _require_settings(connection, what)
            yield connection
        finally:
            connection.terminate()


async def _require_settings(connection: Connection, what: str) -> None:
    wanted = {"lock_timeout": f"{LOCK_MS}ms", "idle_session_timeout": f"{_IDLE_MS // 1000}s"}
    row = await one(
        connection, "SELECT " + ", ".join(f"pg_catalog.current_setting('{name}') AS {name}" for name in wanted)
    )
    if not _same(row, wanted):
        raise Refused(
            f"{what}: partitions can't be detached, since the server has not the settings that the connection gave: "
            "a pooler drops them",
            remedy="use a dsn that leads to the server itself, or to a pooler in session mode",
        )


def _same(row: asyncpg.Record, wanted: Mapping[str, str]) -> bool:
    return all(row[name] == value for name, value in wanted.items())


async def _old_users_gone(connection: Connection, shape: Shape) -> bool:
    """Whether all transactions end that use the table now, within a moment: the DETACH would have to wait for them."""
    first = await _users(connection, shape)
    for _ in range(4):
        if not first:
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
        first &= await _users(connection, shape)
    return not first


async def _users(connection: Connection, shape: Shape) -> set[str]:
    return {row["who"] for row in await connection.fetch(_USERS, shape.table.oid)}
