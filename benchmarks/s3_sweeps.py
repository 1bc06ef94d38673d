"""What the benchmarks of whole sweeps of a bucket share: `retentiond sweep` as a process of its own, and s5cmd's `rm`.

Both are timed from start to exit. Ours has a Postgres of the benchmark's for its control state and for an account
directory, finds out what the endpoint can, judges each object by its account and the date in its key, and writes
permits, what it is about to do, and the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from benchmarks.common import Ground

BUCKET = "bench"
ACCOUNTS = """
CREATE TABLE accounts (id text PRIMARY KEY, tier text NOT NULL, tier_changed_at timestamptz);
INSERT INTO accounts SELECT 'app-' || lpad(i::text, 3, '0'), 'free' FROM generate_series(0, 999) i;
ANALYZE accounts;
"""
_CREDENTIALS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds by the wall and of CPU, megabytes at the peak; of ours what it printed."""

    seconds: float
    cpu: float
    peak: float
    printed: bytes = b""

    @property
    def outcome(self) -> Mapping[str, int | str | None]:
        """What our sweep says of the target."""
        found: Mapping[str, int | str | None] = json.loads(self.printed)["targets"]["records"]
        return found

    def rate(self, keys: int) -> dict[str, float]:
        """As it is written down."""
        each = {"cpu_ms_per_1000": self.cpu / keys * 1e6, "peak_mb": self.peak}
        return {"seconds": self.seconds, "per_second": keys / self.seconds, **each}


async def sweep(
    here: Ground,
    url: str,
    *,
    keys: int,
    bucket: str = BUCKET,
    credentials: tuple[str, str] = _CREDENTIALS,
    **more: str,
) -> Run:
    """`retentiond sweep`, its control state in the ground's database; ends the benchmark unless it erased `keys`."""
    target = "RETENTIOND_TARGETS__RECORDS__"
    key_id, secret = credentials
    environment = {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_STATE_DIR": str(here.folder / "state"),
        "RETENTIOND_CONTROL__DSN": here.dsn,
        "RETENTIOND_ACCOUNTS__DSN": here.dsn,
        "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
        "RETENTIOND_ACCOUNTS__TIER_CHANGED_AT": "tier_changed_at",
        "RETENTIOND_GUARDS__MAX_FRACTION": "1.0",
        target + "STORE": "s3",
        target + "CLASS": "operational_logs",
        target + "BUCKET": bucket,
        target + "PREFIX": "logs/",
        target + "KEY": "{date:%Y/%m/%d}/{account}/{file}",
        target + "ENDPOINT_URL": url,
        target + "REGION": "us-east-1",
        target + "ACCESS_KEY_ID": key_id,
        target + "SECRET_ACCESS_KEY": secret,
        target + "ADDRESSING": "path",
        target + "PACE__DUTY": "1.0",
        **more,
    }
    found = await _spent([sys.executable, "-m", "retentiond", "sweep", "--json"], environment)
    outcome = found.outcome
    if outcome["outcome"] != "drained" or outcome["erased"] != keys:
        raise SystemExit(f"the sweep was to erase {keys}: {outcome}")
    return found


async def s5cmd(url: str, *, bucket: str = BUCKET, credentials: tuple[str, str] = _CREDENTIALS) -> Run:
    """`s5cmd rm` of the same; ends the benchmark where it is not installed, for there is nothing to compare with."""
    program = Path(sys.executable).with_name("s5cmd")
    if not program.exists():
        raise SystemExit("this needs s5cmd, which is among the requirements for development")
    key_id, secret = credentials
    environment = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1"}
    command = [str(program), "--endpoint-url", url, "--log", "error", "rm", f"s3://{bucket}/logs/*"]
    return await _spent(command, environment)


def asked(url: str) -> dict[str, int]:
    """How many requests of each kind the canned endpoint has had so far."""
    with urlopen(f"{url}/_asked") as answer:
        found: dict[str, int] = json.loads(answer.read())
        return found


async def _spent(command: list[str], environment: Mapping[str, str]) -> Run:
    """Run it to its end; ends the benchmark where it fails."""
    return await asyncio.to_thread(_waited_for, command, environment)


def _waited_for(command: list[str], environment: Mapping[str, str]) -> Run:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, stdout=printed, stderr=said, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        said.seek(0)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with {process.returncode}: {said.read().decode()}")
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed.read())
