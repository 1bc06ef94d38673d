"""What the benchmarks share: a Postgres of their own, a made table, a configuration, a place for results."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from retentiond.control.database import Database
from retentiond.control.embedded import EmbeddedPostgres

RESULTS = Path(__file__).parent / "results"
_LONG_MS = 900_000
_APPLICATION = "application"
ACCOUNTS = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text NOT NULL, tier_changed_at timestamptz);
INSERT INTO accounts SELECT i, CASE WHEN i % 10 < 7 THEN 'free' ELSE 'pro' END FROM generate_series(1, 20000) i;
ANALYZE accounts;
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """A Postgres with fsync on, a database of the application's in it, and a folder for state."""

    database: Database
    dsn: str
    folder: Path
    control_dsn: str

    async def execute(self, sql: str) -> str:
        """Run it in one transaction, however long it takes; the command's status."""
        async with self.database.transaction(timeout_ms=_LONG_MS) as tx:
            return str(await tx.execute(sql))

    async def outside(self, sql: str) -> int:
        """One statement outside any transaction, on a connection of its own: so its statistics are complete."""
        return await _outside(self.dsn, sql)

    async def control(self, sql: str) -> int:
        """One statement in the control database; 0 where there is no state yet."""
        try:
            return await _outside(self.control_dsn, sql)
        except asyncpg.UndefinedTableError:
            return 0

    def environment(self, **more: str) -> dict[str, str]:
        """The configuration of one target over `records`, with no rest between batches."""
        target = "RETENTIOND_TARGETS__RECORDS__"
        return {
            "RETENTIOND_MODE": "enforce",
            "RETENTIOND_STATE_DIR": str(self.folder),
            "RETENTIOND_ACCOUNTS__DSN": self.dsn,
            "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
            "RETENTIOND_ACCOUNTS__TIER_CHANGED_AT": "tier_changed_at",
            target + "STORE": "postgres",
            target + "CLASS": "operational_logs",
            target + "DSN": self.dsn,
            target + "TABLE": "public.records",
            target + "ANCHOR": "created_at",
            target + "ACCOUNT": "account_id",
            target + "PACE__DUTY": "1.0",
            **more,
        }


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """The ground, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="retentiond-bench-"))
    folder.chmod(0o711)
    server = await EmbeddedPostgres.start(folder, create=True)
    try:
        await _outside(server.dsn, f"CREATE DATABASE {_APPLICATION}")
        # As a server of the application has it: the embedded one keeps itself small.
        await _outside(server.dsn, f"ALTER DATABASE {_APPLICATION} SET max_parallel_workers_per_gather = 2")
        dsn = urlsplit(server.dsn)._replace(path=f"/{_APPLICATION}").geturl()
        database = await Database.connect(dsn)
        try:
            yield Ground(database, dsn, folder, server.dsn)
        finally:
            await database.close()
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _outside(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql, timeout=_LONG_MS / 1000) or 0)
    finally:
        await connection.close()


def save(name: str, document: dict[str, object]) -> None:
    """Write a result as JSON."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"at": datetime.now(UTC).isoformat(), **document}, indent=2))
