"""Asking a database for what its native holds refuse."""

from __future__ import annotations

import asyncpg

from retentiond.control import holds, natives
from retentiond.daemon import App

HELD = "RH001"


async def refused(connection: asyncpg.Connection, statement: str) -> asyncpg.PostgresError:
    """The error of a statement that a native hold refuses; any other end of it fails the test."""
    try:
        status = await connection.execute(statement)
    except asyncpg.PostgresError as error:
        assert error.sqlstate == HELD, error
        return error
    raise AssertionError(f"{statement} was not refused: {status}")


async def let_end(app: App) -> dict[str, dict[str, str]]:
    """What a daemon does once a grace is over; what is not in step afterwards."""
    await holds.finish_releases(app.database)
    return await natives.settle(app.database, app.natives())
