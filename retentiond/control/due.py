"""Which targets are due now though their last sweep saw nothing to come: what was kept from going may go.

A hold ended, something was approved, erasing was resumed, or records are gone that referred to others. The word of it
is in the control database, so that it outlives whoever plans, and a sweep under way that may have passed those records.
"""

from __future__ import annotations

from collections.abc import Iterable

from retentiond.control.database import Tx


async def make_due(tx: Tx, targets: Iterable[str] | None = None) -> int:
    """Bring the next sweep forward to now, for these targets or all; returns how many units that changed.

    One that is being swept is due again when that is over.
    """
    wanted = None if targets is None else sorted(set(targets))
    await lock_targets(tx, wanted)
    rows = await tx.fetch(
        "UPDATE retentiond.units SET next_due_at = pg_catalog.clock_timestamp()"
        " WHERE shard = '' AND ($1::text[] IS NULL OR target = ANY($1)) AND (next_due_at IS NULL"
        " OR next_due_at > pg_catalog.clock_timestamp() OR lease_until > pg_catalog.clock_timestamp()) RETURNING true",
        wanted,
    )
    return len(rows)


async def lock_targets(tx: Tx, targets: Iterable[str] | None) -> None:
    """Lock these targets' units, or all, in one order for everybody: who writes several must not deadlock another."""
    await tx.fetch(
        "SELECT 1 FROM retentiond.units WHERE shard = '' AND ($1::text[] IS NULL OR target = ANY($1))"
        " ORDER BY target FOR NO KEY UPDATE",
        None if targets is None else sorted(set(targets)),
    )
