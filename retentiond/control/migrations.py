"""Numbered migrations of the control database, applied in order under a lock.

A runner of our own, and a short one: no maintained migration library speaks asyncpg (they are made for SQLAlchemy or
psycopg), and a second driver for a page of SQL would be the bigger burden. What has been applied is recorded with its
SHA-256; a file that was changed afterwards, or a version that this program doesn't know, is an error and not a guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from retentiond.control.barrier import remember_server
from retentiond.control.locks import MIGRATIONS, NAMESPACE
from retentiond.errors import ConfigurationError, NoState, Problem, StateMissing

if TYPE_CHECKING:  # database offers these as its methods
    from retentiond.control.database import Database, Tx

MIGRATION_MS = 60_000
"""Milliseconds for a statement or the wait for another process that migrates: generous, it happens at starts only."""

SECRETS = ("accounts", "evidence", "texts")
"""The keys that are made with the state: 32 random bytes each."""

_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Of the file's text; lower-case hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> tuple[Migration, ...]:
    """The migrations that come with this program, in order."""
    files = resources.files("retentiond.control").joinpath("sql").iterdir()
    found = ((match, file) for file in files if (match := _NAME.fullmatch(file.name)))
    migrations = (Migration(int(m["version"]), m["name"], file.read_text(encoding="utf-8")) for m, file in found)
    return tuple(sorted(migrations, key=lambda migration: migration.version))


async def migrate(database: Database, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the schema up to date and return what was applied; safe with any number of processes at once.

    Only `run`, `sweep` and `demo` call it. Raises ConfigurationError when the state was made by another version.
    """
    wanted = tuple(migrations) if migrations is not None else shipped()
    async with database.transaction(timeout_ms=MIGRATION_MS) as tx:
        await tx.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({NAMESPACE}, {MIGRATIONS})")
        if not await _has_state(tx):
            await tx.execute(_FIRST)
        missing = await _missing(tx, wanted)
        for migration in missing:
            await tx.execute(migration.sql)
            await tx.execute(
                "INSERT INTO retentiond.migrations (version, name, sha256) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.sha256,
            )
        if await tx.fetchval("SELECT pg_catalog.to_regclass('retentiond.barrier') IS NOT NULL"):
            await _make_secrets(tx)
            await remember_server(tx)
    return missing


async def require_schema(database: Database, migrations: Sequence[Migration] | None = None) -> None:
    """See that the state is there and ours; raises StateMissing (exit 4) or ConfigurationError."""
    wanted = tuple(migrations) if migrations is not None else shipped()
    async with database.transaction(read_only=True) as tx:
        if not await _has_state(tx):
            raise NoState(
                "the control database holds no state of retentiond",
                remedy="let control.dsn name the running daemon's database; `retentiond run` makes the state",
            )
        if missing := await _missing(tx, wanted):
            raise StateMissing(
                f"the control database lacks migration {missing[0].version:04}_{missing[0].name}",
                remedy="start the daemon (`retentiond run`) of this version once: it brings the state up to date",
            )


async def _has_state(tx: Tx) -> bool:
    return bool(await tx.fetchval("SELECT pg_catalog.to_regclass('retentiond.migrations') IS NOT NULL"))


async def _missing(tx: Tx, wanted: Sequence[Migration]) -> list[Migration]:
    """What is not applied yet; raises ConfigurationError for anything applied that is not exactly ours."""
    rows = await tx.fetch("SELECT version, name, sha256 FROM retentiond.migrations ORDER BY version")
    known = {migration.version: migration for migration in wanted}
    for row in rows:
        ours = known.get(row["version"])
        if ours is None:
            raise _foreign(
                f"has migration {row['version']:04}_{row['name']}, which this version does not know",
                "run the newer version of retentiond that made it",
            )
        if ours.sha256 != row["sha256"]:
            raise _foreign(
                f"was made with another {row['version']:04}_{row['name']} than this version has",
                "run the version of retentiond that made it; a released migration is never changed",
            )
    applied = {row["version"] for row in rows}
    missing = [migration for migration in wanted if migration.version not in applied]
    if missing and applied and missing[0].version < max(applied):
        raise _foreign(
            f"lacks migration {missing[0].version:04}_{missing[0].name} but has later ones",
            "restore the control database from a backup",
        )
    return missing


async def _make_secrets(tx: Tx) -> None:
    await tx.executemany(
        "INSERT INTO retentiond.secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        [(name, secrets.token_bytes(32)) for name in SECRETS],
    )


def _foreign(message: str, remedy: str) -> ConfigurationError:
    return ConfigurationError((Problem("control.dsn", f"the control database {message}", remedy),))


_FIRST = """
CREATE SCHEMA IF NOT EXISTS retentiond;
CREATE TABLE retentiond.migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
