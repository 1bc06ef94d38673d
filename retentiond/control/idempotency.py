"""What the API has done under an idempotency key, so that a request that is sent again does nothing more.

The key is claimed in the transaction of the change: both are there, or neither. A second request with the same key
waits for the first one's transaction at the primary key, and then finds it done. Keys are each principal's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retentiond.control.database import Tx
from retentiond.control.rows import from_json, to_json
from retentiond.errors import RetentiondError

KEPT_SECONDS = 86_400.0
"""How long a key is remembered: a client that tries again does so within minutes."""


class Repeated(RetentiondError):
    """This has been done under the same idempotency key already."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request under a key: `digest` is the SHA-256 of all that it asks for."""

    principal: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it: the hold it was about and the event in its life, else what was answered."""

    digest: bytes
    subject: str | None
    answer: dict[str, Any] | None


async def claim(tx: Tx, wanted: Claim, *, subject: str | None = None, answer: Mapping[str, Any] | None = None) -> None:
    """Take the key for this change; raises Repeated where it is taken."""
    done = await tx.fetchval(
        "INSERT INTO retentiond.api_requests (principal, key, digest, subject, answer)"
        " VALUES ($1, $2, $3, $4, $5::text::jsonb) ON CONFLICT (principal, key) DO NOTHING RETURNING true",
        wanted.principal,
        wanted.key,
        wanted.digest,
        subject,
        to_json(answer),
    )
    if not done:
        raise Repeated


async def find(tx: Tx, principal: str, key: str) -> Done | None:
    """What was done under the key."""
    row = await tx.fetchrow(
        "SELECT digest, subject, answer::text FROM retentiond.api_requests WHERE principal = $1 AND key = $2",
        principal,
        key,
    )
    return None if row is None else Done(bytes(row["digest"]), row["subject"], from_json(row["answer"]))


async def prune(tx: Tx) -> None:
    """Forget the keys of more than a day ago."""
    await tx.execute(
        "DELETE FROM retentiond.api_requests"
        " WHERE at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)",
        KEPT_SECONDS,
    )
