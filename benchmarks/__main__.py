"""Rows a second of a whole sweep (permits, evidence, ledger) against one unbatched DELETE and a LIMIT loop.

A table of records of 20,000 accounts, three quarters expired by tier through a join, 0.5 % of the accounts on hold; the
same copy of it for each of the three. A Postgres of its own, fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from retentiond.control import holds
from retentiond.control.database import Database
from retentiond.control.embedded import EmbeddedPostgres
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import enter_mode, open_app
from retentiond.domain.holds import Scope
from retentiond.settings import load
from retentiond.sweep.events import BatchDone, Event

RESULTS = Path(__file__).parent / "results"
_LONG_MS = 900_000
LOOP_SECONDS = 60
_MAKE = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text NOT NULL, tier_changed_at timestamptz);
INSERT INTO accounts SELECT i, CASE WHEN i % 10 < 7 THEN 'free' ELSE 'pro' END FROM generate_series(1, 20000) i;
CREATE TABLE made (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO made SELECT i, 1 + (i::bigint * 7919) % 20000,
    now() - CASE WHEN i % 4 = 0 THEN interval '1 day' ELSE interval '400 days' END - i * interval '1 second',
    'GET /jobs/' || i || ' 200' FROM generate_series(1, {rows}) i;
"""
_COPY = """
DROP TABLE IF EXISTS records;
CREATE TABLE records (LIKE made INCLUDING ALL);
INSERT INTO records SELECT * FROM made ORDER BY id;
CREATE INDEX ON records (created_at);
CREATE INDEX ON records (account_id);
ANALYZE records;
"""
_HELD = 100
_DUE = f"""
r.account_id > {_HELD} AND a.id = r.account_id
AND r.created_at < now() - CASE a.tier WHEN 'free' THEN interval '90 days' ELSE interval '365 days' END
"""


class Batches:
    """The observer that notes how long batches take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchDone) and event.changed:
            self.seconds.append(event.seconds)


async def main(rows: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="retentiond-bench-"))
    folder.chmod(0o711)
    server = await EmbeddedPostgres.start(folder, create=True)
    database = await Database.connect(server.dsn)
    try:
        await execute(database, _MAKE.format(rows=rows))
        found = {
            "single_delete": await single(database),
            "limit_loop": await loop(database),
            "sweep": await sweep(database, server.dsn, folder),
        }
        report(rows, found)
    finally:
        await database.close()
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def execute(database: Database, sql: str) -> str:
    async with database.transaction(timeout_ms=_LONG_MS) as tx:
        return str(await tx.execute(sql))


async def single(database: Database) -> dict[str, float]:
    await execute(database, _COPY)
    began = time.monotonic()
    done = await execute(database, f"DELETE FROM records r USING accounts a WHERE {_DUE}")
    return rate(int(done.split()[-1]), time.monotonic() - began)


async def loop(database: Database) -> dict[str, float]:
    await execute(database, _COPY)
    began, total = time.monotonic(), 0
    picked = f"SELECT r.id FROM records r, accounts a WHERE {_DUE} LIMIT 1000"
    while time.monotonic() - began < LOOP_SECONDS:  # it slows down as dead rows grow: a minute of it flatters it
        done = int((await execute(database, f"DELETE FROM records WHERE id IN ({picked})")).split()[-1])
        total += done
        if not done:
            break
    return rate(total, time.monotonic() - began)


async def sweep(database: Database, dsn: str, folder: Path) -> dict[str, float]:
    await execute(database, _COPY)
    batches = Batches()
    async with open_app(load(environment(dsn, folder)), create=True, observer=batches) as app:
        await enter_mode(app, "bench")
        scope = Scope(accounts=tuple(str(n) for n in range(1, _HELD + 1)))
        draft = HoldDraft(matter="bench", reason="bench", scope=scope, review_by=None, notice=None)
        await holds.place(database, draft, "bench")
        await holds.activate_pending(database, app.fences())
        began = time.monotonic()
        outcome = await app.engine.sweep(app.spec.target("records"))
        seconds = time.monotonic() - began
    if outcome.outcome != "drained":
        raise SystemExit(f"the sweep was not drained: {outcome.error}")
    cuts = statistics.quantiles(batches.seconds, n=100)
    return {**rate(outcome.changed, seconds), "batch_p50": cuts[49], "batch_p99": cuts[98], "batches": outcome.batches}


def environment(dsn: str, folder: Path) -> dict[str, str]:
    target = "RETENTIOND_TARGETS__RECORDS__"
    return {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_STATE_DIR": str(folder),
        "RETENTIOND_ACCOUNTS__DSN": dsn,
        "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
        "RETENTIOND_ACCOUNTS__TIER_CHANGED_AT": "tier_changed_at",
        "RETENTIOND_GUARDS__MAX_FRACTION": "1.0",
        target + "STORE": "postgres",
        target + "CLASS": "operational_logs",
        target + "DSN": dsn,
        target + "TABLE": "public.records",
        target + "ANCHOR": "created_at",
        target + "ACCOUNT": "account_id",
        target + "PACE__DUTY": "1.0",
    }


def rate(records: int, seconds: float) -> dict[str, float]:
    return {"records": records, "seconds": seconds, "per_second": records / seconds}


def report(rows: int, found: dict[str, dict[str, float]]) -> None:
    mine = found["sweep"]["per_second"]
    ratios = {
        "sweep_to_single_delete": mine / found["single_delete"]["per_second"],
        "sweep_to_limit_loop": mine / found["limit_loop"]["per_second"],
        "batch_p99_to_budget": found["sweep"]["batch_p99"] / 0.25,
    }
    for name, each in found.items():
        print(f"{name:15} {each['records']:>9.0f} records {each['seconds']:>8.2f} s {each['per_second']:>10.0f}/s")
    for name, ratio in ratios.items():
        print(f"{name:25} {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    document = {"at": datetime.now(UTC).isoformat(), "rows": rows, "measured": found, "ratios": ratios}
    (RESULTS / "erase.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    asyncio.run(main(parser.parse_args().rows))
