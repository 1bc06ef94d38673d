"""All that the daemon's loop looks at, in one statement: an idle daemon costs the control database one a second.

It decides nothing: permits and holds are judged by their own transactions. The statement gives JSON, which needs no
knowledge of types, so that it is one round trip behind a transaction pooler too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retentiond.control.database import Tx
from retentiond.control.workers import GONE_SECONDS
from retentiond.domain.permit import Unit
from retentiond.errors import StateMissing


@dataclass(frozen=True, slots=True)
class UnitView:
    """A unit as the loop sees it; `owner` is None also where the lease is over."""

    unit: Unit
    owner: str | None
    next_due_at: datetime | None
    last_success_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Activation:
    """A hold that became active: when, and how many seconds after it was placed."""

    effective_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class PendingHold:
    """A hold that is not active yet, and for how many seconds by the control database's clock."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Overview:
    """The control database at `now` (its clock, UTC).

    `waiting` has the count of each target whose sweep waits for an approval. `approved_at` is the newest approval of
    any kind; with `epoch` and `paused` it tells whether something was allowed that was not before. `release_due` says
    that a hold's release grace is over. `open_shards` are those of divided sweeps that may be taken; `orphans` are
    units whose owner let the lease run out. `workers` has how many living processes there are by role, in the mode in
    force.
    """

    now: datetime
    control_id: str
    mode: str
    paused: bool
    epoch: int
    digest: str | None
    approved_at: datetime | None
    holds: Mapping[str, int]
    reviews_overdue: int
    pending: tuple[PendingHold, ...]
    release_due: bool
    activations: tuple[Activation, ...]
    waiting: Mapping[str, int]
    ledger_entries: int
    heartbeat_at: datetime | None
    units: Mapping[str, UnitView]
    open_shards: tuple[Unit, ...]
    orphans: tuple[Unit, ...]
    workers: Mapping[str, int]

    @property
    def allowed(self) -> tuple[object, ...]:
        """What changes when sweeps may do what they could not before: a hold's end, an approval, `resume`."""
        return self.epoch, self.approved_at, self.paused


async def read(tx: Tx, activated_after: datetime | None = None) -> Overview:
    """The overview; `activations` are those after that instant, none where it is None. Raises StateMissing."""
    text = await tx.fetchval(_SQL, activated_after)
    if text is None:
        raise StateMissing("the control database has lost a part of its state", remedy="restore it from a backup")
    found = json.loads(text)
    return Overview(
        now=datetime.fromisoformat(found["now"]),
        control_id=found["control_id"],
        mode=found["mode"],
        paused=found["paused"],
        epoch=found["epoch"],
        digest=found["digest"],
        approved_at=_instant(found["approved_at"]),
        holds=found["holds"] or {},
        reviews_overdue=found["reviews_overdue"],
        pending=tuple(PendingHold(each["id"], each["seconds"]) for each in found["pending"] or ()),
        release_due=found["release_due"],
        activations=tuple(
            Activation(datetime.fromisoformat(each["at"]), each["seconds"]) for each in found["activations"] or ()
        ),
        waiting=found["waiting"] or {},
        ledger_entries=found["ledger_entries"],
        heartbeat_at=_instant(found["heartbeat_at"]),
        units={each["target"]: _unit(each) for each in found["units"] or ()},
        open_shards=tuple(Unit(*each) for each in found["open_shards"] or ()),
        orphans=tuple(Unit(*each) for each in found["orphans"] or ()),
        workers=found["workers"] or {},
    )


async def outcomes(tx: Tx, targets: Collection[str]) -> dict[str, dict[str, Any]]:
    """How the last sweep of each of these targets ended, as `sweep --json` shows it; of those that were swept."""
    rows = await tx.fetch(
        "SELECT target, outcome::text FROM retentiond.units"
        " WHERE shard = '' AND outcome IS NOT NULL AND target = ANY($1::text[])",
        list(targets),
    )
    return {row["target"]: json.loads(row["outcome"]) for row in rows}


def _unit(found: Mapping[str, Any]) -> UnitView:
    return UnitView(
        Unit(found["target"]),
        found["owner"],
        _instant(found["next_due_at"]),
        _instant(found["last_success_at"]),
        _instant(found["finished_at"]),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


_HEARTBEAT = "(SELECT at FROM retentiond.ledger_entries WHERE kind = 'heartbeat' ORDER BY seq DESC LIMIT 1)"
_SQL = """
SELECT pg_catalog.json_build_object(
  'now', t.now, 'control_id', m.control_id, 'mode', f.mode, 'paused', f.paused, 'epoch', b.hold_epoch,
  'digest', (SELECT digest FROM retentiond.policies ORDER BY seq DESC LIMIT 1),
  'approved_at', (SELECT pg_catalog.max(granted_at) FROM retentiond.approvals),
  'holds', (SELECT pg_catalog.json_object_agg(state, n)
            FROM (SELECT state, pg_catalog.count(*) AS n FROM retentiond.holds GROUP BY state) s),
  'reviews_overdue', (SELECT pg_catalog.count(*) FROM retentiond.holds
                      WHERE state <> 'released' AND review_by < t.now),
  'pending', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                'id', id, 'seconds', EXTRACT(epoch FROM t.now - placed_at)) ORDER BY placed_at, id)
              FROM retentiond.holds WHERE state = 'pending'),
  'release_due', EXISTS (SELECT FROM retentiond.holds WHERE state = 'releasing' AND erasable_at <= t.now),
  'activations', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                    'at', effective_at, 'seconds', EXTRACT(epoch FROM effective_at - placed_at)) ORDER BY effective_at)
                  FROM retentiond.holds WHERE effective_at > $1::timestamptz),
  'waiting', (SELECT pg_catalog.json_object_agg(target, count) FROM retentiond.waiting
              WHERE kind = 'sweep' AND count IS NOT NULL),
  'ledger_entries', h.size,
  'heartbeat_at', {heartbeat},
  'units', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
              'target', target, 'owner', CASE WHEN lease_until > t.now THEN owner END,
              'next_due_at', next_due_at, 'last_success_at', last_success_at, 'finished_at', finished_at))
            FROM retentiond.units WHERE shard = ''),
  'open_shards', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(target, shard) ORDER BY target, shard)
                  FROM retentiond.units WHERE shard <> '' AND sweep IS NOT NULL AND outcome IS NULL
                  AND (lease_until IS NULL OR lease_until <= t.now)
                  AND (next_due_at IS NULL OR next_due_at <= t.now)),
  'orphans', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(target, shard) ORDER BY target, shard)
              FROM retentiond.units WHERE lease_until <= t.now),
  'workers', (SELECT pg_catalog.json_object_agg(role, n)
              FROM (SELECT w.role, pg_catalog.count(*) AS n FROM retentiond.workers w WHERE w.mode = f.mode
                    AND w.seen_at > t.now - pg_catalog.make_interval(secs => {gone}) GROUP BY w.role) s)
)::text
FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) t
CROSS JOIN retentiond.meta m CROSS JOIN retentiond.flags f CROSS JOIN retentiond.barrier b
CROSS JOIN retentiond.ledger_head h
""".replace("{heartbeat}", _HEARTBEAT).replace("{gone}", str(GONE_SECONDS))
