"""Permits: the right to destroy one batch, given out under the hold barrier.

The permit transaction is the one of 4-safety.md, "Before a batch": the shared barrier lock in a statement of its own,
then the epoch, mode, pause, policy, lease and ledger in later ones, then the row. A permit stays open until its outcome
is written; a hold that was placed after it waits for that, or for proof that the batch can't take effect any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg

from retentiond.control import barrier, units
from retentiond.control.database import TRANSACTION_MS, CommitUnknown, Database, Tx
from retentiond.control.entries import LEDGER_WRITABLE, ledger_refusals, ledger_writable
from retentiond.control.host import uptime
from retentiond.control.identity import line_sql
from retentiond.control.outstanding import COLUMNS, OpenPermit, from_row
from retentiond.control.rows import from_json, to_json
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.errors import (
    EpochMoved,
    NotFound,
    Paused,
    PlanMode,
    PolicySuperseded,
    Refused,
    RetentiondError,
    StateMissing,
    UsageError,
)

PERMIT_SECONDS = 30.0
"""A permit's life: 4-safety.md says 30 s, by the control database's clock."""

_UNSET = datetime.min.replace(tzinfo=UTC)
# The names of records are kept for no longer than somebody may have to look for them.
_FORGOTTEN = "prepared = prepared - 'intended'"

Recorder = Callable[[Tx, Permit], Awaitable[None]]
"""Called inside the permit's transaction, to write the intent into the ledger."""


class PermitOpen(RetentiondError):
    """An earlier batch of this unit has no outcome yet."""


class PermitEnded(RetentiondError):
    """The permit has ended already."""


async def reserve(database: Database) -> int:
    """A number that nobody else gets; taken before the target's transaction opens, which locks it as its fence."""
    return (await reserve_some(database, 1))[0]


async def reserve_some(database: Database, count: int) -> list[int]:
    """As `reserve`, for several batches to come; what is never used is no loss."""
    async with database.transaction() as tx:
        rows = await tx.fetch(
            "SELECT pg_catalog.nextval('retentiond.permit_number') AS number FROM pg_catalog.generate_series(1, $1)",
            count,
        )
        return [int(row["number"]) for row in rows]


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
    sought = Permit(number, lease, expected_epoch, digest, str(intent.get("batch", "")), _UNSET, _UNSET)
    if intent.get("fence") in ("expiry", "request"):
        # Read before the first attempt, so that no request is younger than it says.
        intent = {**intent, "up": uptime()}

    async def attempt() -> Permit | None:
        async with database.transaction(timeout_ms=timeout_ms, total_ms=timeout_ms) as tx:
            await barrier.enter_shared(tx)
            with ledger_refusals():
                found = await _look(tx, lease, number, reads_system=database.reads_system)
            if found["line"] != found["server_line"]:
                return None
            _check(found, sought)
            if found["number"] is not None:
                return _same_again(found, sought)
            if not found["ledger"]:
                await ledger_writable(tx)
            permit = await _insert(tx, sought, intent, seconds)
            if record is not None:
                await record(tx, permit)
            return permit

    permit = await _persist(attempt, number)
    if permit is None:
        # Another server answers than before: whatever the epoch says, it may have been said before the failover.
        await barrier.settle(database)
        raise EpochMoved("the control database has failed over or was restored: the holds must be read again")
    return permit


async def prepare(database: Database, permit: Permit, result: Mapping[str, Any], *, in_time: bool = False) -> None:
    """Write, before a batch takes effect, what it is about to do: between DELETE and COMMIT, or before any request.

    What names records is under `intended`, and is forgotten when the permit ends. Raises Fenced when the lease is over
    or the permit was ended by somebody else: the batch must then be rolled back, or nothing be sent. With `in_time` it
    raises Refused when the permit's deadline is past: the server would refuse what is sent then, if its clock is right.
    """
    async with database.transaction() as tx:
        await units.stay(tx, permit.lease)
        done = await tx.fetchval(
            "UPDATE retentiond.permits SET prepared = $6::text::jsonb WHERE number = $5 AND ended_at IS NULL"
            " AND (NOT $7 OR deadline > pg_catalog.clock_timestamp()) AND NOT intent ? 'gone'"
            f" AND EXISTS (SELECT FROM retentiond.units WHERE {units.MINE}) RETURNING true",
            *units.key(permit.lease),
            permit.number,
            to_json(result),
            in_time,
        )
        if done:
            return
        await units.require(tx, permit.lease)
        if in_time and await outcome_of(tx, permit.number) is None:
            raise Refused(
                f"the time of permit {permit.number} was over before anything was asked for under it",
                remedy="nothing to do: smaller batches follow; see whether the account directory is slow",
            )
        raise units.fenced(permit.lease)


async def declare_gone(tx: Tx, number: int, *, by: str) -> OpenPermit:
    """An operator says that the worker of this permit is gone, where its presence is the fence; returns the permit.

    What became of its batch is looked at by who takes its unit next; holds no longer wait for it, and its worker can
    prepare nothing under it any more. Raises NotFound, and UsageError where the permit ended or has another fence.
    """
    found = await still_open(tx, number)
    if found is None:
        raise UsageError(
            f"permit {number} has ended: {await outcome_of(tx, number)}",
            remedy="nothing to do: nothing waits for it",
        )
    if found.fenced_by != "presence":
        raise UsageError(
            f"permit {number} does not rest on its worker's presence",
            remedy="nothing to do: its store or the clock tells when its batch is over",
        )
    await tx.execute(
        "UPDATE retentiond.permits SET intent = intent || pg_catalog.jsonb_build_object('gone', $2::text)"
        " WHERE number = $1 AND ended_at IS NULL",
        number,
        by,
    )
    return found


async def end(tx: Tx, permit: Permit, outcome: str, *, cursor: Mapping[str, Any] | None = None) -> None:
    """End one's own permit with its outcome, under the lease's fence and in the outcome's transaction.

    With `cursor` the unit's walk has come so far. Raises Fenced, and PermitEnded where it was ended before (after a
    commit of unknown outcome: it took effect); nothing that was done in the transaction must stand then.
    """
    await units.stay(tx, permit.lease)
    done = await tx.fetchval(
        # The row is locked, and whether the lease is over is judged once: below.
        "WITH moved AS (UPDATE retentiond.units SET cursor = $7::text::jsonb"
        " WHERE target = $1 AND shard = $2 AND owner = $3 AND fence = $4 AND $7::text IS NOT NULL)"
        f" UPDATE retentiond.permits SET ended_at = pg_catalog.clock_timestamp(), outcome = $6, {_FORGOTTEN}"
        f" WHERE number = $5 AND ended_at IS NULL AND EXISTS (SELECT FROM retentiond.units WHERE {units.MINE})"
        " RETURNING true",
        *units.key(permit.lease),
        permit.number,
        outcome,
        to_json(cursor),
    )
    if not done:
        await units.require(tx, permit.lease)
        raise PermitEnded(f"permit {permit.number} has ended already")


async def end_orphan(tx: Tx, number: int, outcome: str, *, lease: Lease | None = None) -> bool:
    """End a permit that was left without an outcome; False when somebody else has ended it before.

    The caller has seen that its fence holds (4-safety.md, "A permit without an outcome"): whoever had it, and may still
    have the lease, can't bring the batch to effect any more. With `lease`, that of the unit's owner now, it is done
    under its fence. Raises NotFound, Fenced.
    """
    if lease is not None:
        await units.require(tx, lease, lock=True)
    if await _ended(tx, number, outcome):
        return True
    await outcome_of(tx, number)
    return False


async def outcome_of(tx: Tx, number: int) -> str | None:
    """The outcome that the permit ended with; None while it is open. Raises NotFound."""
    row = await tx.fetchrow("SELECT outcome FROM retentiond.permits WHERE number = $1", number)
    if row is None:
        raise NotFound(f"there is no permit {number}")
    return None if row["outcome"] is None else str(row["outcome"])


async def prepared_of(tx: Tx, permit: Permit) -> dict[str, Any] | None:
    """What `prepare` has written for one's own permit; None where it never came to that."""
    found: dict[str, Any] | None = from_json(
        await tx.fetchval("SELECT prepared::text FROM retentiond.permits WHERE number = $1", permit.number)
    )
    return found


async def open_permits(tx: Tx, *, unit: Unit | None = None, before: int | None = None) -> list[OpenPermit]:
    """The permits without an outcome, of one unit or all; with `before`, those issued under an earlier epoch."""
    rows = await tx.fetch(
        f"SELECT {COLUMNS} FROM retentiond.permits WHERE ended_at IS NULL"
        " AND ($1::text IS NULL OR (target = $1 AND shard = $2)) AND ($3::bigint IS NULL OR epoch < $3)"
        " ORDER BY issued_at, number",
        unit.target if unit else None,
        unit.shard if unit else None,
        before,
    )
    return [from_row(row) for row in rows]


async def any_open(tx: Tx, target: str) -> bool:
    """Whether any permit of the target, or of a shard of it, has no outcome."""
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT FROM retentiond.permits WHERE ended_at IS NULL AND target = $1)", target
        )
    )


async def still_open(tx: Tx, number: int) -> OpenPermit | None:
    """That permit as it is now; None where it has ended."""
    row = await tx.fetchrow(f"SELECT {COLUMNS} FROM retentiond.permits WHERE ended_at IS NULL AND number = $1", number)
    return None if row is None else from_row(row)


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


async def _persist(attempt: Callable[[], Awaitable[Permit | None]], number: int) -> Permit | None:
    """Try again while it is unknown whether the last attempt took effect, or that one is only now committing."""
    for tries_left in (2, 1, 0):
        try:
            return await attempt()
        except CommitUnknown:
            if not tries_left:
                raise
        except asyncpg.UniqueViolationError as error:
            if not tries_left:
                raise PermitEnded(f"permit number {number} was used before") from error
    raise AssertionError("unreachable: the loop returns or raises")


async def _look(tx: Tx, lease: Lease, number: int, *, reads_system: bool) -> asyncpg.Record:
    """All that a permit depends on, in one statement: so that it is one round trip, and of one instant."""
    row = await tx.fetchrow(
        f"SELECT b.hold_epoch, b.server_line, {line_sql(reads_system=reads_system)} AS line,"
        " f.mode, f.paused, f.paused_by,"
        " (SELECT digest FROM retentiond.policies ORDER BY seq DESC LIMIT 1) AS active_digest,"
        f" EXISTS (SELECT FROM retentiond.units WHERE {units.MINE}) AS mine, {LEDGER_WRITABLE} AS ledger,"
        " o.number, o.owner, o.fence, o.epoch, o.digest, o.batch, o.issued_at, o.deadline"
        " FROM retentiond.barrier b CROSS JOIN retentiond.flags f LEFT JOIN LATERAL"
        " (SELECT * FROM retentiond.permits WHERE ended_at IS NULL AND target = $1 AND shard = $2"
        " ORDER BY number <> $5 LIMIT 1) o ON true",
        *units.key(lease),
        number,
    )
    if row is None:
        raise StateMissing("the control database has lost its flags", remedy="restore it from a backup")
    return row


def _check(found: asyncpg.Record, sought: Permit) -> None:
    """Raise unless all holds that 4-safety.md asks for under the barrier."""
    if not found["mine"]:
        raise units.fenced(sought.lease)
    if found["mode"] != "enforce":
        raise PlanMode(remedy="set `mode: enforce` when the plan is what you want")
    if found["paused"]:
        raise Paused(f"erasing is paused by {found['paused_by']}", remedy="`retentiond resume` starts it again")
    if found["active_digest"] != sought.digest:
        raise PolicySuperseded(
            f"the policy in force is {found['active_digest'] or 'none yet'}, and this worker has {sought.digest}",
            remedy="restart the worker with the approved configuration, or run `retentiond policy approve` for its own",
        )
    if found["hold_epoch"] != sought.epoch:
        raise EpochMoved(remedy="nothing to do: the holds are read again")


def _same_again(found: asyncpg.Record, sought: Permit) -> Permit:
    """The permit that an earlier attempt of the same call has inserted; raises PermitOpen for any other."""
    lease = sought.lease
    mine = (sought.number, lease.owner, lease.fence, sought.epoch, sought.digest, sought.batch)
    if tuple(found[name] for name in ("number", "owner", "fence", "epoch", "digest", "batch")) == mine:
        return replace(sought, issued_at=found["issued_at"], deadline=found["deadline"])
    raise PermitOpen(
        f"permit {found['number']} of {lease.unit}, batch {found['batch']}, has no outcome yet",
        remedy="nothing to do: the worker that has the unit looks what became of it before it goes on",
    )


async def _insert(tx: Tx, sought: Permit, intent: Mapping[str, Any], seconds: float) -> Permit:
    """Extend the lease over the permit's life and insert it, both or neither."""
    row = await tx.fetchrow(
        "WITH now AS MATERIALIZED (SELECT pg_catalog.clock_timestamp() AS at),"
        " leased AS (UPDATE retentiond.units SET lease_until = greatest(lease_until, now.at"
        f" + pg_catalog.make_interval(secs => $10)) FROM now WHERE {units.MINE} RETURNING now.at)"
        " INSERT INTO retentiond.permits"
        " (number, target, shard, owner, fence, epoch, digest, batch, intent, issued_at, deadline)"
        " SELECT $5, $1, $2, $3, $4, $6, $7, $8, $9::text::jsonb, at, at + pg_catalog.make_interval(secs => $10)"
        " FROM leased RETURNING issued_at, deadline",
        *units.key(sought.lease),
        sought.number,
        sought.epoch,
        sought.digest,
        sought.batch,
        to_json(intent),
        seconds,
    )
    if row is None:
        raise units.fenced(sought.lease)
    return replace(sought, issued_at=row["issued_at"], deadline=row["deadline"])


async def _ended(tx: Tx, number: int, outcome: str) -> bool:
    return bool(
        await tx.fetchval(
            f"UPDATE retentiond.permits SET ended_at = pg_catalog.clock_timestamp(), outcome = $2, {_FORGOTTEN}"
            " WHERE number = $1 AND ended_at IS NULL RETURNING true",
            number,
            outcome,
        )
    )
