"""What listing and deleting costs the client: CPU for 1000 keys, start included, beside s5cmd and rclone; peak memory.

The endpoint costs nothing (`canned_s3`) and is a process of its own, so a client's CPU is its own. Ours lists with
pages fetched ahead, makes of each row what is to be erased, and deletes with an expiry and ETags. That alone is
`python -m benchmarks.s3_client --erase URL`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvloop

from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import listing
from retentiond.stores.s3.ahead import Ahead
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Access, Endpoint
from retentiond.stores.s3.items import How
from retentiond.stores.s3.signing import Fence

_BUCKET = "bench"
_PORT = 21_799
_GOALS = {"s5cmd": 5.0, "rclone": 12.0}
_MOST_MB = 100
_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: seconds of CPU, megabytes at the peak."""

    cpu: float
    peak: float


async def erase(url: str) -> int:
    """List the bucket and delete all that is in it; how many keys went."""
    endpoint = await Endpoint.open(Access(url, "us-east-1", "a", "b", addressing="path"))
    try:
        bucket = await endpoint.locate(_BUCKET)
        pages = Ahead(lambda after: listing.objects(bucket, after=after))
        how = How(Fence.QUERY, conditional=True)
        erased, after = 0, None
        while True:
            page = await pages.page(after)
            now = endpoint.clock.earliest()
            done = await delete(bucket, page.items(), expiry=Expiry(now, now + timedelta(seconds=25)), how=how)
            erased += done.count("erased")
            after = page.after
            if after is None:
                return erased
    finally:
        await endpoint.close()


async def run(keys: int, rounds: int) -> None:
    """Measure, print, and save."""
    from benchmarks.common import save

    with endpoint(keys) as url:
        costs = {name: [spent(command) for _ in range(rounds)] for name, command in commands(url).items()}
    with endpoint(10 * keys) as url:
        large = spent(ours(url))
    per_1000 = {name: [cost.cpu / keys * 1e6 for cost in found] for name, found in costs.items()}
    print(f"{keys} keys, {rounds} rounds each: CPU in ms for 1000 keys listed and deleted, start included")
    for name, found in per_1000.items():
        told = ", ".join(f"{each:.1f}" for each in sorted(found))
        print(f"{name:10} median {statistics.median(found):7.1f}   of {told}")
    ratios = {
        name: statistics.median(found) / statistics.median(per_1000["retentiond"])
        for name, found in per_1000.items()
        if name != "retentiond"
    }
    for name, ratio in ratios.items():
        print(f"{name} to ours: {ratio:.1f}, the goal is {_GOALS[name]:.0f}")
    peaks = {keys: max(cost.peak for cost in costs["retentiond"]), 10 * keys: large.peak}
    told = ", ".join(f"{peak:.0f} MB at {count} keys" for count, peak in peaks.items())
    print(f"peak memory: {told}; the goal is {_MOST_MB} MB")
    save("s3_client", {"keys": keys, "cpu_ms_per_1000": per_1000, "ratios": ratios, "peak_mb": peaks})


def ours(url: str) -> list[str]:
    """The command that is ours."""
    return [sys.executable, "-m", "benchmarks.s3_client", "--erase", url]


def commands(url: str) -> dict[str, list[str]]:
    """What is measured; what is not installed is said and left out."""
    found = {"retentiond": ours(url)}
    s5cmd = Path(sys.executable).with_name("s5cmd")
    if s5cmd.exists():
        found["s5cmd"] = [str(s5cmd), "--endpoint-url", url, "--log", "error", "rm", f"s3://{_BUCKET}/*"]
    if rclone := shutil.which("rclone"):
        remote = f":s3,provider=Other,env_auth=true,force_path_style=true,endpoint='{url}':{_BUCKET}"
        found["rclone"] = [rclone, "--config", os.devnull, "--fast-list", "delete", remote]
    for name in _GOALS.keys() - found.keys():
        print(f"{name} is not installed, so nothing is compared with it")
    return found


def spent(command: list[str]) -> Cost:
    """Run it to its end."""
    process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@contextmanager
def endpoint(keys: int, *delays: float) -> Iterator[str]:
    """The endpoint's address; it has so many keys, and ends with the block."""
    command = [sys.executable, "-m", "benchmarks.canned_s3", str(_PORT), str(keys), *(str(each) for each in delays)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise SystemExit(f"the endpoint ended with {server.wait()}")
        yield f"http://127.0.0.1:{_PORT}"
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--erase"]:
        raise SystemExit("python -m benchmarks s3_client measures; this is one run of ours: --erase URL")
    print(uvloop.run(erase(sys.argv[2])))
