"""Which partitions are off their table, or may be at any moment: written before a DETACH, so that none is forgotten.

Whoever finds one whose worker is gone attaches it again. A row stays for a while even where the partition is attached:
the worker that wrote it may be stopped just before its DETACH (`FINAL_SECONDS`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retentiond.control import units
from retentiond.control.database import Tx
from retentiond.domain.permit import Lease

if TYPE_CHECKING:
    import asyncpg

FINAL_SECONDS = 120.0
"""After that no DETACH of whoever wrote the row is to come: the server ends a connection idle for so much less."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A partition by its table's oid: how it is attached again, how long ago that was written, and whether its worker
    still has its lease.
    """

    target: str
    part: int
    place: str
    name: str
    bounds: str
    checks: tuple[str, ...]
    shard: str
    seconds: float
    living: bool


async def note(tx: Tx, lease: Lease, place: str, parts: Collection[tuple[int, str, str, Sequence[str]]]) -> set[int]:
    """Write that these (oid, name, bounds, constraints) may be detached from now on; raises Fenced.

    Returns those that are not another living worker's.
    """
    await units.require(tx, lease, lock=True)
    taken: set[int] = set()
    for part, name, bounds, checks in parts:
        done = await tx.fetchval(
            "INSERT INTO retentiond.detached AS d (target, part, place, name, bounds, checks, shard, owner, fence)"
            " VALUES ($1, $2, $3, $4, $5, $6::text[], $7, $8, $9)"
            " ON CONFLICT (target, part) DO UPDATE SET place = $3, name = $4, bounds = $5, checks = $6::text[],"
            " shard = $7, owner = $8, fence = $9, noted_at = pg_catalog.clock_timestamp()"
            f" WHERE d.shard = $7 OR NOT {_LIVING} RETURNING true",
            lease.unit.target,
            part,
            place,
            name,
            bounds,
            list(checks),
            lease.unit.shard,
            lease.owner,
            lease.fence,
        )
        if done:
            taken.add(part)
    return taken


async def forget(tx: Tx, target: str, parts: Collection[int]) -> None:
    """They are gone, or attached again and stay so."""
    await tx.execute(
        "DELETE FROM retentiond.detached WHERE target = $1 AND part = ANY($2::bigint[])", target, sorted(parts)
    )


async def noted(tx: Tx, target: str | None = None) -> list[Noted]:
    """All that is written, of one target or of all."""
    rows = await tx.fetch(
        "SELECT d.target, d.part, d.place, d.name, d.bounds, d.checks, d.shard,"
        " EXTRACT(epoch FROM pg_catalog.clock_timestamp() - d.noted_at)::float8 AS seconds,"
        f" {_LIVING} AS living FROM retentiond.detached d WHERE $1::text IS NULL OR d.target = $1"
        " ORDER BY d.target, d.part",
        target,
    )
    return [_noted(row) for row in rows]


_LIVING = (
    "EXISTS (SELECT FROM retentiond.units u WHERE u.target = d.target AND u.shard = d.shard AND u.owner = d.owner"
    " AND u.fence = d.fence AND u.lease_until > pg_catalog.clock_timestamp())"
)


def _noted(row: asyncpg.Record) -> Noted:
    return Noted(
        target=row["target"],
        part=row["part"],
        place=row["place"],
        name=row["name"],
        bounds=row["bounds"],
        checks=tuple(row["checks"]),
        shard=row["shard"],
        seconds=row["seconds"],
        living=row["living"],
    )
