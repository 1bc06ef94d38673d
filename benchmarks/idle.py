"""What a daemon costs that has nothing to do: its share of a core, its server's, its memory, its transactions.

A real process on a Postgres of its own with some swept targets; measured by /proc once the first sweeps are over.
`python -m benchmarks.idle [--seconds 60] [--targets 12]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.__main__ import RESULTS, environment, execute
from retentiond.control.database import Database
from retentiond.control.embedded import EmbeddedPostgres

_SETTLE_SECONDS = 20
_MAKE = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text NOT NULL, tier_changed_at timestamptz);
INSERT INTO accounts SELECT i, 'free' FROM generate_series(1, 1000) i;
"""
_TABLE = """
CREATE TABLE records{n} (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);
CREATE INDEX ON records{n} (created_at);
CREATE INDEX ON records{n} (account_id);
INSERT INTO records{n} SELECT i, i, now() - interval '1 day' FROM generate_series(1, 1000) i;
"""


async def main(seconds: float, targets: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="retentiond-idle-"))
    folder.chmod(0o711)
    server = await EmbeddedPostgres.start(folder, create=True)
    database = await Database.connect(server.dsn)
    try:
        await execute(database, _MAKE + "".join(_TABLE.format(n=n) for n in range(targets)))
        found = await measured(database, variables(server.dsn, folder, targets), seconds)
    finally:
        await database.close()
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in found.items():
        print(f"{name:28} {value:.3f}")
    RESULTS.mkdir(exist_ok=True)
    document = {"at": datetime.now(UTC).isoformat(), "targets": targets, "seconds": seconds, "measured": found}
    (RESULTS / "idle.json").write_text(json.dumps(document, indent=2))


def variables(dsn: str, folder: Path, targets: int) -> dict[str, str]:
    """The environment of a daemon with that many targets."""
    one = environment(dsn, folder)
    found = {key: value for key, value in one.items() if "__RECORDS__" not in key}
    for n in range(targets):
        for key, value in one.items():
            if "__RECORDS__" in key:
                found[key.replace("RECORDS", f"RECORDS{n}")] = value.replace("public.records", f"public.records{n}")
    return {**found, "RETENTIOND_CONTROL__DSN": dsn, "RETENTIOND_HTTP__PORT": "0", "PATH": os.environ["PATH"]}


async def measured(database: Database, env: dict[str, str], seconds: float) -> dict[str, float]:
    command = (sys.executable, "-m", "retentiond", "run")
    daemon = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.DEVNULL)
    try:
        await asyncio.sleep(_SETTLE_SECONDS)
        process = psutil.Process(daemon.pid)
        async with database.transaction() as tx:
            backends = [row["pid"] for row in await tx.fetch("SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL")]
        before = cpu([daemon.pid]), cpu(backends), await transactions(database), time.monotonic()
        await asyncio.sleep(seconds)
        after = cpu([daemon.pid]), cpu(backends), await transactions(database), time.monotonic()
        took = after[3] - before[3]
        daemon_share, server_share, rate = ((after[n] - before[n]) / took for n in range(3))
        memory = process.memory_info().rss / 2**20
    finally:
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait()
    return {
        "daemon_percent_of_a_core": daemon_share * 100,
        "server_percent_of_a_core": server_share * 100,
        "memory_mib": memory,
        "transactions_per_second": rate,
    }


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time of these processes; one that has ended counts no more."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


async def transactions(database: Database) -> int:
    async with database.transaction() as tx:
        found: int = await tx.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--targets", type=int, default=12)
    given = parser.parse_args()
    asyncio.run(main(given.seconds, given.targets))
