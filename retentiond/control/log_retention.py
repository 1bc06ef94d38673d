"""What log groups had as their retention before a hold removed it, and which batches a hold has to wait for there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from retentiond.control import permits
from retentiond.control.database import Database


@dataclass(frozen=True, slots=True)
class Removed:
    """What a group had before a hold removed it, in days, and when it last was about to be removed (UTC)."""

    days: int
    removed_at: datetime


class LogRetention:
    """The memory of one target; `grace` in seconds is `holds.late_effect_grace`. Each method raises Unreachable.

    `records` tells what the target is over: its kind, the service, the region, the names of groups.
    """

    def __init__(self, database: Database, target: str, records: Sequence[str], *, grace: float) -> None:
        self._database, self._target, self._grace = database, target, grace
        # Not by the target's names of groups: those may be written otherwise one day, and the groups are the same.
        self._place = json.dumps(list(records[1:3]))

    async def remembered(self) -> dict[str, Removed]:
        """The retention that was removed for a hold, by group: of all groups of the service and region."""
        async with self._database.transaction(read_only=True) as tx:
            rows = await tx.fetch(
                "SELECT log_group, days, removed_at FROM retentiond.log_retention WHERE place = $1", self._place
            )
        return {row["log_group"]: Removed(row["days"], row["removed_at"]) for row in rows}

    async def remember(self, group: str, days: int) -> None:
        """It is about to be removed; of what is remembered already the days stay: those were before the first hold."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "INSERT INTO retentiond.log_retention (place, log_group, days) VALUES ($1, $2, $3)"
                " ON CONFLICT (place, log_group) DO UPDATE SET removed_at = pg_catalog.clock_timestamp()",
                self._place,
                group,
                days,
            )

    async def forget(self, group: str, since: datetime) -> None:
        """It is set again, or the group is gone; unless it was removed again since it was seen to be remembered."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "DELETE FROM retentiond.log_retention WHERE place = $1 AND log_group = $2 AND removed_at = $3",
                self._place,
                group,
                since,
            )

    async def waits(self, holds: Sequence[str]) -> set[str]:
        """Those of the holds that were placed after a batch of the target which may still take effect."""
        if not holds:
            return set()
        async with self._database.transaction(read_only=True) as tx:
            rows = await tx.fetch("SELECT id, epoch FROM retentiond.holds WHERE id = ANY($1)", list(holds))
            there = await permits.open_permits(tx)
        epochs = [
            each.epoch for each in there if each.target == self._target and not each.outstanding.expired(self._grace)
        ]
        return {row["id"] for row in rows if any(epoch < row["epoch"] for epoch in epochs)}
