"""How throughput grows with workers, how soon a killed one is replaced, and what a thousand targets cost one worker.

Real processes. A batch waits 20 ms on a database that is slow: a trigger that sleeps. Two units at a time in a process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psutil

from benchmarks.common import ACCOUNTS, Ground, ground, save

_RECORDS = 160_000
_BATCH = 200
_SHARDS = 8
_TARGETS = 1000
_SECONDS = 60
_MAKE = """
DROP TABLE IF EXISTS records;
CREATE TABLE records (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO records SELECT i, 1 + i % 20000, now() - interval '400 days' - ({rows} - i) * interval '1 second', 'x'
FROM generate_series(1, {rows}) i;
CREATE INDEX ON records (created_at);
CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER DELETE ON records FOR EACH STATEMENT EXECUTE FUNCTION slow();
"""


async def run() -> None:
    grown = {count: await throughput(count) for count in (1, 2, 4)}
    takeover = await replaced()
    share = await scheduling()
    ratios = {
        "throughput_1_to_2": grown[2] / grown[1],
        "throughput_1_to_4": grown[4] / grown[1],
        "takeover_seconds": takeover,
        "thousand_targets_core_share": share,
    }
    for count, rate in grown.items():
        print(f"{count} workers {rate:>10.0f} records/s")
    for name, ratio in ratios.items():
        print(f"{name:37} {ratio:.3f}")
    save("workers", {"records": _RECORDS, "per_second": grown, "ratios": ratios})


@asynccontextmanager
async def workers(environment: dict[str, str], count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """So many daemons."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "retentiond", "run",
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        yield started
    finally:
        for each in started:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def left(here: Ground) -> int:
    return await here.outside("SELECT count(*) FROM records")


def environment(here: Ground, **more: str) -> dict[str, str]:
    pace = "RETENTIOND_TARGETS__RECORDS__PACE__"
    return here.environment(
        RETENTIOND_GUARDS__MAX_FRACTION="1.0",
        RETENTIOND_HTTP__PORT="0",
        RETENTIOND_WORKERS__CONCURRENCY="2",
        **{f"{pace}SHARDS": str(_SHARDS), f"{pace}MAX_BATCH": str(_BATCH)},
        **more,
    )


async def throughput(count: int) -> float:
    """Records a second, from when all of them are at work to near the end."""
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=_RECORDS))
        await here.outside("VACUUM (ANALYZE) records")
        async with workers(environment(here), count):
            return await _measured(here)


async def _measured(here: Ground) -> float:
    high, low = _RECORDS * 0.8, _RECORDS * 0.3
    while (before := await left(here)) > high:
        await asyncio.sleep(0.05)
    began = time.monotonic()
    while (after := await left(here)) > low:
        await asyncio.sleep(0.05)
    return (before - after) / (time.monotonic() - began)


async def replaced() -> float:
    """How long a shard of a killed worker stands still."""
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE.format(rows=_RECORDS))
        await here.outside("VACUUM (ANALYZE) records")
        async with AsyncExitStack() as stack:
            first, second = [(await stack.enter_async_context(workers(environment(here), 1)))[0] for _ in range(2)]
            while await left(here) > _RECORDS * 0.8:
                await asyncio.sleep(0.05)
            first.send_signal(signal.SIGKILL)
            began = time.monotonic()
            await first.wait()
            name = f"%:{first.pid}:%"
            owned = f"SELECT count(*) FROM retentiond.units WHERE owner LIKE '{name}'"
            while await here.control(owned):
                if second.returncode is not None:
                    raise SystemExit("the other worker ended")
                await asyncio.sleep(0.1)
            return time.monotonic() - began


async def scheduling() -> float:
    """The share of a core that a worker takes with a thousand targets that have nothing due, over a minute."""
    async with ground() as here:
        names = [f"t{i}" for i in range(_TARGETS)]
        await here.execute(ACCOUNTS)
        for name in names:
            await here.execute(
                f"CREATE TABLE {name} (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);"
                f"CREATE INDEX ON {name} (created_at)"
            )
        base = here.environment()
        target = {key: value for key, value in base.items() if "__RECORDS__" in key}
        rest = {key: value for key, value in base.items() if key not in target}
        many = {
            key.replace("__RECORDS__", f"__{name.upper()}__"): value.replace("public.records", f"public.{name}")
            for name in names
            for key, value in target.items()
        }
        async with workers({**rest, **many, "RETENTIOND_HTTP__PORT": "0"}, 1) as (process,):
            while await here.control("SELECT count(*) FROM retentiond.units WHERE finished_at IS NOT NULL") < _TARGETS:
                await asyncio.sleep(1)
            before = _cpu_seconds(process.pid)
            await asyncio.sleep(_SECONDS)
            return (_cpu_seconds(process.pid) - before) / _SECONDS


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
