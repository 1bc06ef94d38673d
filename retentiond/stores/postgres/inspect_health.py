"""What `check` says of the signals that a sweep yields to: those that this role or this server can't tell."""

from __future__ import annotations

from retentiond.stores.base import Finding
from retentiond.stores.health import Health
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import TargetDatabase, one
from retentiond.stores.postgres.health import HIDDEN, Reader

_RIGHT = """
SELECT current_user AS role, COALESCE((SELECT pg_catalog.pg_has_role(current_user, r.oid, 'USAGE')
       FROM pg_catalog.pg_roles r WHERE r.rolname = 'pg_read_all_stats'), false) AS granted
"""
_NEED_THE_RIGHT = ("replica_lag", "replica_backlog", "oldest_snapshot")


async def findings(reader: Reader, name: str, health: Health) -> list[Finding]:
    """What can't be read: an error where it was configured, to be known where it is on by default."""
    limits = health.limits()
    row = await _right(reader.database)
    unread = {} if row["granted"] else {each: HIDDEN for each in _NEED_THE_RIGHT if each in limits}
    unread |= (await reader.read(limits)).unread
    by_why: dict[tuple[str, bool], list[str]] = {}
    for signal, why in sorted(unread.items()):
        by_why.setdefault((why, signal in health.configured()), []).append(signal)
    return [
        _finding(name, signals, why, role=str(row["role"]), configured=configured)
        for (why, configured), signals in by_why.items()
    ]


async def _right(database: TargetDatabase) -> dict[str, object]:
    async with database.transaction() as connection:
        return dict(await one(connection, _RIGHT))


def _finding(name: str, signals: list[str], why: str, *, role: str, configured: bool) -> Finding:
    keys = ", ".join(f"pace.health.{signal}" for signal in signals)
    hidden = why == HIDDEN
    remedy = f"GRANT pg_monitor TO {quote(role)};" if hidden else f"set targets.{name}.pace.health.{signals[0]}: off"
    if configured:
        text = f"{keys}: configured, and can't be read, which stops the sweep: {why}"
        return Finding("error", name, text, remedy)
    return Finding("info", name, f"{keys}: a sweep does not mind this signal, since it can't be read: {why}", remedy)
