"""Holds as rows: reading, inserting and changing them; the protocol around it is in `holds` and `activation`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from retentiond.control.database import Tx
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.errors import NotFound, RetentiondError

if TYPE_CHECKING:
    import asyncpg

Recorder = Callable[[Tx, Hold, str | None], Awaitable[None]]
"""Called inside the transaction that changes a hold, with the event: the layer above writes it into the ledger.

None: the hold is as it was asked to be already, and there is nothing to write of it.
"""

COLUMNS = (
    "id, matter, reason, scope::text, state, epoch, placed_by, placed_at, effective_at, review_by, notice, released_by,"
    " released_at, release_reason, erasable_at, native, release_requested_by, release_requested_at,"
    " release_requested_reason"
)


class UnreadableHold(RetentiondError):
    """A hold can't be read, so nothing may be erased anywhere."""


@dataclass(frozen=True, slots=True)
class HoldDraft:
    """A hold to be placed. With an `id` (uuid4 text), placing it again gives the same hold."""

    matter: str
    reason: str
    scope: Scope
    review_by: datetime | None = None
    notice: str | None = None
    id: str | None = None
    native: bool = False


@dataclass(frozen=True, slots=True)
class HoldSet:
    """Everything that holds (pending, active, releasing), as of one epoch."""

    epoch: int
    holds: tuple[Hold, ...]


async def find(tx: Tx, hold_id: str) -> Hold | None:
    """The hold of that id, its row locked until the commit."""
    row = await tx.fetchrow(f"SELECT {COLUMNS} FROM retentiond.holds WHERE id = $1 FOR UPDATE", hold_id)
    return None if row is None else from_row(row)


async def insert(tx: Tx, hold_id: str, draft: HoldDraft, by: str, epoch: int) -> Hold:
    """Insert it as pending, under the epoch that its placement made."""
    row = await tx.fetchrow(
        "INSERT INTO retentiond.holds"
        " (id, matter, reason, scope, state, epoch, placed_by, placed_at, review_by, notice, native)"
        " VALUES ($1, $2, $3, $4::text::jsonb, 'pending', $5, $6, pg_catalog.clock_timestamp(), $7, $8, $9)"
        f" RETURNING {COLUMNS}",
        hold_id,
        draft.matter,
        draft.reason,
        json.dumps(draft.scope.document(), ensure_ascii=False),
        epoch,
        by,
        draft.review_by,
        draft.notice,
        draft.native,
    )
    if row is None:
        raise NotFound(f"hold {hold_id} was not inserted")
    return from_row(row)


async def change(tx: Tx, hold_id: str, assignments: str, *values: object) -> Hold:
    """Change the hold and return it as it is then; the assignments are ours, the values are parameters from $2 on."""
    row = await tx.fetchrow(
        f"UPDATE retentiond.holds SET {assignments} WHERE id = $1 RETURNING {COLUMNS}", hold_id, *values
    )
    if row is None:
        raise unknown(hold_id)
    return from_row(row)


async def standing(tx: Tx, after: int) -> tuple[dict[str, str], list[bytes]]:
    """The state of each hold, and the ledger's entries of holds beyond number `after`, as of one instant."""
    row = await tx.fetchrow(
        "SELECT (SELECT pg_catalog.array_agg(ARRAY[id, state]) FROM retentiond.holds) AS holds,"
        " (SELECT pg_catalog.array_agg(leaf ORDER BY seq) FROM retentiond.ledger_entries"
        " WHERE kind = 'hold' AND seq > $1) AS leaves",
        after,
    )
    assert row is not None  # a SELECT without FROM gives one
    return dict(row["holds"] or ()), [bytes(leaf) for leaf in row["leaves"] or ()]


def unknown(hold_id: str) -> NotFound:
    """The error for an id that there is not."""
    return NotFound(f"there is no hold {hold_id}", remedy="`retentiond hold list` shows all of them")


def from_row(row: asyncpg.Record) -> Hold:
    """The hold of a row; raises UnreadableHold, which stops everything, rather than leaving a hold out."""
    try:
        scope = Scope.from_document(json.loads(row["scope"]))
        state = HoldState(row["state"])
    except (RetentiondError, ValueError, TypeError) as error:
        raise UnreadableHold(
            f"hold {row['id']} can't be read: {error}",
            remedy="run the version of retentiond that placed it; nothing is erased until it can be read",
        ) from error
    return Hold(
        id=row["id"],
        matter=row["matter"],
        reason=row["reason"],
        scope=scope,
        state=state,
        placed_by=row["placed_by"],
        placed_at=row["placed_at"],
        effective_at=row["effective_at"],
        review_by=row["review_by"],
        notice=row["notice"],
        released_by=row["released_by"],
        released_at=row["released_at"],
        release_reason=row["release_reason"],
        erasable_at=row["erasable_at"],
        native=row["native"],
        release_requested_by=row["release_requested_by"],
        release_requested_at=row["release_requested_at"],
        release_requested_reason=row["release_requested_reason"],
    )
