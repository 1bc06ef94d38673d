"""Who lives, what each is at, and how far: what `workers --json` and the API show. No record's key is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retentiond.control.workers import Seen, Work
from retentiond.desk.base import Desk
from retentiond.domain.duration import rfc3339


def anchors_of(desk: Desk) -> dict[str, str]:
    """The anchor of each target that is walked over by it."""
    return {name: store.anchor for name, store in desk.engine.stores.items() if store.anchor is not None}


def worker_document(seen: Seen, anchors: Mapping[str, str]) -> dict[str, Any]:
    """A worker and what it is at; `anchors` has the order that walks of each target begin with."""
    worker = seen.worker
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "role": worker.role,
        "mode": worker.mode,
        "alive": seen.alive,
        "started_at": rfc3339(seen.started_at),
        "seen_at": rfc3339(seen.seen_at),
        "works": [work_document(work, anchors.get(work.unit.target)) for work in seen.works],
    }


def work_document(work: Work, anchor: str | None) -> dict[str, Any]:
    """What a worker has a lease on, and how far it is."""
    cursor = work.cursor or {}
    so_far = cursor.get("so_far") or {}
    return {
        "target": work.unit.target,
        "shard": work.unit.shard,
        "sweep": (work.sweep or {}).get("sweep"),
        **{name: so_far.get(name, 0) for name in ("erased", "anonymised", "archived", "held", "batches")},
        "at": _position(cursor, anchor),
        "lease_seconds": round(work.lease_seconds, 1),
        "crashes": work.crashes,
    }


def _position(cursor: Mapping[str, Any], anchor: str | None) -> str | None:
    """The anchor of the walk's position; nothing of a record's key, which may be personal data."""
    order, after = cursor.get("order") or [], cursor.get("after") or []
    if not order or not after or anchor is None or not str(order[0]).startswith(f"{anchor} "):
        return None
    return str(after[0])
