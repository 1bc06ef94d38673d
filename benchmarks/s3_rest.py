"""How many LISTs a bucket costs in which nothing is due: those of the first sweep, and none until something can be.

Each sweep is a process of its own: what the first has seen is remembered in the control state.
"""

from __future__ import annotations

from benchmarks.common import ground, save
from benchmarks.s3_client import endpoint
from benchmarks.s3_sweeps import ACCOUNTS, asked, sweep

_KINDS = ("v1", "v2", "versions", "folders", "uploads")
_SWEEPS = 4
_YOUNG = {"RETENTIOND_POLICY__CLASSES__OPERATIONAL_LOGS__TTL__FREE": "P30Y"}


async def run(keys: int) -> None:
    """Count, print, and save; the ratio is of the LISTs of all later sweeps to those of the first."""
    lists, requests = [], []
    with endpoint(keys) as url:
        async with ground() as here:
            await here.execute(ACCOUNTS)
            for _ in range(_SWEEPS):
                before = asked(url)
                await sweep(here, url, keys=0, **_YOUNG)
                new = {kind: count - before.get(kind, 0) for kind, count in asked(url).items()}
                lists.append(sum(new.get(kind, 0) for kind in _KINDS))
                requests.append(sum(new.values()))
    print(f"{keys} objects of which none is due; LISTs of each of {_SWEEPS} sweeps: {lists}, all requests: {requests}")
    ratios = {"later_lists_to_first": sum(lists[1:]) / lists[0]}
    print(f"later_lists_to_first      {ratios['later_lists_to_first']:.2f}, the goal is 0")
    save("s3_rest", {"keys": keys, "lists": lists, "requests": requests, "ratios": ratios})
