"""Wall time of a whole sweep of a bucket on a real server, beside `s5cmd rm` of the same objects in the same run.

Ceph's radosgw with its data in memory, as the tests have it (Debian's packages radosgw, ceph-mon, ceph-osd and
ceph-common). Each run has a bucket of its own, filled right before it; both are timed from start to exit.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path

from benchmarks.canned_s3 import keys as names
from benchmarks.common import ground, save
from benchmarks.s3_sweeps import ACCOUNTS, Run, s5cmd, sweep
from retentiond.stores.s3 import objects
from retentiond.stores.s3.endpoint import Access, Endpoint

_WRITERS = 32
_GOAL = 1.0
# Just written, so the term is a second; the dates in their keys are of 2025.
_SHORT = {
    "RETENTIOND_POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE": "PT1S",
    "RETENTIOND_GUARDS__ALLOW_SHORT_TTL": "true",
}


async def run(keys: int, rounds: int) -> None:
    """Measure in turns, print, and save."""
    # The fixture lies with the tests, whose modules name each other as they do.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from services.ceph import cluster

    found: dict[str, list[Run]] = {"s5cmd": [], "retentiond": []}
    with cluster() as server:
        access = server.access()
        for number in range(rounds):
            for name, runs in found.items():
                bucket = f"bench-{name}-{number}"
                await _fill(access, bucket, keys)
                runs.append(await _one(name, access, bucket, keys))
    seconds = {name: statistics.median(each.seconds for each in runs) for name, runs in found.items()}
    ratio = seconds["s5cmd"] / seconds["retentiond"]
    for name, runs in found.items():
        told = ", ".join(f"{each.seconds:.1f}" for each in runs)
        print(f"{name:11} median {seconds[name]:>7.1f} s of {told}; CPU {runs[-1].cpu:.1f} s")
    print(f"s5cmd_to_ours {ratio:.2f}, the goal is {_GOAL:.0f}")
    measured = {name: [each.rate(keys) for each in runs] for name, runs in found.items()}
    save("s3_ceph", {"keys": keys, "measured": measured, "ratios": {"s5cmd_to_ours": ratio}})


async def _one(name: str, access: Access, bucket: str, keys: int) -> Run:
    url, credentials = str(access.endpoint_url), (str(access.access_key_id), str(access.secret_access_key))
    if name == "s5cmd":
        found = await s5cmd(url, bucket=bucket, credentials=credentials)
    else:
        async with ground() as here:
            await here.execute(ACCOUNTS)
            found = await sweep(here, url, keys=keys, bucket=bucket, credentials=credentials, **_SHORT)
    if left := await _left(access, bucket):
        raise SystemExit(f"{name} was to erase all, and left {left}")
    return found


async def _fill(access: Access, bucket: str, keys: int) -> None:
    endpoint = await Endpoint.open(access)
    try:
        await endpoint.client.create_bucket(Bucket=bucket)
        place, rest = await endpoint.locate(bucket), iter(names(keys))

        async def write() -> None:
            for key in rest:
                await objects.put(place, key, b"x")

        await asyncio.gather(*(write() for _ in range(_WRITERS)))
    finally:
        await endpoint.close()


async def _left(access: Access, bucket: str) -> int:
    """How many objects there are still, by botocore's own listing."""
    endpoint = await Endpoint.open(access)
    try:
        found: int = (await endpoint.client.list_objects_v2(Bucket=bucket))["KeyCount"]
        return found
    finally:
        await endpoint.close()
