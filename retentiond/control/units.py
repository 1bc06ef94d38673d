"""Units of work and their leases: one owner at a time, and a fencing number that says so for good.

A worker owns a unit until its lease is over; each new owner gets the next fence. Every write of an owner goes under
`fence = mine and lease not over` by the control database's clock, so that a worker which was stopped and comes back
finds itself fenced (4-safety.md, "Many workers"). Which unit is due and who wakes up for it is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retentiond.control.database import Database, Tx
from retentiond.control.rows import from_json, literal, to_json
from retentiond.domain.permit import Lease, Unit
from retentiond.errors import Busy, Fenced, NotFound

if TYPE_CHECKING:
    import asyncpg

LEASE_SECONDS = 30.0
"""How long a unit stays with an owner that is no longer heard of: 4-safety.md says 30 s."""

MINE = "target = $1 AND shard = $2 AND owner = $3 AND fence = $4 AND lease_until > pg_catalog.clock_timestamp()"
"""What a row of the units fulfils while the lease of `key` is ours and not over: `4-safety.md`, "Many workers"."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit as the control database has it; instants in UTC.

    `next_due_at` is None where nothing can become due. `crashes` counts owners that vanished since the last success.
    """

    unit: Unit
    owner: str | None
    fence: int
    lease_until: datetime | None
    cursor: dict[str, Any] | None
    sweep: dict[str, Any] | None
    next_due_at: datetime | None
    last_success_at: datetime | None
    outcome: dict[str, Any] | None
    crashes: int


async def ensure(tx: Tx, units: Iterable[Unit]) -> None:
    """Make the units that there are not yet; a new one is due at once."""
    wanted = sorted({(unit.target, unit.shard) for unit in units})
    await tx.execute(
        "INSERT INTO retentiond.units (target, shard) SELECT * FROM unnest($1::text[], $2::text[])"
        " ON CONFLICT (target, shard) DO NOTHING",
        [target for target, _ in wanted],
        [shard for _, shard in wanted],
    )


async def acquire(database: Database, unit: Unit, owner: str, seconds: float = LEASE_SECONDS) -> Lease | None:
    """Take the unit over with the next fence; None while another owner's lease runs.

    The same owner may take it again, which fences its own earlier lease. Raises NotFound for an unknown unit. When it
    raises CommitUnknown, simply acquire again.
    """
    async with database.transaction() as tx:
        fence = await tx.fetchval(
            "UPDATE retentiond.units SET fence = fence + 1, owner = $3,"
            " lease_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4),"
            " crashes = crashes + CASE WHEN owner IS NULL OR owner = $3 THEN 0 ELSE 1 END"
            " WHERE target = $1 AND shard = $2"
            " AND (owner IS NULL OR owner = $3 OR lease_until <= pg_catalog.clock_timestamp()) RETURNING fence",
            unit.target,
            unit.shard,
            owner,
            seconds,
        )
        if fence is None:
            await _require_known(tx, unit)
            return None
        return Lease(unit, owner, fence)


async def renew(tx: Tx, lease: Lease, seconds: float = LEASE_SECONDS) -> None:
    """Let the lease run for that long from now; raises Fenced when it is no longer ours."""
    await _update(
        tx,
        lease,
        "lease_until = greatest(lease_until, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $5))",
        seconds,
    )


async def release(tx: Tx, lease: Lease) -> bool:
    """Give the unit back; False when it was no longer ours, which is no error at the end of the work."""
    done = await tx.fetchval(
        "UPDATE retentiond.units SET owner = NULL, lease_until = NULL"
        " WHERE target = $1 AND shard = $2 AND owner = $3 AND fence = $4 RETURNING true",
        *key(lease),
    )
    return bool(done)


async def require(tx: Tx, lease: Lease, *, lock: bool = False) -> None:
    """Raise Fenced unless the lease is ours and not over; with `lock`, nobody can take it over until the commit."""
    if lock:
        await stay(tx, lease)
    if not await tx.fetchval(f"SELECT true FROM retentiond.units WHERE {MINE}", *key(lease)):
        raise fenced(lease)


async def stay(tx: Tx, lease: Lease) -> None:
    """Let nobody take the lease's unit over until the commit; whether it is still ours, a later statement has to ask.

    The row is locked first and judged afterwards: waiting for the lock takes time, and the lease may end in it.
    """
    # With constants it is one round trip, with placeholders two.
    await tx.execute(
        f"SELECT 1 FROM retentiond.units WHERE target = {literal(lease.unit.target)}"
        f" AND shard = {literal(lease.unit.shard)} FOR NO KEY UPDATE"
    )


async def save_cursor(tx: Tx, lease: Lease, cursor: Mapping[str, Any] | None) -> None:
    """Remember how far the walk has come (None: at its beginning); raises Fenced."""
    await _update(tx, lease, "cursor = $5::text::jsonb", to_json(cursor))


async def save_sweep(tx: Tx, lease: Lease, sweep: Mapping[str, Any] | None) -> None:
    """Remember the sweep under way (its id, its fixed `now`), for whoever takes over; raises Fenced."""
    await _update(tx, lease, "sweep = $5::text::jsonb", to_json(sweep))


async def finish_sweep(
    tx: Tx,
    lease: Lease,
    outcome: Mapping[str, Any],
    next_due_at: datetime | None,
    *,
    success: bool,
    keep_sweep: bool = False,
    began: datetime | None = None,
) -> None:
    """Write how the sweep ended and when the next can have something to do (None: never); raises Fenced.

    With `keep_sweep` it is gone on with by whoever sweeps next. Where `due.make_due` has struck since it `began`, by
    the control database's clock, the target stays due: what came about meanwhile the sweep may have passed already.
    """
    await _update(
        tx,
        lease,
        f"{'' if keep_sweep else 'sweep = NULL, '}outcome = $5::text::jsonb,"
        " next_due_at = CASE WHEN next_due_at > $8::timestamptz THEN least(next_due_at, $6) ELSE $6 END,"
        " finished_at = pg_catalog.clock_timestamp(),"
        " last_success_at = CASE WHEN $7 THEN pg_catalog.clock_timestamp() ELSE last_success_at END,"
        " crashes = CASE WHEN $7 THEN 0 ELSE crashes END",
        to_json(outcome),
        next_due_at,
        success,
        began,
    )


async def postpone(tx: Tx, lease: Lease, sweep: Mapping[str, Any], seconds: float) -> None:
    """Let nobody take the shard for so long; it goes on then as `sweep` says. Raises Fenced."""
    await _update(
        tx,
        lease,
        "sweep = $5::text::jsonb, next_due_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $6)",
        to_json(sweep),
        seconds,
    )


async def add_so_far(tx: Tx, lease: Lease, so_far: Mapping[str, Any]) -> None:
    """Keep what the sweep has come to, and where the walk is as it was; raises Fenced."""
    await _update(
        tx,
        lease,
        "cursor = COALESCE(NULLIF(cursor, 'null'), '{}') || pg_catalog.jsonb_build_object('so_far', $5::text::jsonb)",
        to_json(so_far),
    )


async def divide(tx: Tx, lease: Lease, shards: Mapping[str, Mapping[str, Any]]) -> None:
    """Make these shards of the lease's target, each with its `sweep`, to be worked on by whoever takes them.

    Raises Fenced, and Busy while a shard of an earlier division is still worked on.
    """
    await require(tx, lease, lock=True)
    # Who is just taking one of them waits for us, and then reads what it is to do now.
    await tx.execute(
        "SELECT 1 FROM retentiond.units WHERE target = $1 AND shard <> '' ORDER BY shard FOR UPDATE", lease.unit.target
    )
    busy = await tx.fetchval(
        "SELECT shard FROM retentiond.units WHERE target = $1 AND shard <> ''"
        " AND lease_until > pg_catalog.clock_timestamp() ORDER BY shard LIMIT 1",
        lease.unit.target,
    )
    if busy is not None:
        raise Busy(f"shard {busy} of an earlier sweep of {lease.unit.target} is still worked on")
    await tx.execute(
        "UPDATE retentiond.units SET sweep = NULL WHERE target = $1 AND shard <> '' AND sweep IS NOT NULL",
        lease.unit.target,
    )
    await tx.execute(
        "INSERT INTO retentiond.units (target, shard, sweep, next_due_at)"
        " SELECT $1, u.shard, u.sweep::jsonb, NULL FROM unnest($2::text[], $3::text[]) u(shard, sweep)"
        " ON CONFLICT (target, shard) DO UPDATE SET sweep = excluded.sweep, cursor = NULL, outcome = NULL,"
        " next_due_at = NULL",
        lease.unit.target,
        list(shards),
        [to_json(sweep) for sweep in shards.values()],
    )


async def reopen(tx: Tx, lease: Lease, sweep: str) -> None:
    """Let the shards of that sweep of the lease's target be taken again which were left before they were done."""
    await require(tx, lease, lock=True)
    await tx.execute(
        "UPDATE retentiond.units SET outcome = NULL, next_due_at = NULL"
        " WHERE target = $1 AND shard <> '' AND sweep ->> 'sweep' = $2 AND outcome IS NOT NULL",
        lease.unit.target,
        sweep,
    )


async def shards(tx: Tx, target: str) -> list[UnitState]:
    """The shards of a target that have been made, by name; `owner` is None also where the lease is over."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM retentiond.units WHERE target = $1 AND shard <> '' ORDER BY shard", target
    )
    now = await tx.fetchval("SELECT pg_catalog.clock_timestamp()")
    found = [_state(row) for row in rows]
    return [replace(each, owner=None) if each.lease_until and each.lease_until <= now else each for each in found]


async def open_shards(tx: Tx, target: str, sweep: str) -> tuple[list[Unit], list[Unit]]:
    """The shards of that sweep which are not over: all of them, and those that may be taken now; by name."""
    rows = await tx.fetch(
        "SELECT shard, (lease_until IS NULL OR lease_until <= now.at)"
        " AND (next_due_at IS NULL OR next_due_at <= now.at) AS free"
        " FROM retentiond.units, (SELECT pg_catalog.clock_timestamp() AS at OFFSET 0) now"
        " WHERE target = $1 AND shard <> '' AND sweep ->> 'sweep' = $2 AND outcome IS NULL ORDER BY shard",
        target,
        sweep,
    )
    still = [(Unit(target, row["shard"]), row["free"]) for row in rows]
    return [unit for unit, _ in still], [unit for unit, free in still if free]


async def is_postponed(tx: Tx, unit: Unit) -> bool:
    """Whether it is not to be taken yet."""
    return bool(
        await tx.fetchval(
            "SELECT next_due_at > pg_catalog.clock_timestamp() FROM retentiond.units WHERE target = $1 AND shard = $2",
            unit.target,
            unit.shard,
        )
    )


async def state(tx: Tx, unit: Unit) -> UnitState:
    """The unit's state; raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM retentiond.units WHERE target = $1 AND shard = $2", unit.target, unit.shard
    )
    if row is None:
        raise _unknown(unit)
    return _state(row)


async def all_states(tx: Tx) -> list[UnitState]:
    """All units, by target and shard."""
    return [_state(row) for row in await tx.fetch(f"SELECT {_COLUMNS} FROM retentiond.units ORDER BY target, shard")]


def fenced(lease: Lease) -> Fenced:
    """The error for a lease that is not ours any more."""
    return Fenced(
        f"the lease of {lease.unit} (fence {lease.fence}) is over or has gone to another worker",
        remedy="nothing to do: the worker that has it now goes on",
    )


_COLUMNS = (
    "target, shard, owner, fence, lease_until, cursor::text, sweep::text, next_due_at, last_success_at,"
    " outcome::text, crashes"
)


async def _update(tx: Tx, lease: Lease, assignments: str, *values: object) -> None:
    done = await tx.fetchval(
        f"UPDATE retentiond.units SET {assignments} WHERE {MINE} RETURNING true", *key(lease), *values
    )
    if not done:
        raise fenced(lease)


async def _require_known(tx: Tx, unit: Unit) -> None:
    if not await tx.fetchval(
        "SELECT true FROM retentiond.units WHERE target = $1 AND shard = $2", unit.target, unit.shard
    ):
        raise _unknown(unit)


def _unknown(unit: Unit) -> NotFound:
    return NotFound(f"there is no unit {unit}", remedy="see that the target is configured where the daemon runs")


def key(lease: Lease) -> tuple[str, str, str, int]:
    """The parameters $1 to $4 of `MINE`."""
    return lease.unit.target, lease.unit.shard, lease.owner, lease.fence


def _state(row: asyncpg.Record) -> UnitState:
    return UnitState(
        unit=Unit(row["target"], row["shard"]),
        owner=row["owner"],
        fence=row["fence"],
        lease_until=row["lease_until"],
        cursor=from_json(row["cursor"]),
        sweep=from_json(row["sweep"]),
        next_due_at=row["next_due_at"],
        last_success_at=row["last_success_at"],
        outcome=from_json(row["outcome"]),
        crashes=row["crashes"],
    )
