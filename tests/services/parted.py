"""A table in partitions by its anchor, some of them wholly expired, and what has become of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from retentiond.stores.postgres.partbatch import PartBatch
from retentiond.stores.postgres.partitions import PostgresPartitions
from retentiond.sweep.parts import WholeParts
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


class Died(BaseException):
    """As a process that is gone: nothing of its own runs after it."""


def when(
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    name: str,
    act: Callable[[Any], Awaitable[None]],
    *,
    before: bool = False,
    times: int = 1,
) -> None:
    """Let `act` happen just after (or before) the method, the first `times` times."""
    whole, left = getattr(cls, name), [times]

    async def between(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before and left[0] > 0:
            left[0] -= 1
            await act(self)
        found = await whole(self, *args, **kwargs)
        if not before and left[0] > 0:
            left[0] -= 1
            await act(self)
        return found

    monkeypatch.setattr(cls, name, between)


def execute(rig: Rig, statement: str) -> Callable[[Any], Awaitable[None]]:
    """To be done by `when`."""

    async def act(_: Any) -> None:
        await rig.db.execute(statement)

    return act


async def require_done(rig: Rig, *kept: int, young: int = EACH, gone: int = 3 * EACH) -> None:
    """None is left detached, those are left, and the ledger tells of the others."""
    assert await attached(rig) == await tables(rig), "none is left detached"
    assert await noted(rig) == []
    assert [number for number in await rig.ids() if number < 9000] == sorted(kept)
    assert len([number for number in await rig.ids() if number > 9000]) == young
    await rig.require_told(logs=gone)
    await rig.require_settled()


STEPS = {
    "after the note": (PostgresPartitions, "detach", True),
    "after the first detach": (PostgresPartitions, "detach", False),
    "before the proof": (PartBatch, "erase", True),
    "after the proof": (PartBatch, "erase", False),
    "before the drop": (PartBatch, "commit", True),
    "after the commit": (PartBatch, "commit", False),
}


async def died(rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A sweep that ends at the step, as if its process had: nothing is brought back."""
    cls, name, before = STEPS[step]

    async def die(_: Any) -> None:
        monkeypatch.setattr(WholeParts, "_bring_back", nothing)
        raise Died

    async def nothing(*_: Any) -> None:
        return None

    with monkeypatch.context() as patch:
        when(patch, cls, name, die, before=before)
        patch.setattr(WholeParts, "_bring_back", WholeParts._bring_back)
        with pytest.raises(Died):
            await rig.only()
    monkeypatch.undo()
    await rig.let_leases_run_out()


async def grow_old(rig: Rig) -> None:
    """What minutes do to the notes."""
    async with rig.control_connection() as control:
        await control.execute("UPDATE retentiond.detached SET noted_at = noted_at - interval '10 minutes'")
