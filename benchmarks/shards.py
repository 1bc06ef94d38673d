"""Two shards at once against one unbatched DELETE; and how the cost of a batch changes from the first to the last.

The flatness is measured on one connection, also with 100,000 held records in front of the walk, and while another
session holds an old snapshot open, so that nothing that was deleted can be cleaned away.
"""

from __future__ import annotations

import statistics
import time

import asyncpg

from benchmarks.common import ACCOUNTS, Ground, ground, save
from benchmarks.erase import _DUE, _MAKE, Batches, fresh, rate, single, sweep

_HELD = 100_000
_SENTRY_SECONDS = 60
_FULL = 20_000
# Sentry's bulk delete: https://github.com/getsentry/sentry, src/sentry/db/deletion.py.
_SENTRY = f"""
DELETE FROM records WHERE id = ANY(ARRAY(SELECT r.id FROM records r, accounts a WHERE {_DUE} LIMIT 10000))
"""


async def run(rows: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=rows))
        one = await single(here)
        two = await sweep(here, **pace(2), RETENTIOND_STATE_DIR=folder(here, "two"))
        sentry = await sentrys(here)
        alone = await sweep(here, RETENTIOND_STATE_DIR=folder(here, "alone"))
        flat = {
            "plain": await flatness(here, "plain"),
            "held_in_front": await flatness(here, "held", held=_HELD),
            "old_snapshot": await flatness(here, "old", old_snapshot=True),
        }
    ratios = {
        "two_shards_to_single_delete": two["per_second"] / one["per_second"],
        "one_connection_to_single_delete": alone["per_second"] / one["per_second"],
        "one_connection_to_sentrys_shape": alone["per_second"] / sentry["per_second"],
        **{f"last_batches_to_first_{name}": ratio for name, ratio in flat.items()},
    }
    found = {"single_delete": one, "two_shards": two, "one_connection": alone, "sentrys_shape": sentry}
    for name, each in found.items():
        print(f"{name:20} {each['records']:>9.0f} records {each['seconds']:>8.2f} s {each['per_second']:>10.0f}/s")
    for name, ratio in ratios.items():
        print(f"{name:37} {ratio:.2f}")
    save("shards", {"rows": rows, "measured": found, "ratios": ratios})


def pace(shards: int) -> dict[str, str]:
    return {"RETENTIOND_TARGETS__RECORDS__PACE__SHARDS": str(shards)}


def folder(here: Ground, name: str) -> str:
    return str(here.folder / name)


async def sentrys(here: Ground) -> dict[str, float]:
    """Its loop, for at most a minute."""
    await fresh(here)
    began, total = time.monotonic(), 0
    while time.monotonic() - began < _SENTRY_SECONDS:
        done = int((await here.execute(_SENTRY)).split()[-1])
        total += done
        if not done:
            break
    return rate(total, time.monotonic() - began)


async def flatness(here: Ground, name: str, *, held: int = 0, old_snapshot: bool = False) -> float:
    """What a record costs in the last fifth of the batches, as a ratio to the first fifth (ramp left out)."""
    seen = Batches()
    await fresh(here)
    if held:
        # The oldest records, and account 1 is on hold.
        await here.execute(f"UPDATE records SET account_id = 1 WHERE id <= {held}")
        await here.outside("VACUUM (ANALYZE) records")
    snapshot = await asyncpg.connect(here.dsn)
    try:
        if old_snapshot:
            await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        await sweep(here, seen, made=True, RETENTIOND_STATE_DIR=folder(here, name))
    finally:
        await snapshot.close()
    pairs = zip(seen.seconds, seen.records, strict=True)
    costs = [seconds / records for seconds, records in pairs if records >= _FULL]
    fifth = max(len(costs) // 5, 1)
    return statistics.median(costs[-fifth:]) / statistics.median(costs[:fifth])
