"""Time and peak memory of a walk over a bucket by its inventory, CSV and Parquet, beside one by lists in the same run.

Each walk is a process of its own that counts the target's records (`--walk URL HOW`). By an inventory it fetches the
report, verifies and sorts it first. The endpoint is `canned_s3`, once where a request costs nothing, and once where
each takes 30 ms: a list needs the end of the last.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.canned_s3 import keys
from benchmarks.common import save
from benchmarks.s3_client import endpoint
from retentiond.settings import load
from retentiond.stores.s3 import objects
from retentiond.stores.s3.endpoint import Access, Endpoint
from retentiond.stores.s3.store import S3Store

_BUCKET = "bench"
_HOWS = ("lists", "csv", "parquet")
_EACH = 100_000
_ALL = 1 << 62
_DELAY = 0.03
_MORE_MB = 100
_SCHEMA = "Bucket, Key, Size, LastModifiedDate, ETag, StorageClass"
_PARQUET = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); optional int64 size; "
    "optional int64 last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8); "
    "optional binary storage_class (UTF8);}"
)


async def run(rows: int) -> None:
    """Measure, print, and save; the ratios are of an inventory's seconds to those of lists."""
    found: dict[str, dict[str, Any]] = {}
    for name, count, delays in (("small", rows // 10, ()), ("free", rows, ()), ("30 ms", rows, (_DELAY, _DELAY))):
        with endpoint(count, *delays) as url:
            for how in _HOWS[1:]:
                await _write(url, how, count)
            found[name] = {how: _walk(url, how, count) for how in _HOWS}
    for name, costs in found.items():
        for how, cost in costs.items():
            each = {key: cost[key] / cost["rows"] * 1e6 for key in ("seconds", "cpu", "cpu_again")}
            print(
                f"{name:6} {how:8} {cost['rows']:>9} rows; for a million {each['seconds']:6.1f} s, "
                f"CPU {each['cpu']:6.1f} s, walked again {each['cpu_again']:6.1f} s; peak {cost['peak_mb']:4.0f} MB"
            )
    ratios = {
        f"{how}_to_lists_{of}_{name.replace(' ', '_')}": costs[how][of] / costs["lists"][of]
        for name, costs in found.items()
        if name != "small"
        for of in ("seconds", "cpu", "cpu_again")
        for how in _HOWS[1:]
    }
    for ratio, value in ratios.items():
        print(f"{ratio:34} {value:.2f}")
    more = {how: found["free"][how]["peak_mb"] - found["free"]["lists"]["peak_mb"] for how in _HOWS[1:]}
    grown = {how: found["free"][how]["peak_mb"] - found["small"][how]["peak_mb"] for how in _HOWS}
    told = ", ".join(f"{how} {value:+.0f} MB" for how, value in more.items())
    print(f"peak memory beyond that of lists: {told}; the goal is {_MORE_MB} MB at most")
    print(f"peak memory with ten times the rows: {', '.join(f'{how} {value:+.0f} MB' for how, value in grown.items())}")
    save("s3_inventory", {"rows": rows, "measured": found, "ratios": ratios, "more_mb": more, "grown_mb": grown})


async def walk(url: str, how: str) -> dict[str, float]:
    """Count the records twice: how many, and what the first time took, with the report's fetching, and the second."""
    store = _store(url, how)
    try:
        await store.open(None)
        began, spent = time.monotonic(), time.process_time()
        count = await store.counted(_ALL)
        seconds, cpu = time.monotonic() - began, time.process_time() - spent
        spent = time.process_time()
        await store.counted(_ALL)
        again = time.process_time() - spent
        return {"rows": count, "seconds": seconds, "cpu": cpu, "cpu_again": again, "peak_mb": _peak_mb()}
    finally:
        await store.close()


def _store(url: str, how: str) -> S3Store:
    target = {
        "store": "s3", "class": "operational_logs", "bucket": _BUCKET, "prefix": "logs/", "key": "{object:path}",
        "account": "1", "endpoint_url": url, "region": "us-east-1", "access_key_id": "a", "secret_access_key": "b",
        "addressing": "path", "uploads": False,
    }  # fmt: skip
    if how != "lists":
        target["inventory"] = {"id": how, "prefix": "reports"}
    settings = load({"RETENTIOND_CONFIG": json.dumps({"targets": {"records": target}})})
    config: Any = settings.targets["records"]
    return S3Store("records", config, action="delete", data_class=settings.policy.classes["operational_logs"])


def _walk(url: str, how: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.s3_inventory", "--walk", url, how]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    process = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        raise SystemExit(f"the walk by {how} ended with {process.returncode}")
    found: dict[str, float] = json.loads(process.stdout)
    if found["rows"] != rows:
        raise SystemExit(f"the walk by {how} met {found['rows']} of {rows} records")
    return found


def _peak_mb() -> float:
    """Of this process alone: what the system tells of an ended one begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def _write(url: str, how: str, rows: int) -> None:
    """Put a report on all keys into the endpoint, its rows in no order."""
    names = keys(rows)
    random.Random(rows).shuffle(names)
    at = datetime.now(UTC) - timedelta(hours=6)
    make = _csv if how == "csv" else _parquet
    client = await Endpoint.open(Access(url, "us-east-1", "a", "b", addressing="path"))
    try:
        bucket, files = await client.locate(_BUCKET), []
        for i in range(0, rows, _EACH):
            data = make(names[i : i + _EACH])
            key = f"reports/{_BUCKET}/{how}/data/{i}"
            await objects.put(bucket, key, data)
            files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
        manifest = json.dumps(
            {
                "sourceBucket": _BUCKET,
                "creationTimestamp": str(int(at.timestamp() * 1000)),
                "fileFormat": "CSV" if how == "csv" else "Parquet",
                "fileSchema": _SCHEMA if how == "csv" else _PARQUET,
                "files": files,
            }
        ).encode()
        folder = f"reports/{_BUCKET}/{how}/{at:%Y-%m-%dT%H-%MZ}"
        await objects.put(bucket, f"{folder}/manifest.json", manifest)
        await objects.put(bucket, f"{folder}/manifest.checksum", hashlib.md5(manifest).hexdigest().encode())
    finally:
        await client.close()


def _csv(names: Sequence[str]) -> bytes:
    etag = "9dd4e461268c8034f5c8564e155c67a6"
    rows = (f'"{_BUCKET}","{name}","1","2024-05-06T07:08:09.000Z","{etag}","STANDARD"\n' for name in names)
    return gzip.compress("".join(rows).encode(), compresslevel=6)


def _parquet(names: Sequence[str]) -> bytes:
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    count, text, number = len(names), DataType.utf8(), DataType.int64()
    millis = int(datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()) * 1000
    table = Table.from_pydict(
        {
            "bucket": Array([_BUCKET] * count, text),
            "key": Array(list(names), text),
            "size": Array([1] * count, number),
            "last_modified_date": Array([millis] * count, number).cast(DataType.timestamp("ms")),
            "e_tag": Array(["9dd4e461268c8034f5c8564e155c67a6"] * count, text),
            "storage_class": Array(["STANDARD"] * count, text),
        }
    )
    into = io.BytesIO()
    write_parquet(table, into)
    return into.getvalue()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--walk"]:
        raise SystemExit("python -m benchmarks s3_inventory measures; this is one walk of it: --walk URL HOW")
    print(json.dumps(uvloop.run(walk(*sys.argv[2:]))))
