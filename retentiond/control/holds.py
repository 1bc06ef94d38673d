"""Legal holds and their life: `pending → active → releasing → released`, each step under the exclusive barrier lock.

Nobody judges a hold by a clock of his own: all that is not `released` holds, and the end of the grace is a transition
like any other (4-safety.md, "Releasing and reinstating"). Every change raises the epoch, so that a worker with an older
view of the holds gets no permit before it has read them again. A commit of unknown outcome is tried once more: the
exclusive lock is granted only when the first transaction is over, so what is found then is the truth.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from uuid import uuid4

from retentiond.control import barrier, due, hold_rows
from retentiond.control.activation import FenceProbe, OnWait, Waiting, activate_pending
from retentiond.control.database import CommitUnknown, Database, Tx
from retentiond.control.hold_rows import HoldDraft, HoldSet, Recorder, UnreadableHold
from retentiond.domain.holds import Hold, HoldState
from retentiond.errors import Otherwise, StateMissing, Unreachable, UsageError

__all__ = [
    "FenceProbe",
    "HoldDraft",
    "HoldSet",
    "OnWait",
    "Recorder",
    "UnreadableHold",
    "Waiting",
    "activate_pending",
    "current",
    "finish_releases",
    "get",
    "list_all",
    "page",
    "place",
    "reinstate",
    "release",
]

RELEASE_GRACE_SECONDS = 7 * 86_400.0
"""How long records stay unerasable after a release: `holds.release_grace` is P7D."""


async def place(database: Database, draft: HoldDraft, by: str, *, record: Recorder | None = None) -> Hold:
    """Place a hold: pending from the commit on, which already keeps new permits off; `activate_pending` does the rest.

    Event: `placed`. Raises UsageError when the draft's id belongs to another hold, and Unreachable; a CommitUnknown
    names the id under which it may be placed.
    """
    hold_id = draft.id or str(uuid4())

    async def step(tx: Tx) -> tuple[Hold, str | None]:
        if found := await hold_rows.find(tx, hold_id):
            _require_same(found, draft)
            return found, None
        return await hold_rows.insert(tx, hold_id, draft, by, await barrier.bump(tx)), "placed"

    return await _change(database, hold_id, step, record)


async def release(
    database: Database,
    hold_id: str,
    by: str,
    reason: str,
    *,
    grace_seconds: float = RELEASE_GRACE_SECONDS,
    two_person: bool = False,
    record: Recorder | None = None,
) -> Hold:
    """Begin the release: it holds on for the grace, then `finish_releases` ends it. Event: `released`.

    With `two_person` the first one only asks for it (event: `release_requested`), and somebody else begins it. Raises
    Otherwise for a hold that is being released or is released already, NotFound, Unreachable.
    """
    if grace_seconds < 0:
        raise UsageError("the grace of a release can't be negative", remedy="give 0 for none")
    again: list[bool] = []

    async def step(tx: Tx) -> tuple[Hold, str | None]:
        found = await _require(tx, hold_id)
        if found.state not in (HoldState.PENDING, HoldState.ACTIVE):
            if again and (found.released_by, found.release_reason) == (by, reason):
                return found, None
            raise Otherwise(
                f"hold {hold_id} is {found.state} already",
                remedy="a hold in its grace can be reinstated; a released one is placed anew",
            )
        again.append(True)
        if two_person and found.release_requested_by in (None, by):
            return await _ask_for_release(tx, found, by, reason)
        await barrier.bump(tx)
        return await hold_rows.change(
            tx,
            hold_id,
            "state = 'releasing', released_by = $2, release_reason = $3, released_at = pg_catalog.clock_timestamp(),"
            " erasable_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4)",
            by,
            reason,
            grace_seconds,
        ), "released"

    return await _change(database, hold_id, step, record)


async def _ask_for_release(tx: Tx, found: Hold, by: str, reason: str) -> tuple[Hold, str | None]:
    if found.release_requested_by is not None:
        return found, None
    return await hold_rows.change(
        tx,
        found.id,
        "release_requested_by = $2, release_requested_reason = $3, release_requested_at = pg_catalog.clock_timestamp()",
        by,
        reason,
    ), "release_requested"


async def reinstate(database: Database, hold_id: str, by: str, reason: str, *, record: Recorder | None = None) -> Hold:
    """Let a hold in its release grace hold on, whole. Event: `reinstated`.

    It is active again with the `effective_at` it had; one that was released before it became active is pending again.
    One whose release was asked for is left as it is, and the word taken back (event: `release_withdrawn`). Raises
    Otherwise for any other state: a released hold is placed anew, since records may be gone by now.
    """
    again: list[bool] = []

    async def step(tx: Tx) -> tuple[Hold, str | None]:
        found = await _require(tx, hold_id)
        if found.state is not HoldState.RELEASING and found.release_requested_by is not None and found.holds:
            again.append(True)
            return await hold_rows.change(tx, hold_id, _NOBODY_ASKS), "release_withdrawn"
        if found.state is not HoldState.RELEASING:
            if again and found.state is not HoldState.RELEASED:
                return found, None
            raise Otherwise(
                f"hold {hold_id} is {found.state}, not in its release grace",
                remedy="place it anew" if found.state is HoldState.RELEASED else "nothing to do: it holds",
            )
        await barrier.bump(tx)
        again.append(True)
        return await hold_rows.change(
            tx,
            hold_id,
            "state = CASE WHEN effective_at IS NULL THEN 'pending' ELSE 'active' END,"
            f" released_by = NULL, released_at = NULL, release_reason = NULL, erasable_at = NULL, {_NOBODY_ASKS},"
            " reinstated_by = $2, reinstate_reason = $3, reinstated_at = pg_catalog.clock_timestamp()",
            by,
            reason,
        ), "reinstated"

    return await _change(database, hold_id, step, record)


async def finish_releases(
    database: Database, *, until: datetime | None = None, record: Recorder | None = None
) -> list[Hold]:
    """End the holds whose grace is over by the control database's clock, and make all targets due. Event: `ended`.

    Returns them. `until` (UTC) is the latest instant that the caller believes in, for a clock that may be wrong: a hold
    does not end before both agree.
    """
    over = (
        "state = 'releasing' AND erasable_at <= pg_catalog.clock_timestamp()"
        " AND ($1::timestamptz IS NULL OR erasable_at <= $1)"
    )
    async with database.transaction(read_only=True) as tx:
        if not await tx.fetchval(f"SELECT EXISTS (SELECT FROM retentiond.holds WHERE {over})", until):
            return []
    async with database.transaction() as tx:
        await barrier.enter_alone(tx)
        await barrier.observe(tx)
        rows = await tx.fetch(
            "UPDATE retentiond.holds SET state = 'released', ended_at = pg_catalog.clock_timestamp()"
            f" WHERE {over} RETURNING {hold_rows.COLUMNS}",
            until,
        )
        ended = [hold_rows.from_row(row) for row in rows]
        if ended:
            await barrier.bump(tx)
            # What they kept may go; and the ledger's head is locked last, as everywhere.
            await due.make_due(tx)
        for hold in ended:
            if record is not None:
                await record(tx, hold, "ended")
        return ended


async def current(tx: Tx) -> HoldSet:
    """The epoch and all that holds, in one statement, so that they agree. Raises UnreadableHold."""
    rows = await tx.fetch(
        f"SELECT b.hold_epoch, h.* FROM retentiond.barrier b LEFT JOIN (SELECT {hold_rows.COLUMNS}"
        " FROM retentiond.holds WHERE state <> 'released') h ON true ORDER BY h.placed_at, h.id"
    )
    if not rows:
        raise StateMissing("the control database has lost its hold epoch", remedy="restore it from a backup")
    return HoldSet(rows[0]["hold_epoch"], tuple(hold_rows.from_row(row) for row in rows if row["id"] is not None))


async def get(tx: Tx, hold_id: str) -> Hold:
    """The hold of that id; raises NotFound."""
    row = await tx.fetchrow(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds WHERE id = $1", hold_id)
    if row is None:
        raise hold_rows.unknown(hold_id)
    return hold_rows.from_row(row)


async def list_all(tx: Tx) -> list[Hold]:
    """All holds, also the released ones, as they were placed."""
    rows = await tx.fetch(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds ORDER BY placed_at, id")
    return [hold_rows.from_row(row) for row in rows]


async def page(tx: Tx, after: str | None, limit: int, states: Collection[HoldState] = ()) -> list[Hold]:
    """At most `limit` holds that follow the one of id `after`, as they were placed; of these states, where given.

    Raises NotFound for an `after` that there is not.
    """
    place = await get(tx, after) if after is not None else None
    rows = await tx.fetch(
        f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds"
        " WHERE ($1::timestamptz IS NULL OR (placed_at, id) > ($1, $2::text))"
        " AND ($3::text[] IS NULL OR state = ANY($3::text[])) ORDER BY placed_at, id LIMIT $4",
        place.placed_at if place else None,
        place.id if place else None,
        sorted(map(str, states)) or None,
        limit,
    )
    return [hold_rows.from_row(row) for row in rows]


_NOBODY_ASKS = "release_requested_by = NULL, release_requested_at = NULL, release_requested_reason = NULL"
_Step = Callable[[Tx], Awaitable[tuple[Hold, str | None]]]


async def _change(database: Database, hold_id: str, step: _Step, record: Recorder | None) -> Hold:
    """Run the step under the exclusive lock, and its record; once more when the commit's outcome is unknown."""

    async def attempt() -> Hold:
        async with database.transaction() as tx:
            await barrier.enter_alone(tx)
            await barrier.observe(tx)
            hold, event = await step(tx)
            if record is not None:
                await record(tx, hold, event)
            return hold

    try:
        return await attempt()
    except CommitUnknown as error:
        try:
            return await attempt()
        except Unreachable:
            raise CommitUnknown(
                f"whether the change of hold {hold_id} took effect is not known: {error.message}",
                remedy=f"`retentiond hold show {hold_id}` tells, once the control database can be reached",
            ) from error


async def _require(tx: Tx, hold_id: str) -> Hold:
    found = await hold_rows.find(tx, hold_id)
    if found is None:
        raise hold_rows.unknown(hold_id)
    return found


def _require_same(found: Hold, draft: HoldDraft) -> None:
    mine = (draft.matter, draft.reason, draft.scope.document())
    if (found.matter, found.reason, found.scope.document()) != mine:
        raise UsageError(f"hold {found.id} exists already, and is another one", remedy="let the hold get a new id")
