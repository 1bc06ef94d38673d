"""`/metrics` of a daemon with 100 targets under 100 requests a second, while two of the targets are being swept.

The daemon is a process of its own, and so is who asks it. In turns it is left alone and asked; the rates at which the
two sweeps erase are compared pair by pair, and the median told. The limits are those of the design: 50 ms at the 99th
percentile, and 5 % of the sweeps' rate.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from benchmarks.common import ACCOUNTS, Ground, ground, save

_LIMIT_SECONDS, _LIMIT_LOSS = 0.050, 0.05
_TARGETS, _RATE, _SWEPT = 100, 100, ("swept_0", "swept_1")
_WARM_SECONDS = 5.0
_EMPTY = """
CREATE TABLE {name} (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
CREATE INDEX ON {name} (created_at);
CREATE INDEX ON {name} (account_id);
"""
_FILLED = """
INSERT INTO {name} SELECT i, 1 + (i::bigint * 7919) % 20000, now() - interval '400 days' - i * interval '1 second',
    'GET /jobs/' || i || ' 200' FROM generate_series(1, {rows}) i;
ANALYZE {name};
"""
_GONE = "SELECT sum(n_tup_del) FROM pg_stat_user_tables WHERE relname LIKE 'swept%'"


@dataclass(slots=True)
class Asked:
    """The answers of one turn: how long each took from when it was due, however late it was sent."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98]


async def run(rows: int, seconds: int, rounds: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS)
        names = [*_SWEPT, *(f"quiet_{number}" for number in range(_TARGETS - len(_SWEPT)))]
        for name in names:
            await here.execute(_EMPTY.format(name=name))
        for name in _SWEPT:
            await here.execute(_FILLED.format(name=name, rows=rows))
        found = await measured(here, names, seconds, rounds)
    report(found, rows, seconds)


def environment(here: Ground, names: list[str]) -> dict[str, str]:
    given = {key: value for key, value in here.environment().items() if "__RECORDS__" not in key}
    for name in names:
        target = f"RETENTIOND_TARGETS__{name.upper()}__"
        given |= {
            target + "STORE": "postgres",
            target + "CLASS": "operational_logs",
            target + "DSN": here.dsn,
            target + "TABLE": f"public.{name}",
            target + "ANCHOR": "created_at",
            target + "ACCOUNT": "account_id",
            target + "PACE__SHARDS": "1",
        }
    return {
        **os.environ,
        **given,
        "RETENTIOND_GUARDS__MAX_FRACTION": "1.0",
        "RETENTIOND_HTTP__PORT": "0",
        "RETENTIOND_CONTROL__DSN": here.control_dsn,
    }


async def measured(here: Ground, names: list[str], seconds: int, rounds: int) -> dict[str, object]:
    log = here.folder / "daemon.log"
    with log.open("w") as out:
        daemon = psutil.Popen([sys.executable, "-m", "retentiond", "run"], env=environment(here, names), stderr=out)
    try:
        address = await until_served(daemon, log)
        async with aiohttp.ClientSession(address) as http:
            await until_erasing(here)
            await asyncio.sleep(_WARM_SECONDS)
            text = await (await http.get("/metrics")).text()
            turns = [await pair(here, http, seconds) for _ in range(rounds)]
            if min(alone for alone, _, _ in turns) <= 0:
                raise SystemExit(
                    "nothing was erased in a turn: give it more --http-seconds, or a machine with less to do"
                )
            left = [await here.outside(f"SELECT count(*) FROM {name}") for name in _SWEPT]
            if min(left) == 0:
                raise SystemExit("a sweep ended before the measurement did: give it more --http-rows")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    asked = [each for _, each, _ in turns]
    return {
        "series": series,
        "series_per_target": len(re.findall(r'target="quiet_0"', text)),
        "bytes": len(text),
        "requests": sum(len(each.seconds) for each in asked),
        "failed": sum(each.failed for each in asked),
        "p99_seconds": statistics.median(each.p99 for each in asked),
        "p50_seconds": statistics.median(statistics.median(each.seconds) for each in asked),
        "erased_per_second": [{"alone": alone, "asked": beside} for alone, _, beside in turns],
        "rate_kept": statistics.median(beside / alone for alone, _, beside in turns),
    }


async def until_served(daemon: psutil.Popen, log: Path) -> str:
    while daemon.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found.group()
        await asyncio.sleep(0.1)
    raise SystemExit(f"the daemon ended:\n{log.read_text()}")


async def until_erasing(here: Ground) -> None:
    while True:
        moved = [
            await here.outside(f"SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = '{name}'") for name in _SWEPT
        ]
        if min(moved) > 0:
            return
        await asyncio.sleep(0.2)


async def pair(here: Ground, http: aiohttp.ClientSession, seconds: int) -> tuple[float, Asked, float]:
    """The sweeps' rate while nobody asks, the answers, and the rate meanwhile."""
    alone = await rate(here, asyncio.sleep(seconds))
    asked = Asked()
    beside = await rate(here, load(http, seconds, asked))
    return alone, asked, beside


async def rate(here: Ground, work) -> float:  # type: ignore[no-untyped-def]  # any coroutine
    began, before = time.monotonic(), await here.outside(_GONE)
    await work
    return (await here.outside(_GONE) - before) / (time.monotonic() - began)


async def load(http: aiohttp.ClientSession, seconds: int, asked: Asked) -> None:
    """So many requests a second at fixed instants; one that is late counts from when it was due."""
    began = time.monotonic()
    sent = []
    for number in range(seconds * _RATE):
        due = began + number / _RATE
        await asyncio.sleep(max(due - time.monotonic(), 0))
        sent.append(asyncio.create_task(ask(http, due, asked)))
    await asyncio.gather(*sent)


async def ask(http: aiohttp.ClientSession, due: float, asked: Asked) -> None:
    try:
        async with http.get("/metrics") as answer:
            await answer.read()
            asked.failed += answer.status != 200
    except aiohttp.ClientError:
        asked.failed += 1
    asked.seconds.append(time.monotonic() - due)


def report(found: dict[str, object], rows: int, seconds: int) -> None:
    p99, kept = float(str(found["p99_seconds"])), float(str(found["rate_kept"]))
    ratios = {"p99_to_limit": p99 / _LIMIT_SECONDS, "loss_to_limit": (1 - kept) / _LIMIT_LOSS}
    print(
        f"/metrics with {_TARGETS} targets and {found['series']} series at {_RATE} requests/s: p50"
        f" {float(str(found['p50_seconds'])) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, {found['failed']} failed;"
        f" two sweeps keep {kept:.1%} of their rate"
    )
    for name, value in ratios.items():
        print(f"{name:25} {value:.2f}")
    save("http", {"rows": rows, "seconds": seconds, "measured": found, "ratios": ratios})
