"""What a sweep costs when nothing is due: milliseconds and buffers, against counting what is expired by a scan.

What the table and its indexes cost must not grow with them. The survey of the account directory grows with the accounts
and is shown apart.
"""

from __future__ import annotations

import time

from benchmarks.common import ACCOUNTS, Ground, ground, save
from retentiond.daemon import enter_mode, open_app
from retentiond.settings import load
from retentiond.sweep.survey import survey

_LIMIT_BUFFERS, _LIMIT_SECONDS = 1_000, 0.050
_TIMES = 5
_MAKE = """
CREATE TABLE records (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO records SELECT i, 1 + (i::bigint * 7919) % 20000, now() - i * interval '0.5 seconds',
    'GET /jobs/' || i || ' 200' FROM generate_series(1, {rows}) i;
CREATE INDEX ON records (created_at);
CREATE INDEX ON records (account_id);
"""
_BUFFERS = """
SELECT COALESCE(sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit), 0)::bigint
FROM pg_statio_user_tables WHERE relname = 'records'
"""
_COUNT = """
SELECT count(*) FROM records r JOIN accounts a ON a.id = r.account_id
WHERE r.line <> '' AND r.created_at < now() - CASE a.tier WHEN 'free' THEN interval '90 days' ELSE interval '1 year' END
"""


async def run(rows: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=rows))
        await here.outside("VACUUM ANALYZE records")
        await sweeps(here, 1)  # makes the state, and remembers the accounts
        before = await here.outside(_BUFFERS)
        seconds, surveyed = await sweeps(here, _TIMES)
        used = (await here.outside(_BUFFERS) - before) / _TIMES
        began = time.monotonic()
        await here.outside(_COUNT)
        counted = time.monotonic() - began
    report(rows, seconds, surveyed, used, counted)


async def sweeps(here: Ground, times: int) -> tuple[float, float]:
    """The least seconds of a sweep that shares the survey of the one before, and of a survey."""
    swept, surveyed = [], []
    async with open_app(load(here.environment()), create=True) as app:
        await enter_mode(app, "bench")
        engine = app.engine
        assert engine.directory is not None
        for _ in range(times):
            began = time.monotonic()
            now = (await app.database.clock()).now
            await survey(engine.tools, engine.directory, now, engine.account_key)
            between = time.monotonic()
            outcome = await engine.sweep(app.spec.target("records"))
            surveyed.append(between - began)
            swept.append(time.monotonic() - between)
            if (outcome.outcome, outcome.changed) != ("drained", 0):
                raise SystemExit(f"the sweep was to find nothing: {outcome}")
    return min(swept), min(surveyed)


def report(rows: int, seconds: float, surveyed: float, used: float, counted: float) -> None:
    ratios = {
        "buffers_to_limit": used / _LIMIT_BUFFERS,
        "seconds_to_limit": seconds / _LIMIT_SECONDS,
        "count_to_sweep": counted / max(seconds, 1e-6),
    }
    print(f"nothing due in {rows} rows: {seconds * 1000:.1f} ms and {used:.0f} buffers of the table and its indexes,")
    print(f"and {surveyed * 1000:.1f} ms for the survey of 20000 accounts; a count by scan: {counted * 1000:.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name:25} {ratio:.2f}")
    measured = {"sweep_seconds": seconds, "survey_seconds": surveyed, "buffers": used, "count_seconds": counted}
    save("nothing", {"rows": rows, "measured": measured, "ratios": ratios})
