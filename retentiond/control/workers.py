"""The processes that share a control database, for people to look at: nothing is decided by who is listed here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from retentiond.control.database import Database, Tx
from retentiond.control.rows import from_json
from retentiond.domain.permit import Unit
from retentiond.errors import Unreachable

Role = Literal["all", "worker", "scheduler", "sweep"]
ROLES: tuple[Role, ...] = get_args(Role)

SEEN_EVERY_SECONDS = 10.0
"""How often a process says that it lives."""

GONE_SECONDS = 60.0
"""Who has not said so for longer counts as gone."""

_FORGOTTEN_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A process as it presents itself."""

    name: str
    host: str
    pid: int
    version: str
    role: Role
    mode: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has a lease on, for how many more seconds; how far it is; how many owners crashed on it."""

    unit: Unit
    lease_seconds: float
    cursor: dict[str, Any] | None
    sweep: dict[str, Any] | None
    crashes: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as others see it: instants in UTC, `alive` by when it was last heard of."""

    worker: Worker
    started_at: datetime
    seen_at: datetime
    alive: bool
    works: tuple[Work, ...]


async def appear(tx: Tx, worker: Worker) -> None:
    """Say that the process lives; forget those that have not said so for a day."""
    await tx.execute(
        "INSERT INTO retentiond.workers (name, host, pid, version, role, mode) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (name) DO UPDATE SET seen_at = pg_catalog.clock_timestamp(), mode = excluded.mode",
        worker.name,
        worker.host,
        worker.pid,
        worker.version,
        worker.role,
        worker.mode,
    )
    await tx.execute(
        "DELETE FROM retentiond.workers"
        " WHERE seen_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)",
        _FORGOTTEN_SECONDS,
    )


async def leave(tx: Tx, name: str) -> None:
    """The process ends of its own will."""
    await tx.execute("DELETE FROM retentiond.workers WHERE name = $1", name)


@asynccontextmanager
async def present(database: Database, worker: Worker) -> AsyncIterator[None]:
    """Listed for as long as the block lasts; for what ends by itself."""
    async with database.transaction() as tx:
        await appear(tx, worker)
    try:
        yield
    finally:
        with suppress(Unreachable):
            async with database.transaction() as tx:
                await leave(tx, worker.name)


async def everybody(tx: Tx) -> list[Seen]:
    """All workers that are known, the oldest first, each with what it has a lease on."""
    works: dict[str, list[Work]] = {}
    for row in await tx.fetch(
        "SELECT target, shard, owner, cursor::text, sweep::text, crashes,"
        " EXTRACT(epoch FROM lease_until - pg_catalog.clock_timestamp())::float8 AS lease"
        " FROM retentiond.units WHERE lease_until > pg_catalog.clock_timestamp() ORDER BY target, shard"
    ):
        work = Work(
            Unit(row["target"], row["shard"]),
            row["lease"],
            from_json(row["cursor"]),
            from_json(row["sweep"]),
            row["crashes"],
        )
        works.setdefault(row["owner"], []).append(work)
    rows = await tx.fetch(
        "SELECT name, host, pid, version, role, mode, started_at, seen_at,"
        " seen_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1) AS alive"
        " FROM retentiond.workers ORDER BY started_at, name",
        GONE_SECONDS,
    )
    return [
        Seen(
            Worker(row["name"], row["host"], row["pid"], row["version"], row["role"], row["mode"]),
            row["started_at"],
            row["seen_at"],
            row["alive"],
            tuple(works.get(row["name"], ())),
        )
        for row in rows
    ]
