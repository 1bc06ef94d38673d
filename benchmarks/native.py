"""What native holds cost who writes: INSERT, UPDATE and DELETE of records that no hold covers, against none in force.

In bulk (one statement over many records) and one by one (a statement each, in a loop on the server, so that no network
is measured). The cases are what the trigger's own condition can tell: a hold on an account, ten of them within a range
of time; and what it can't: ten thousand single records, where the function is asked for each.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import asyncpg

from benchmarks.common import ACCOUNTS, Ground, ground, save
from retentiond.control import holds, natives
from retentiond.daemon import App, open_app
from retentiond.domain.holds import Scope
from retentiond.settings import load

_TIMES = 8
_SINGLE = 5_000
_MAKE = """
CREATE TABLE records (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO records SELECT i, 101 + i % 10000, now() - i * interval '1 second', 'GET /jobs/' || i || ' 200'
    FROM generate_series(1, {rows}) i;
CREATE INDEX ON records (created_at);
"""
_SCOPES: Mapping[str, Scope | None] = {
    "none": None,
    "account": Scope(accounts=("1",)),
    "accounts_and_range": Scope(accounts=tuple(map(str, range(1, 11))), since=datetime(2020, 1, 1, tzinfo=UTC)),
    "ten_thousand_records": Scope(records={"records": tuple(str(-each) for each in range(1, 10_001))}),
}
_LOOP = "DO $$ BEGIN FOR i IN 1..{single} LOOP {statement}; END LOOP; END $$"
_STATEMENTS = {
    "insert": "INSERT INTO records SELECT id + 100000000, account_id, created_at, line FROM records",
    "update": "UPDATE records SET line = 'x'",
    "delete": "DELETE FROM records",
    "insert_single": "INSERT INTO records VALUES (200000000 + i, 200, now(), 'x')",
    "update_single": "UPDATE records SET line = 'x' WHERE id = i",
    "delete_single": "DELETE FROM records WHERE id = i",
}


async def run(rows: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=rows))
        await here.outside("VACUUM ANALYZE records")
        environment = here.environment(RETENTIOND_TARGETS__RECORDS__NATIVE_HOLDS="true")
        async with open_app(load(environment), create=True) as app:
            seconds = await measured(here, app)
    report(rows, seconds)


async def measured(here: Ground, app: App) -> dict[str, dict[str, float]]:
    """The least seconds of each statement in each case; in another order each time."""
    found: dict[str, dict[str, float]] = {case: {} for case in _SCOPES}
    cases = list(_SCOPES.items())
    for turn in range(_TIMES):
        for case, scope in random.Random(turn).sample(cases, len(cases)):
            hold = await _placed(app, scope) if scope else None
            for name, statement in _STATEMENTS.items():
                taken = await _timed(here, name, statement)
                found[case][name] = min(taken, found[case].get(name, taken))
            if hold is not None:
                await _released(app, hold)
    return found


async def _placed(app: App, scope: Scope) -> str:
    placed = await holds.place(app.database, holds.HoldDraft(matter="m", reason="r", scope=scope), "bench")
    active = await holds.activate_pending(app.database, app.fences(), native=app.natives())
    if [hold.id for hold in active] != [placed.id]:
        raise SystemExit(f"hold {placed.id} did not become active")
    return placed.id


async def _released(app: App, hold_id: str) -> None:
    await holds.release(app.database, hold_id, "bench", "over", grace_seconds=0)
    await holds.finish_releases(app.database)
    if missing := await natives.settle(app.database, app.natives()):
        raise SystemExit(f"the hold stayed in force: {missing}")


async def _timed(here: Ground, name: str, statement: str) -> float:
    """The seconds of the statement, undone afterwards: each finds the table as it was made."""
    sql = _LOOP.format(single=_SINGLE, statement=statement) if name.endswith("_single") else statement
    connection = await asyncpg.connect(here.dsn)
    try:
        await connection.execute("CHECKPOINT")
        await connection.execute("BEGIN")
        await connection.fetchval("SELECT count(*) FROM records")
        began = time.monotonic()
        await connection.execute(sql)
        taken = time.monotonic() - began
        await connection.execute("ROLLBACK")
        await connection.execute("VACUUM records")
    finally:
        await connection.close()
    return taken


def report(rows: int, seconds: Mapping[str, Mapping[str, float]]) -> None:
    ratios = {
        f"{case}_{name}": taken / seconds["none"][name]
        for case, each in seconds.items()
        if case != "none"
        for name, taken in each.items()
    }
    added = {
        f"{case}_{name}": (taken - seconds["none"][name]) / (_SINGLE if name.endswith("_single") else rows) * 1e6
        for case, each in seconds.items()
        if case != "none"
        for name, taken in each.items()
    }
    print(f"writes of {rows} records in one statement, and of {_SINGLE} one by one: to none in force, and added")
    for name, ratio in ratios.items():
        print(f"{name:40} {ratio:.2f}   {added[name]:+.2f} µs a record")
    save("native", {"rows": rows, "single": _SINGLE, "seconds": seconds, "added_us": added, "ratios": ratios})
