"""What reaches every replica before its next batch: the mode and the pause; and the latest instant that was believed.

Permits read the flags in their own transaction, so a pause is in force as soon as it is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from retentiond.control.database import Tx
from retentiond.errors import StateMissing

Mode = Literal["plan", "enforce"]


@dataclass(frozen=True, slots=True)
class Flags:
    """Mode and pause, who set them, when (UTC) and why."""

    mode: Mode
    mode_by: str | None
    mode_at: datetime | None
    paused: bool
    paused_by: str | None
    paused_at: datetime | None
    paused_reason: str | None


@dataclass(frozen=True, slots=True)
class ClockState:
    """The control database's clock now, and the latest instant that was believed before; both UTC."""

    now: datetime
    high_water: datetime | None


async def read(tx: Tx) -> Flags:
    """The flags as the transaction sees them."""
    row = await tx.fetchrow(
        "SELECT mode, mode_by, mode_at, paused, paused_by, paused_at, paused_reason FROM retentiond.flags"
    )
    if row is None:
        raise StateMissing("the control database has lost its flags", remedy="restore it from a backup")
    return Flags(**dict(row))


async def pause(tx: Tx, by: str, reason: str = "") -> bool:
    """Stop erasing everywhere; False when it was paused already (the first one's name and reason stay)."""
    done = await tx.fetchval(
        "UPDATE retentiond.flags SET paused = true, paused_by = $1, paused_reason = $2,"
        " paused_at = pg_catalog.clock_timestamp() WHERE NOT paused RETURNING true",
        by,
        reason,
    )
    return bool(done)


async def resume(tx: Tx) -> bool:
    """Let erasing go on; False when it was not paused."""
    done = await tx.fetchval(
        "UPDATE retentiond.flags SET paused = false, paused_by = NULL, paused_reason = NULL, paused_at = NULL"
        " WHERE paused RETURNING true"
    )
    return bool(done)


async def set_mode(tx: Tx, mode: Mode, by: str) -> bool:
    """Record the mode that the configuration says; False when it was that already."""
    done = await tx.fetchval(
        "UPDATE retentiond.flags SET mode = $1, mode_by = $2, mode_at = pg_catalog.clock_timestamp()"
        " WHERE mode <> $1 RETURNING true",
        mode,
        by,
    )
    return bool(done)


async def observe_clock(tx: Tx, now: datetime) -> None:
    """Remember an instant (UTC) that is believed; the memory only rises."""
    await tx.execute(
        "UPDATE retentiond.clock SET high_water = $1 WHERE high_water IS NULL OR high_water < $1",
        now,
    )


async def clock_state(tx: Tx, *, lock: bool = False) -> ClockState:
    """The clock and its high-water mark, for the guard against jumps; with `lock`, nobody raises it meanwhile."""
    row = await tx.fetchrow(
        f"SELECT pg_catalog.clock_timestamp() AS now, high_water FROM retentiond.clock{' FOR UPDATE' if lock else ''}"
    )
    if row is None:
        raise StateMissing("the control database has lost its clock's memory", remedy="restore it from a backup")
    return ClockState(row["now"], row["high_water"])
