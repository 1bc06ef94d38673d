"""All benchmarks, or those that are named: `python -m benchmarks [erase] [nothing] [idle] [partitions]`."""

from __future__ import annotations

import argparse
import asyncio

from benchmarks import erase, idle, nothing, partitions

_ALL = ("erase", "nothing", "idle", "partitions")


async def main(names: list[str], rows: int, quiet_rows: int, idle_seconds: int, parted_rows: int) -> None:
    if "erase" in names:
        await erase.run(rows)
    if "nothing" in names:
        await nothing.run(quiet_rows)
    if "idle" in names:
        await idle.run(idle_seconds)
    if "partitions" in names:
        await partitions.run(parted_rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(_ALL), metavar="NAME", help=f"some of {', '.join(_ALL)}")
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the table that is swept")
    parser.add_argument("--quiet-rows", type=int, default=10_000_000, help="of the table with nothing due")
    parser.add_argument("--idle-seconds", type=int, default=60)
    parser.add_argument("--parted-rows", type=int, default=10_000_000, help="of the table in 40 partitions")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(_ALL)):
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(_ALL)}")
    asyncio.run(main(given.names, given.rows, given.quiet_rows, given.idle_seconds, given.parted_rows))
