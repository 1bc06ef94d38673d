"""The hold barrier: the epoch that orders permits and holds, and the server that it was last seen on.

Every change of a hold bumps the epoch under the exclusive barrier lock; a permit carries the epoch it was issued
under, read after the shared lock. So every permit of a smaller epoch than a hold's was issued before that hold was
placed, whatever its number, and every later one has seen the hold.

After a failover (or a restore) the last commits may be missing, epochs among them: the same number could come again
and mean other holds. So a server that is not the one last seen raises the epoch by a leap, and is remembered with
the time, for activations to wait (4-safety.md: none for a permit's life plus the grace).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retentiond.control.identity import identity_of
from retentiond.control.locks import close_barrier, share_barrier

if TYPE_CHECKING:
    from retentiond.control.database import Database, Tx

EPOCH_LEAP: Final = 1_000_000
"""More changes of holds than any failover can have lost."""

BARRIER_WAIT_MS: Final = 30_000
"""Milliseconds to wait for the barrier alone: a permit's transaction that is stopped ends by its timeouts of 5 s."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """`settled` is False when the server is not the one last seen: `observe` must run before the epoch is used."""

    epoch: int
    settled: bool


async def enter_shared(tx: Tx) -> None:
    """Take the barrier with all other permits; statements that follow see every hold that was placed before."""
    await share_barrier(tx)


async def enter_alone(tx: Tx, *, wait_ms: int = BARRIER_WAIT_MS, step_ms: int = 5_000) -> None:
    """Take the barrier alone, waiting up to `wait_ms`; later statements have `step_ms` each, as everywhere."""
    await tx.execute(f"SET LOCAL statement_timeout = {wait_ms}; SET LOCAL lock_timeout = {wait_ms}")
    await close_barrier(tx)
    await tx.execute(f"SET LOCAL statement_timeout = {step_ms}; SET LOCAL lock_timeout = {step_ms}")


async def read(tx: Tx) -> Barrier:
    """The epoch now, and whether it can be used; under either lock."""
    line = (await identity_of(tx)).line
    row = await tx.fetchrow("SELECT hold_epoch, server_line FROM retentiond.barrier")
    return Barrier(0, settled=False) if row is None else Barrier(row["hold_epoch"], row["server_line"] == line)


async def bump(tx: Tx) -> int:
    """Raise the epoch and return it; only under the exclusive lock."""
    return int(await tx.fetchval("UPDATE retentiond.barrier SET hold_epoch = hold_epoch + 1 RETURNING hold_epoch"))


async def observe(tx: Tx) -> bool:
    """Notice a failover: remember the server, leap the epoch. True if there was one. Only under the exclusive lock."""
    line = (await identity_of(tx)).line
    moved = await tx.fetchval(
        "UPDATE retentiond.barrier SET server_line = $1, line_changed_at = pg_catalog.clock_timestamp(),"
        " hold_epoch = hold_epoch + $2 WHERE server_line IS DISTINCT FROM $1 RETURNING true",
        line,
        EPOCH_LEAP,
    )
    return bool(moved)


async def settle(database: Database) -> bool:
    """`observe`, in a transaction of its own."""
    async with database.transaction() as tx:
        await enter_alone(tx)
        return await observe(tx)


async def remember_server(tx: Tx) -> None:
    """Note the server where none is noted yet: the state was made on it just now."""
    line = (await identity_of(tx)).line
    await tx.execute("UPDATE retentiond.barrier SET server_line = $1 WHERE server_line IS NULL", line)


async def quarantined(tx: Tx, seconds: float) -> bool:
    """Whether another server was first seen less than so many seconds ago, by the control database's clock."""
    return bool(
        await tx.fetchval(
            "SELECT pg_catalog.clock_timestamp()"
            " < coalesce(line_changed_at, '-infinity') + pg_catalog.make_interval(secs => $1) FROM retentiond.barrier",
            seconds,
        )
    )
