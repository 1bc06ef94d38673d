"""What `check` says where there is no control state yet: one can check before anything erases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from retentiond.control.database import Database
from retentiond.daemon import App
from retentiond.settings import Settings
from retentiond.stores.base import Finding
from retentiond.stores.postgres.catalog import quote

_RIGHT = """
SELECT pg_catalog.current_database() AS name, current_user AS role,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS granted
"""


@asynccontextmanager
async def configured_database(settings: Settings, app: App) -> AsyncIterator[Database]:
    """The control database as it is configured, whatever is in it; the app's own, which goes away, where none is.

    Raises Unreachable.
    """
    if settings.control.dsn is None:
        yield app.database
        return
    database = await Database.connect(settings.control.dsn.get_secret_value(), size=1)
    try:
        yield database
    finally:
        await database.close()


async def findings(settings: Settings, database: Database) -> list[Finding]:
    """That there is no state, and what keeps `run` from making it."""
    found = [
        Finding(
            "warning",
            "control",
            "there is no control state yet: holds, remembered accounts and partitions left detached are not known, "
            "and all else was looked at",
            "retentiond run   # makes it",
        )
    ]
    if settings.control.dsn is None:
        return found
    async with database.transaction(read_only=True) as tx:
        row = await tx.fetchrow(_RIGHT)
    if row is not None and not row["granted"]:
        message = "the role of control.dsn may not create a schema there, and `retentiond run` has to"
        remedy = f"GRANT CREATE ON DATABASE {quote(row['name'])} TO {quote(row['role'])};"
        found.append(Finding("error", "control", message, remedy))
    return found
