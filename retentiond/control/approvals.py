"""Approvals of an operator, each used once, and the list of what waits for one.

An approval names a target, the digest of the policy and a bound on the count. What it is for is judged by who asks;
here it is only kept, found and used up, in the transaction of the thing it allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from retentiond.control import units
from retentiond.control.database import Tx
from retentiond.control.rows import from_json, to_json
from retentiond.domain.permit import Lease
from retentiond.errors import NotFound, UsageError

if TYPE_CHECKING:
    import asyncpg

Kind = Literal["sweep", "policy", "clock", "directory"]


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval; `target` is empty for a policy or the clock, `bound` the most records (or accounts) it allows."""

    id: str
    kind: Kind
    target: str
    digest: str
    bound: int | None
    granted_by: str
    granted_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Awaited:
    """Something that waits for an approval since `since` (UTC)."""

    kind: Kind
    target: str
    digest: str
    count: int | None
    detail: dict[str, Any]
    since: datetime


async def grant(tx: Tx, kind: Kind, target: str, digest: str, bound: int | None, by: str) -> Approval:
    """Approve, and take it off the waiting list."""
    row = await tx.fetchrow(
        "INSERT INTO retentiond.approvals (id, kind, target, digest, bound, granted_by)"
        f" VALUES ($1, $2, $3, $4, $5, $6) RETURNING {_COLUMNS}",
        str(uuid4()),
        kind,
        target,
        digest,
        bound,
        by,
    )
    if row is None:
        raise NotFound("the approval was not inserted")
    await withdraw(tx, kind, target, digest)
    return _approval(row)


def with_groups(digest: str, groups: int) -> str:
    """What a question is about that lets the retention of so many groups become shorter, under that policy.

    The number is part of what it is about, and no bound: one group is any number of records.
    """
    return f"{digest}/groups:{groups}"


def policy_of(digest: str) -> str:
    """The policy's digest alone."""
    return digest.partition("/")[0]


def groups_of(digest: str) -> int:
    """Of how many groups it lets the retention become shorter."""
    return int(digest.partition("/groups:")[2] or 0)


async def find(tx: Tx, kind: Kind, target: str, digest: str) -> Approval | None:
    """The newest approval of exactly this that has not been used."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM retentiond.approvals"
        " WHERE kind = $1 AND target = $2 AND digest = $3 AND used_at IS NULL ORDER BY granted_at DESC, id LIMIT 1",
        kind,
        target,
        digest,
    )
    return None if row is None else _approval(row)


async def use(tx: Tx, approval_id: str, lease: Lease | None = None) -> Approval:
    """Use it up, under the lease's fence where there is one; raises UsageError when it has been used, Fenced."""
    if lease is not None:
        await units.require(tx, lease, lock=True)
    row = await tx.fetchrow(
        "UPDATE retentiond.approvals SET used_at = pg_catalog.clock_timestamp(), used_by = $2, used_fence = $3"
        f" WHERE id = $1 AND used_at IS NULL RETURNING {_COLUMNS}",
        approval_id,
        lease.owner if lease else None,
        lease.fence if lease else None,
    )
    if row is None:
        raise UsageError(
            f"approval {approval_id} has been used, or there is none of that id",
            remedy="approve again: an approval is good for one sweep",
        )
    return _approval(row)


async def request(
    tx: Tx, kind: Kind, target: str, digest: str, count: int | None, detail: Mapping[str, Any] | None = None
) -> bool:
    """Put it on the waiting list; True when it is new there (the same question asked again keeps its `since`)."""
    known = await tx.fetchval(
        "SELECT digest FROM retentiond.waiting WHERE kind = $1 AND target = $2 FOR UPDATE", kind, target
    )
    await tx.execute(
        "INSERT INTO retentiond.waiting AS w (kind, target, digest, count, detail)"
        " VALUES ($1, $2, $3, $4, $5::text::jsonb) ON CONFLICT (kind, target) DO UPDATE"
        " SET count = excluded.count, detail = excluded.detail, digest = excluded.digest,"
        " since = CASE WHEN w.digest = excluded.digest THEN w.since ELSE excluded.since END",
        kind,
        target,
        digest,
        count,
        to_json(detail or {}),
    )
    return bool(known != digest)


async def withdraw(tx: Tx, kind: Kind, target: str, digest: str | None = None) -> None:
    """Take it off the waiting list: approved, or no longer asked for."""
    await tx.execute(
        "DELETE FROM retentiond.waiting WHERE kind = $1 AND target = $2 AND ($3::text IS NULL OR digest = $3)",
        kind,
        target,
        digest,
    )


async def lapse(tx: Tx, kind: Kind, target: str) -> list[Approval]:
    """Take the question off the waiting list, and void what was approved for it and not used; returns those.

    An answer to a question that is no longer asked must not let another event pass, weeks later.
    """
    await withdraw(tx, kind, target)
    rows = await tx.fetch(
        "UPDATE retentiond.approvals SET used_at = pg_catalog.clock_timestamp(), used_by = 'lapsed'"
        f" WHERE kind = $1 AND target = $2 AND used_at IS NULL RETURNING {_COLUMNS}",
        kind,
        target,
    )
    return [_approval(row) for row in rows]


async def lock(tx: Tx, kind: Kind, target: str) -> None:
    """Let nobody else answer that question before the transaction ends; a later statement has to ask what it is."""
    await tx.execute("SELECT 1 FROM retentiond.waiting WHERE kind = $1 AND target = $2 FOR UPDATE", kind, target)


async def waiting(tx: Tx) -> list[Awaited]:
    """All that waits for an operator, longest first."""
    rows = await tx.fetch(
        "SELECT kind, target, digest, count, detail::text, since FROM retentiond.waiting ORDER BY since, kind, target"
    )
    return [
        Awaited(row["kind"], row["target"], row["digest"], row["count"], from_json(row["detail"]) or {}, row["since"])
        for row in rows
    ]


_COLUMNS = "id, kind, target, digest, bound, granted_by, granted_at, used_at"


def _approval(row: asyncpg.Record) -> Approval:
    return Approval(**dict(row))
