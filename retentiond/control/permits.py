"""Permits: the right to destroy one batch, given out under the hold barrier.

The permit transaction is the one of 4-safety.md, "Before a batch": the shared barrier lock in a statement of its own,
then the epoch, mode, pause, policy, lease and ledger in later ones, then the row. A permit stays open until its outcome
is written; a hold that was placed after it waits for that, or for proof that the batch can't take effect any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retentiond.control import barrier, units
from retentiond.control.database import TRANSACTION_MS, CommitUnknown, Database, Tx
from retentiond.control.rows import from_json, to_json
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.errors import (
    EpochMoved,
    Fenced,
    LedgerError,
    NotFound,
    Paused,
    PlanMode,
    PolicySuperseded,
    RetentiondError,
    StateMissing,
)

if TYPE_CHECKING:
    import asyncpg

PERMIT_SECONDS = 30.0
"""A permit's life: 4-safety.md says 30 s, by the control database's clock."""

Recorder = Callable[[Tx, Permit], Awaitable[None]]
"""Called inside the permit's transaction, to write the intent into the ledger."""


class PermitOpen(RetentiondError):
    """An earlier batch of this unit has no outcome yet."""


class PermitEnded(RetentiondError):
    """The permit has ended already."""


@dataclass(frozen=True, slots=True)
class OpenPermit:
    """A permit without an outcome. `prepared` is what the batch would have done if its transaction committed."""

    number: int
    target: str
    shard: str
    owner: str
    fence: int
    epoch: int
    digest: str
    batch: str
    intent: dict[str, Any]
    prepared: dict[str, Any] | None
    issued_at: datetime
    deadline: datetime

    @property
    def unit(self) -> Unit:
        """The unit that it was issued for."""
        return Unit(self.target, self.shard)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What `issue` was asked for."""

    number: int
    lease: Lease
    epoch: int
    digest: str
    batch: str
    intent: str | None
    seconds: float


async def reserve(database: Database) -> int:
    """A number that nobody else gets; taken before the target's transaction opens, which locks it as its fence."""
    async with database.transaction() as tx:
        return int(await tx.fetchval("SELECT pg_catalog.nextval('retentiond.permit_number')"))


async def issue(
    database: Database,
    *,
    number: int,
    lease: Lease,
    expected_epoch: int,
    digest: str,
    intent: Mapping[str, Any],
    seconds: float = PERMIT_SECONDS,
    timeout_ms: int = TRANSACTION_MS,
    record: Recorder | None = None,
) -> Permit:
    """Give out permit `number` for one batch under the holds of `expected_epoch`; `intent["batch"]` names the batch.

    Raises EpochMoved (read the holds again), PlanMode, Paused, Fenced, PolicySuperseded, LedgerError, PermitOpen (an
    earlier batch of the unit has to be looked into first), Unreachable. Nothing is inserted then. After a commit of
    unknown outcome it asks again: the same number for the same batch gives the same permit.
    """
    wanted = _Wanted(number, lease, expected_epoch, digest, str(intent.get("batch", "")), to_json(intent), seconds)

    async def attempt() -> Permit | None:
        async with database.transaction(timeout_ms=timeout_ms, total_ms=timeout_ms) as tx:
            await barrier.enter_shared(tx)
            now = await barrier.read(tx)
            if not now.settled:
                return None
            await _check(tx, lease, now.epoch, expected_epoch, digest)
            permit = await _found(tx, wanted)
            if permit is None:
                permit = await _insert(tx, wanted)
                if record is not None:
                    await record(tx, permit)
            return permit

    try:
        permit = await attempt()
    except CommitUnknown:
        permit = await attempt()
    if permit is None:
        # Another server answers than before: whatever the epoch says, it may have been said before the failover.
        await barrier.settle(database)
        raise EpochMoved("the control database has failed over or was restored: the holds must be read again")
    return permit


async def prepare(database: Database, permit: Permit, result: Mapping[str, Any]) -> None:
    """Write, between the batch's DELETE and its COMMIT, what the outcome will be if that takes effect.

    Raises Fenced when the lease is over or the permit was ended by somebody else: the batch must then be rolled back.
    """
    async with database.transaction() as tx:
        await units.require(tx, permit.lease, lock=True)
        done = await tx.fetchval(
            "UPDATE retentiond.permits SET prepared = $2::text::jsonb WHERE number = $1 AND ended_at IS NULL"
            " RETURNING true",
            permit.number,
            to_json(result),
        )
        if not done:
            raise units.fenced(permit.lease)


async def end(tx: Tx, permit: Permit, outcome: str) -> None:
    """End one's own permit with its outcome, under the lease's fence and in the outcome's transaction.

    Raises Fenced, and PermitEnded where it was ended before (after a commit of unknown outcome: it took effect).
    """
    await units.require(tx, permit.lease, lock=True)
    await _end(tx, permit.number, outcome)


async def end_orphan(tx: Tx, number: int, outcome: str, *, lease: Lease | None = None) -> None:
    """End a permit that its worker left without an outcome; the caller has seen that its fence holds.

    With `lease`, that of the unit's owner now, it is done under its fence. Without one (an operator says so) it is
    refused with Fenced while the worker's own lease still runs. Raises PermitEnded, NotFound.
    """
    row = await tx.fetchrow("SELECT target, shard, owner, fence FROM retentiond.permits WHERE number = $1", number)
    if row is None:
        raise NotFound(f"there is no permit {number}")
    left = Lease(Unit(row["target"], row["shard"]), row["owner"], row["fence"])
    if lease is not None:
        await units.require(tx, lease, lock=True)
        if lease.unit != left.unit:
            raise Fenced(f"permit {number} belongs to {left.unit}, and this lease is of {lease.unit}")
    elif await _still_runs(tx, left):
        raise Fenced(f"the worker of permit {number} still has its lease: it ends the permit itself")
    await _end(tx, number, outcome)


async def outcome_of(tx: Tx, number: int) -> str | None:
    """The outcome that the permit ended with; None while it is open. Raises NotFound."""
    row = await tx.fetchrow("SELECT outcome FROM retentiond.permits WHERE number = $1", number)
    if row is None:
        raise NotFound(f"there is no permit {number}")
    return None if row["outcome"] is None else str(row["outcome"])


async def open_permits(tx: Tx, *, unit: Unit | None = None, before: int | None = None) -> list[OpenPermit]:
    """The permits without an outcome, of one unit or all; with `before`, those issued under an earlier epoch."""
    rows = await tx.fetch(
        "SELECT number, target, shard, owner, fence, epoch, digest, batch, intent::text, prepared::text, issued_at,"
        " deadline FROM retentiond.permits WHERE ended_at IS NULL"
        " AND ($1::text IS NULL OR (target = $1 AND shard = $2)) AND ($3::bigint IS NULL OR epoch < $3)"
        " ORDER BY issued_at, number",
        unit.target if unit else None,
        unit.shard if unit else None,
        before,
    )
    return [_open_permit(row) for row in rows]


async def prune(tx: Tx, *, keep_seconds: float = 30 * 86_400.0, limit: int = 10_000) -> int:
    """Forget permits that ended so long ago (the ledger has their outcomes); at most `limit`, returns how many."""
    rows = await tx.fetch(
        "DELETE FROM retentiond.permits WHERE number = ANY(ARRAY(SELECT number FROM retentiond.permits"
        " WHERE ended_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)"
        " ORDER BY ended_at LIMIT $2)) RETURNING true",
        keep_seconds,
        limit,
    )
    return len(rows)


async def ledger_writable(tx: Tx) -> None:
    """Raise LedgerError unless an outcome could be written: without evidence nothing is erased."""
    writable = await tx.fetchval(
        "SELECT pg_catalog.current_setting('transaction_read_only') = 'off'"
        " AND pg_catalog.has_table_privilege('retentiond.ledger_entries', 'INSERT')"
        " AND pg_catalog.has_table_privilege('retentiond.ledger_head', 'UPDATE')"
        " AND (SELECT pg_catalog.count(*) FROM retentiond.ledger_head) = 1"
    )
    if not writable:
        raise LedgerError(
            "the ledger can't be written",
            remedy="grant the daemon's role INSERT on retentiond.ledger_entries and UPDATE on retentiond.ledger_head,"
            " or restore the ledger's head from a backup",
        )


async def _check(tx: Tx, lease: Lease, epoch: int, expected: int, digest: str) -> None:
    """All that 4-safety.md asks for under the barrier; the lease comes first, and its row stays locked."""
    await units.require(tx, lease, lock=True)
    row = await tx.fetchrow(
        "SELECT f.mode, f.paused, f.paused_by, p.digest FROM retentiond.flags f LEFT JOIN LATERAL"
        " (SELECT digest FROM retentiond.policies ORDER BY seq DESC LIMIT 1) p ON true"
    )
    if row is None:
        raise StateMissing("the control database has lost its flags", remedy="restore it from a backup")
    if row["mode"] != "enforce":
        raise PlanMode(remedy="set `mode: enforce` when the plan is what you want")
    if row["paused"]:
        raise Paused(f"erasing is paused by {row['paused_by']}", remedy="`retentiond resume` starts it again")
    if row["digest"] != digest:
        raise PolicySuperseded(
            f"the policy in force is {row['digest'] or 'none yet'}, and this worker has {digest}",
            remedy="restart the worker with the approved configuration, or run `retentiond policy approve` on this one",
        )
    if epoch != expected:
        raise EpochMoved(remedy="nothing to do: the holds are read again")
    await ledger_writable(tx)


async def _found(tx: Tx, wanted: _Wanted) -> Permit | None:
    """The same permit, when an earlier attempt's commit took effect; raises PermitOpen for any other open one."""
    lease = wanted.lease
    for found in await open_permits(tx, unit=lease.unit):
        same = (found.number, found.owner, found.fence) == (wanted.number, lease.owner, lease.fence)
        if not same or found.batch != wanted.batch:
            raise PermitOpen(
                f"permit {found.number} of {lease.unit}, batch {found.batch}, has no outcome yet",
                remedy="nothing to do: the worker that has the unit looks what became of it before it goes on",
            )
        return Permit(found.number, lease, found.epoch, found.digest, found.batch, found.issued_at, found.deadline)
    return None


async def _insert(tx: Tx, wanted: _Wanted) -> Permit:
    """Insert the row and let the lease run as long as the permit."""
    lease = wanted.lease
    await units.renew(tx, lease, wanted.seconds)
    row = await tx.fetchrow(
        "WITH now AS (SELECT pg_catalog.clock_timestamp() AS at)"
        " INSERT INTO retentiond.permits"
        " (number, target, shard, owner, fence, epoch, digest, batch, intent, issued_at, deadline)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, at, at + pg_catalog.make_interval(secs => $10)"
        " FROM now RETURNING issued_at, deadline",
        wanted.number,
        lease.unit.target,
        lease.unit.shard,
        lease.owner,
        lease.fence,
        wanted.epoch,
        wanted.digest,
        wanted.batch,
        wanted.intent,
        wanted.seconds,
    )
    if row is None:
        raise StateMissing("the permit was not inserted")
    return Permit(wanted.number, lease, wanted.epoch, wanted.digest, wanted.batch, row["issued_at"], row["deadline"])


async def _end(tx: Tx, number: int, outcome: str) -> None:
    done = await tx.fetchval(
        "UPDATE retentiond.permits SET ended_at = pg_catalog.clock_timestamp(), outcome = $2"
        " WHERE number = $1 AND ended_at IS NULL RETURNING true",
        number,
        outcome,
    )
    if not done:
        raise PermitEnded(f"permit {number} has ended already")


async def _still_runs(tx: Tx, lease: Lease) -> bool:
    try:
        await units.require(tx, lease, lock=True)
    except Fenced:
        return False
    return True


def _open_permit(row: asyncpg.Record) -> OpenPermit:
    return OpenPermit(
        number=row["number"],
        target=row["target"],
        shard=row["shard"],
        owner=row["owner"],
        fence=row["fence"],
        epoch=row["epoch"],
        digest=row["digest"],
        batch=row["batch"],
        intent=from_json(row["intent"]) or {},
        prepared=from_json(row["prepared"]),
        issued_at=row["issued_at"],
        deadline=row["deadline"],
    )
