"""Deletions that stores have taken on and carry out later by themselves: what was asked for, and how far each is.

A row comes in the transaction that ends its batch's permit, and is moved on by whoever follows it (`sweep.following`):
each stage once, however many processes ask. What was asked for names accounts, and is forgotten at the end.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retentiond.control.database import Database, Tx
from retentiond.control.rows import from_json, to_json

if TYPE_CHECKING:
    import asyncpg

_COLUMNS = (
    "target, id, permit, place::text, stage, asked::text, by_tier::text, digest, outcome::text, called_off::text, told,"
    " extract(epoch FROM pg_catalog.clock_timestamp() - requested_at)::float8 AS seconds,"
    " extract(epoch FROM pg_catalog.clock_timestamp() - moved_at)::float8 AS moved_seconds"
)
_ENDS = ("verified", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Request:
    """One that is not over: `seconds` since it was taken on, `moved_seconds` since it moved on or was called off.

    `place` is what its target was over. `called_off` are the holds for which the store was asked to cancel it.
    """

    target: str
    id: str
    permit: int
    place: tuple[str, ...]
    stage: str
    asked: Mapping[str, Any]
    by_tier: Mapping[str, int]
    digest: str
    outcome: Mapping[str, Any]
    called_off: tuple[str, ...]
    told: str
    seconds: float
    moved_seconds: float


async def add(
    tx: Tx,
    *,
    target: str,
    id: str,
    permit: int,
    place: Sequence[str],
    asked: Mapping[str, Any],
    by_tier: Mapping[str, int],
    digest: str,
    outcome: Mapping[str, Any],
) -> bool:
    """Write down one that the store has taken on; False where it is known already.

    Its age is that of its permit: who writes it down may have come upon it days after it was asked for.
    """
    return bool(
        await tx.fetchval(
            "INSERT INTO retentiond.requests (target, id, permit, asked, by_tier, digest, outcome, place, requested_at)"
            " VALUES ($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6, $7::text::jsonb, $8::text::jsonb, COALESCE("
            "(SELECT issued_at FROM retentiond.permits WHERE number = $3), pg_catalog.clock_timestamp()))"
            " ON CONFLICT (target, id, permit) DO NOTHING RETURNING true",
            target,
            id,
            permit,
            to_json(asked),
            to_json(by_tier),
            digest,
            to_json(outcome),
            json.dumps(list(place)),
        )
    )


async def unfinished(tx: Tx, target: str | None = None) -> list[Request]:
    """Those that are not over, of one target or all, the oldest first."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM retentiond.requests WHERE ended_at IS NULL AND ($1::text IS NULL OR target = $1)"
        " ORDER BY requested_at, id",
        target,
    )
    return [_from_row(row) for row in rows]


async def move(tx: Tx, request: Request, stage: str, told: str = "") -> bool:
    """Bring it to another stage; False where it is not at the stage any more that it was read at."""
    over = stage in _ENDS
    return bool(
        await tx.fetchval(
            "UPDATE retentiond.requests SET stage = $4, told = $5, moved_at = pg_catalog.clock_timestamp(),"
            " ended_at = CASE WHEN $6 THEN pg_catalog.clock_timestamp() END,"
            " asked = CASE WHEN $6 THEN NULL ELSE asked END"
            " WHERE target = $1 AND id = $2 AND permit = $7 AND stage = $3 AND ended_at IS NULL RETURNING true",
            request.target,
            request.id,
            request.stage,
            stage,
            told,
            over,
            request.permit,
        )
    )


async def tell(tx: Tx, request: Request, told: str) -> None:
    """Write down why it is not further."""
    await tx.execute(
        "UPDATE retentiond.requests SET told = $3 WHERE target = $1 AND id = $2 AND permit = $4 AND ended_at IS NULL",
        request.target,
        request.id,
        told,
        request.permit,
    )


async def ages(tx: Tx) -> dict[str, tuple[int, float]]:
    """For each target that has any that is not over: how many, and for how many seconds the oldest has been waiting."""
    rows = await tx.fetch(
        "SELECT target, count(*) AS number,"
        " extract(epoch FROM pg_catalog.clock_timestamp() - min(requested_at))::float8 AS seconds"
        " FROM retentiond.requests WHERE ended_at IS NULL GROUP BY target"
    )
    return {row["target"]: (row["number"], row["seconds"]) for row in rows}


async def prune(tx: Tx, *, keep_seconds: float = 30 * 86_400.0) -> None:
    """Forget those that ended so long ago: the ledger has what became of them."""
    await tx.execute(
        "DELETE FROM retentiond.requests"
        " WHERE ended_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)",
        keep_seconds,
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """The requests of one target, for its store and for what keeps holds there."""

    database: Database
    target: str

    async def unfinished(self) -> list[Request]:
        """Those that are not over; raises Unreachable."""
        async with self.database.transaction(read_only=True) as tx:
            return await unfinished(tx, self.target)

    async def intended(self) -> list[tuple[int, float, Mapping[str, Any]]]:
        """What open permits are about to ask for, or have asked for unheard: numbers, ages, and what each prepared."""
        async with self.database.transaction(read_only=True) as tx:
            rows = await tx.fetch(
                "SELECT number, extract(epoch FROM pg_catalog.clock_timestamp() - issued_at)::float8 AS seconds,"
                " (prepared -> 'intended')::text AS intended FROM retentiond.permits"
                " WHERE ended_at IS NULL AND target = $1 AND prepared ? 'intended'",
                self.target,
            )
        return [(row["number"], row["seconds"], from_json(row["intended"]) or {}) for row in rows]

    async def call_off(self, id: str, holds: Collection[str]) -> None:
        """The store is asked now to cancel it for these holds: how it ends, it ends so."""
        async with self.database.transaction() as tx:
            await tx.execute(
                "UPDATE retentiond.requests SET moved_at = pg_catalog.clock_timestamp(), called_off ="
                " (SELECT COALESCE(jsonb_agg(DISTINCT e), '[]')"
                " FROM jsonb_array_elements(called_off || $3::text::jsonb) e)"
                " WHERE target = $1 AND id = $2 AND ended_at IS NULL",
                self.target,
                id,
                json.dumps(sorted(holds)),
            )


def stranded(found: Iterable[Request], targets: Collection[str]) -> dict[str, str]:
    """Of these, the targets that are none of `targets`, with their class: nobody here can ask for them."""
    return {each.target: str(each.outcome["class"]) for each in found if each.target not in targets}


def _from_row(row: asyncpg.Record) -> Request:
    return Request(
        target=row["target"],
        id=row["id"],
        permit=row["permit"],
        place=tuple(json.loads(row["place"])),
        stage=row["stage"],
        asked=from_json(row["asked"]) or {},
        by_tier=from_json(row["by_tier"]) or {},
        digest=row["digest"],
        outcome=from_json(row["outcome"]) or {},
        called_off=tuple(json.loads(row["called_off"])),
        told=row["told"],
        seconds=row["seconds"],
        moved_seconds=row["moved_seconds"],
    )
