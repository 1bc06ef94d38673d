"""What the real daemon costs while nothing is due: its share of a core and its memory, the embedded Postgres apart."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from benchmarks.common import ACCOUNTS, Ground, ground, save

_LIMIT_SHARE = 0.01
_WARM_SECONDS = 20
_MAKE = """
CREATE TABLE records (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO records SELECT i, 1 + i % 20000, now() - interval '10 days' + i * interval '1 second', 'GET /'
    FROM generate_series(1, 100000) i;
CREATE INDEX ON records (created_at);
CREATE INDEX ON records (account_id);
ANALYZE records;
"""


async def run(seconds: int) -> None:
    async with ground() as here:
        await here.execute(ACCOUNTS + _MAKE)
        found = await asyncio.to_thread(watch, here, seconds)
    print(
        f"idle for {seconds} s: the daemon {found['daemon_share']:.2%} of a core and {found['daemon_mib']:.0f} MiB,"
        f" Postgres for it {found['postgres_share']:.2%}"
    )
    ratios = {"share_to_limit": found["daemon_share"] / _LIMIT_SHARE}
    print(f"{'share_to_limit':25} {ratios['share_to_limit']:.2f}")
    save("idle", {"seconds": seconds, "measured": found, "ratios": ratios})


def watch(here: Ground, seconds: int) -> dict[str, float]:
    """Start the daemon, let it settle, and compare the processor time before and after."""
    environment = {**os.environ, **here.environment(RETENTIOND_HTTP__PORT="0", RETENTIOND_CONTROL__DSN=here.dsn)}
    with (here.folder / "daemon.log").open("w") as log:
        daemon = psutil.Popen([sys.executable, "-m", "retentiond", "run"], env=environment, stderr=log)
    try:
        time.sleep(_WARM_SECONDS)
        before = (own(daemon), servers(here))
        time.sleep(seconds)
        after = (own(daemon), servers(here))
        memory = daemon.memory_info().rss / 2**20
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
    share = [(late - early) / seconds for early, late in zip(before, after, strict=True)]
    return {"daemon_share": share[0], "postgres_share": share[1], "daemon_mib": memory}


def own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def servers(here: Ground) -> float:
    """Processor seconds of this ground's Postgres, its backends included."""
    pid = int(next(Path(here.folder).rglob("postmaster.pid")).read_text().split()[0])
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(own(each) for each in family)
