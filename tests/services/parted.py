"""A table in partitions by its anchor, some of them wholly expired, and what has become of it."""

from __future__ import annotations

from typing import Any

from tests.services.sweeping import ACCOUNTS, Rig

COLUMNS = "id bigint, account_id bigint, created_at timestamptz NOT NULL, ip text, PRIMARY KEY (id, created_at)"
EACH = 20
"""Records of each partition."""
OLD = ("logs_p0", "logs_p1", "logs_p2")
"""The partitions that are wholly expired for every tier but enterprise's; ids of the first begin at 0."""
YOUNG = "logs_p9"
RECORDS = f"""
INSERT INTO logs SELECT k * 1000 + i, 1 + i % 2, now() - (900 - 100 * k) * interval '1 day' + i * interval '1 hour',
    '10.0.0.' || i FROM generate_series(0, 2) k, generate_series(1, {EACH}) i;
INSERT INTO logs SELECT 9000 + i, 1, now() - interval '1 day', '10.0.0.' || i FROM generate_series(1, {EACH}) i;
"""


async def parted(rig: Rig, *, columns: str = COLUMNS, more: str = "", records: str = RECORDS, **settings: Any) -> None:
    """Partitions of 100 days each, of which the last is young; `more` is executed before the records come in."""
    bounds = [
        f"CREATE TABLE {name} PARTITION OF logs FOR VALUES FROM (current_date - interval '{900 - 100 * k} days')"
        f" TO (current_date - interval '{800 - 100 * k} days');"
        for k, name in enumerate(OLD)
    ]
    young = f"CREATE TABLE {YOUNG} PARTITION OF logs FOR VALUES FROM (now() - interval '30 days') TO (MAXVALUE);"
    await rig.db.execute(
        ACCOUNTS
        + f"CREATE TABLE logs ({columns}) PARTITION BY RANGE (created_at); CREATE INDEX ON logs (created_at);"
        + "".join(bounds)
        + young
    )
    await rig.db.execute(more + records or "SELECT")
    rig.target("logs", **settings)


async def tables(rig: Rig) -> list[str]:
    """The tables called logs_… that there are."""
    return [
        row[0]
        for row in await rig.db.fetch(
            "SELECT relname::text FROM pg_class WHERE relname LIKE 'logs\\_%' AND relkind IN ('r', 'p') ORDER BY 1"
        )
    ]


async def attached(rig: Rig) -> list[str]:
    """Those that are partitions of the table, and not half detached."""
    return [
        row[0]
        for row in await rig.db.fetch(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'logs'::regclass"
            " AND NOT inhdetachpending ORDER BY 1"
        )
    ]


async def noted(rig: Rig) -> list[str]:
    """What the control state says may be detached."""
    async with rig.control_connection() as control:
        return [row[0] for row in await control.fetch("SELECT name FROM retentiond.detached ORDER BY 1")]


async def whole(rig: Rig) -> int:
    """How many partitions the ledger says went whole."""
    return sum(len(entry.get("partitions", ())) for entry in await rig.ledger())
