"""Permits that nobody would ever end: of shards that no worker takes up any more.

A permit that a crash left open is ended by who takes its unit next (`sweep.recovery`). But a shard is taken only while
it is one of a division that goes on. Where the next sweep is cut into other shards, or into none, or the shard ended as
failed, its batch would be in no ledger for good, and holds would ask after it for ever: so who has the target's unit
looks for such shards, and takes each for as long as it needs to settle what was left.
"""

from __future__ import annotations

from retentiond.control.database import Tx
from retentiond.domain.permit import Unit


async def orphaned(tx: Tx, target: str, *, sweep: str) -> list[Unit]:
    """The shards of the target that have an open permit and no owner, and are none that `sweep` still has to do."""
    rows = await tx.fetch(
        "SELECT u.shard FROM retentiond.units u WHERE u.target = $1 AND u.shard <> ''"
        " AND (u.lease_until IS NULL OR u.lease_until <= pg_catalog.clock_timestamp())"
        " AND NOT COALESCE(u.sweep ->> 'sweep' = $2 AND u.outcome IS NULL, false)"
        " AND EXISTS (SELECT FROM retentiond.permits p"
        " WHERE p.target = u.target AND p.shard = u.shard AND p.ended_at IS NULL) ORDER BY u.shard",
        target,
        sweep,
    )
    return [Unit(target, row["shard"]) for row in rows]
