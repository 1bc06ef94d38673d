"""Versions of the configuration that were enforced, so that a change which would newly erase is seen as one.

The newest is the one in force: a permit is refused to a worker with another digest (4-safety.md, "Guards"). Whether a
change needs an approval is decided above; the first one ever enforced is the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retentiond.control.database import Tx
from retentiond.control.rows import from_json, to_json
from retentiond.errors import StateMissing

if TYPE_CHECKING:
    import asyncpg


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version; `document` is all of the configuration that enters a verdict, `seq` its place in the history."""

    digest: str
    document: dict[str, Any]
    enforced_at: datetime
    approved_by: str
    seq: int


async def active(tx: Tx) -> PolicyVersion | None:
    """The version in force; None before the first."""
    row = await tx.fetchrow(f"{_SELECT} ORDER BY seq DESC LIMIT 1")
    return None if row is None else _version(row)


async def adopt(tx: Tx, digest: str, document: Mapping[str, Any], by: str) -> PolicyVersion:
    """Make this the version in force; nothing new where it is that already. Replicas that start at once agree."""
    # Locked against another adoption: "is it the newest?" and the insert must be one.
    await tx.execute("LOCK TABLE retentiond.policies IN SHARE ROW EXCLUSIVE MODE")
    newest = await active(tx)
    if newest is not None and newest.digest == digest:
        return newest
    row = await tx.fetchrow(
        "INSERT INTO retentiond.policies (digest, document, approved_by) VALUES ($1, $2::text::jsonb, $3)"
        " RETURNING seq, digest, document::text, approved_by, enforced_at",
        digest,
        to_json(document),
        by,
    )
    if row is None:
        raise StateMissing("the policy was not inserted")
    return _version(row)


async def history(tx: Tx) -> list[PolicyVersion]:
    """All versions, oldest first."""
    return [_version(row) for row in await tx.fetch(f"{_SELECT} ORDER BY seq")]


_SELECT = "SELECT seq, digest, document::text, approved_by, enforced_at FROM retentiond.policies"


def _version(row: asyncpg.Record) -> PolicyVersion:
    return PolicyVersion(
        digest=row["digest"],
        document=from_json(row["document"]) or {},
        enforced_at=row["enforced_at"],
        approved_by=row["approved_by"],
        seq=row["seq"],
    )
