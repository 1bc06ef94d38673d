"""Keys a second of a whole sweep of a slow bucket, on one shard and on eight, beside s5cmd in the same run.

The endpoint is `canned_s3`, where a deletion takes 400 ms and all else 100 ms: so what counts is how much a client does
at the same time. One listing gives at most 10,000 keys a second then; eight shards are eight listings, each of a part
of the keys.
"""

from __future__ import annotations

import statistics

from benchmarks.common import ground, save
from benchmarks.s3_client import endpoint
from benchmarks.s3_sweeps import ACCOUNTS, Run, asked, s5cmd, sweep

_DELAYS = (0.1, 0.4)
_SHARDS = 8
_GOALS = {"one_shard_to_s5cmd": 1.0, "eight_shards_to_s5cmd": 4.0}


async def run(keys: int, rounds: int) -> None:
    """Measure in turns, print, and save."""
    found: dict[str, list[Run]] = {"s5cmd": [], "one_shard": [], "eight_shards": []}
    requests: dict[str, dict[str, int]] = {}
    with endpoint(keys, *_DELAYS) as url:
        for _ in range(rounds):
            for name, runs in found.items():
                before = asked(url)
                runs.append(await _one(name, url, keys))
                requests[name] = {kind: count - before.get(kind, 0) for kind, count in asked(url).items()}
    rates = {name: statistics.median(keys / each.seconds for each in runs) for name, runs in found.items()}
    ratios = {f"{name}_to_s5cmd": rate / rates["s5cmd"] for name, rate in rates.items() if name != "s5cmd"}
    for name, runs in found.items():
        cpu = statistics.median(each.cpu for each in runs) / keys * 1e6
        peak = max(each.peak for each in runs)
        print(f"{name:13} {rates[name]:>8.0f} keys/s {cpu:>6.1f} ms CPU for 1000 {peak:>6.0f} MB  {requests[name]}")
    for name, ratio in ratios.items():
        print(f"{name:25} {ratio:.2f}, the goal is {_GOALS[name]:.0f}")
    measured = {name: [each.rate(keys) for each in runs] for name, runs in found.items()}
    save("s3_slow", {"keys": keys, "measured": measured, "requests": requests, "ratios": ratios})


async def _one(name: str, url: str, keys: int) -> Run:
    if name == "s5cmd":
        return await s5cmd(url)
    shards = _SHARDS if name == "eight_shards" else 1
    async with ground() as here:
        await here.execute(ACCOUNTS)
        return await sweep(here, url, keys=keys, RETENTIOND_TARGETS__RECORDS__PACE__SHARDS=str(shards))
