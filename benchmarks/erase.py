"""Rows a second of a whole sweep (permits, evidence, ledger) against one unbatched DELETE and a LIMIT loop.

A table of records of 20,000 accounts, three quarters expired by tier through a join, 0.5 % of the accounts on hold; the
same copy of it for each. The sweep is measured with the control state in another database than the records, which is
the default, and with both in one, where a batch and its outcome are one transaction.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.common import ACCOUNTS, Ground, ground, save
from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import enter_mode, open_app
from retentiond.domain.holds import Scope
from retentiond.settings import load
from retentiond.sweep.events import BatchDone, Event

_LOOP_SECONDS = 60  # the loop slows down as dead rows grow: a minute of it flatters it
_BUDGET_SECONDS = 0.25
_MAKE = """
CREATE TABLE made (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO made SELECT i, 1 + (i::bigint * 7919) % 20000,
    now() - CASE WHEN i % 4 = 0 THEN interval '1 day' ELSE interval '400 days' END - ({rows} - i) * interval '1 second',
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
# The sweep's own predicate as one would write it by hand: holds, downgrade grace, the term of the account's tier.
_DUE = f"""
a.id = r.account_id AND r.account_id <> ALL ('{{{",".join(map(str, range(1, _HELD + 1)))}}}')
AND r.created_at < now() - CASE
    WHEN a.tier_changed_at > now() - interval '30 days' THEN interval '7 years'
    WHEN a.tier = 'free' THEN interval '90 days' ELSE interval '365 days' END
"""


class Batches:
    """The observer that notes how long batches take, and of how many records."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.records: list[int] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchDone) and event.changed:
            self.seconds.append(event.seconds)
            self.records.append(event.changed)


async def run(rows: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=rows))
        found = {
            "single_delete": await single(here),
            "limit_loop": await loop(here),
            "sweep": await sweep(here),
            "sweep_one_database": await sweep(
                here, RETENTIOND_CONTROL__DSN=here.dsn, RETENTIOND_STATE_DIR=str(here.folder / "one")
            ),
        }
    report(rows, found)


async def fresh(here: Ground) -> None:
    await here.execute(_COPY)
    # Records of 90 days and more have seen a VACUUM; and what making the copy left to be written is nobody's cost.
    await here.outside("VACUUM (ANALYZE) records")
    await here.outside("CHECKPOINT")


async def single(here: Ground) -> dict[str, float]:
    await fresh(here)
    began = time.monotonic()
    done = await here.execute(f"DELETE FROM records r USING accounts a WHERE {_DUE}")
    return rate(int(done.split()[-1]), time.monotonic() - began)


async def loop(here: Ground) -> dict[str, float]:
    await fresh(here)
    began, total = time.monotonic(), 0
    picked = f"SELECT r.id FROM records r, accounts a WHERE {_DUE} LIMIT 1000"
    while time.monotonic() - began < _LOOP_SECONDS:
        done = int((await here.execute(f"DELETE FROM records WHERE id IN ({picked})")).split()[-1])
        total += done
        if not done:
            break
    return rate(total, time.monotonic() - began)


async def sweep(here: Ground, batches: Batches | None = None, *, made: bool = False, **more: str) -> dict[str, float]:
    """One sweep of a fresh copy, or of the table as it was `made`."""
    if not made:
        await fresh(here)
    batches = batches or Batches()
    settings = load(here.environment(RETENTIOND_GUARDS__MAX_FRACTION="1.0", **more))
    at_once = settings.targets["records"].pace.shards or 1
    async with open_app(settings, create=True, observer=batches, shards_at_once=at_once) as app:
        await enter_mode(app, "bench")
        scope = Scope(accounts=tuple(str(n) for n in range(1, _HELD + 1)))
        draft = HoldDraft(matter="bench", reason="bench", scope=scope, review_by=None, notice=None)
        await holds.place(app.database, draft, "bench")
        await holds.activate_pending(app.database, app.fences())
        began = time.monotonic()
        outcome = await app.engine.sweep(app.spec.target("records"))
        seconds = time.monotonic() - began
    if outcome.outcome != "drained":
        raise SystemExit(f"the sweep was not drained: {outcome.error}")
    cuts = statistics.quantiles(batches.seconds, n=100)
    return {**rate(outcome.changed, seconds), "batch_p50": cuts[49], "batch_p99": cuts[98], "batches": outcome.batches}


def rate(records: int, seconds: float) -> dict[str, float]:
    return {"records": records, "seconds": seconds, "per_second": records / seconds}


def report(rows: int, found: dict[str, dict[str, float]]) -> None:
    mine = found["sweep"]["per_second"]
    ratios = {
        "sweep_to_single_delete": mine / found["single_delete"]["per_second"],
        "sweep_one_database_to_single_delete": found["sweep_one_database"]["per_second"]
        / found["single_delete"]["per_second"],
        "sweep_to_limit_loop": mine / found["limit_loop"]["per_second"],
        "batch_p99_to_budget": found["sweep"]["batch_p99"] / _BUDGET_SECONDS,
    }
    for name, each in found.items():
        print(f"{name:20} {each['records']:>9.0f} records {each['seconds']:>8.2f} s {each['per_second']:>10.0f}/s")
    for name, ratio in ratios.items():
        print(f"{name:37} {ratio:.2f}")
    save("erase", {"rows": rows, "measured": found, "ratios": ratios})
