"""A sweep over partitions of which most are wholly expired: dropped whole, against the same records erased by rows.

40 partitions of equal size, 30 of them past the term of every account, the rest within that of every account; control
state in another database than the records, no rest between batches. Each way has the same table made afresh.
"""

from __future__ import annotations

import time

from benchmarks.common import ACCOUNTS, Ground, ground, save
from retentiond.daemon import enter_mode, open_app
from retentiond.settings import load

_PARTS, _EXPIRED, _DAYS = 40, 30, 2
_LIMIT_SECONDS, _LIMIT_TIMES = 2.0, 50.0
_FIRST = 366 + _EXPIRED * _DAYS
_TABLE = """
DROP TABLE IF EXISTS records;
CREATE TABLE records (
    id bigint, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
"""
_PART = """
CREATE TABLE records_p{number} PARTITION OF records
    FOR VALUES FROM (current_date - {begin}) TO (current_date - {begin} + {days});
INSERT INTO records SELECT {number} * {rows}::bigint + i, 1 + (i * 7919) % 20000,
    current_date - {begin} + i * (interval '{days} days' / ({rows} + 1)), 'GET /jobs/' || i || ' 200'
    FROM generate_series(1::bigint, {rows}) i;
"""
_INDEXES = "CREATE INDEX ON records (created_at); CREATE INDEX ON records (account_id);"


async def run(rows: int) -> None:
    each = rows // _PARTS
    async with ground() as here:
        await here.execute(ACCOUNTS)
        found = {"whole": await sweep(here, each, whole=True), "by_rows": await sweep(here, each, whole=False)}
    report(each, found)


async def make(here: Ground, each: int) -> None:
    await here.execute(_TABLE)
    for number in range(_PARTS):
        # The expired ones end 366 days ago; the others begin 60 days ago, before any term is over.
        begin = _FIRST - number * _DAYS if number < _EXPIRED else 60 - (number - _EXPIRED) * _DAYS
        await here.execute(_PART.format(number=number, begin=begin, days=_DAYS, rows=each))
    await here.execute(_INDEXES)
    await here.outside("VACUUM (ANALYZE) records")
    await here.outside("CHECKPOINT")


async def sweep(here: Ground, each: int, *, whole: bool) -> dict[str, float]:
    await make(here, each)
    name = "whole" if whole else "rows"
    settings = load(
        here.environment(RETENTIOND_GUARDS__MAX_FRACTION="1.0", RETENTIOND_STATE_DIR=str(here.folder / name))
    )
    async with open_app(settings, create=True) as app:
        await enter_mode(app, "bench")
        if not whole:
            app.engine.stores["records"].partitions = None
        began = time.monotonic()
        outcome = await app.engine.sweep(app.spec.target("records"))
        seconds = time.monotonic() - began
    if (outcome.outcome, outcome.changed) != ("drained", each * _EXPIRED):
        raise SystemExit(f"the sweep was to erase {each * _EXPIRED} records: {outcome}")
    left = await here.outside("SELECT count(*) FROM pg_class WHERE relname ~ '^records_p[0-9]+$'")
    if left != (_PARTS - _EXPIRED if whole else _PARTS):
        raise SystemExit(f"{left} partitions are left")
    return {"records": outcome.changed, "seconds": seconds, "per_second": outcome.changed / seconds}


def report(each: int, found: dict[str, dict[str, float]]) -> None:
    times = found["whole"]["per_second"] / found["by_rows"]["per_second"]
    ratios = {
        "seconds_to_limit": found["whole"]["seconds"] / _LIMIT_SECONDS,
        "whole_to_by_rows": times,
        "whole_to_by_rows_to_limit": times / _LIMIT_TIMES,
    }
    for name, one in found.items():
        print(f"{name:20} {one['records']:>9.0f} records {one['seconds']:>8.2f} s {one['per_second']:>10.0f}/s")
    for name, ratio in ratios.items():
        print(f"{name:30} {ratio:.2f}")
    save("partitions", {"partitions": _PARTS, "records_of_each": each, "measured": found, "ratios": ratios})
