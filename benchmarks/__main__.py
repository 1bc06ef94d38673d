"""All benchmarks, or those that are named: `python -m benchmarks [erase] [nothing] [idle] …`."""

from __future__ import annotations

import argparse
import asyncio

from benchmarks import (
    beside,
    erase,
    http,
    idle,
    log_files,
    native,
    nothing,
    partitions,
    s3_ceph,
    s3_client,
    s3_inventory,
    s3_rest,
    s3_slow,
    shards,
    workers,
)

_ALL = (
    "erase",
    "nothing",
    "idle",
    "shards",
    "workers",
    "beside",
    "native",
    "partitions",
    "http",
    "s3_client",
    "s3_slow",
    "s3_rest",
    "s3_inventory",
    "s3_ceph",
    "log_files",
)


async def main(names: list[str], given: argparse.Namespace) -> None:
    if "erase" in names:
        await erase.run(given.rows)
    if "nothing" in names:
        await nothing.run(given.quiet_rows)
    if "idle" in names:
        await idle.run(given.idle_seconds)
    if "shards" in names:
        await shards.run(given.rows)
    if "workers" in names:
        await workers.run()
    if "beside" in names:
        await beside.run(given.rows, given.beside_seconds, given.beside_rounds, given.beside_rate)
    if "native" in names:
        await native.run(given.native_rows)
    if "partitions" in names:
        await partitions.run(given.parted_rows)
    if "http" in names:
        await http.run(given.http_rows, given.http_seconds, given.http_rounds)
    if "s3_client" in names:
        await s3_client.run(given.s3_keys, given.s3_rounds)
    if "s3_slow" in names:
        await s3_slow.run(given.slow_keys, given.sweep_rounds)
    if "s3_rest" in names:
        await s3_rest.run(given.rest_keys)
    if "s3_inventory" in names:
        await s3_inventory.run(given.inventory_rows)
    if "s3_ceph" in names:
        await s3_ceph.run(given.ceph_keys, given.sweep_rounds)
    if "log_files" in names:
        log_files.run(given.log_megabytes, given.log_rounds, given.log_files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(_ALL), metavar="NAME", help=f"some of {', '.join(_ALL)}")
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the table that is swept")
    parser.add_argument("--quiet-rows", type=int, default=10_000_000, help="of the table with nothing due")
    parser.add_argument("--idle-seconds", type=int, default=60)
    parser.add_argument("--beside-seconds", type=int, default=20, help="of each run of pgbench")
    parser.add_argument("--beside-rounds", type=int, default=5, help="pairs of runs, alone and beside a sweep")
    parser.add_argument("--beside-rate", type=int, default=100, help="transactions a second")
    parser.add_argument("--native-rows", type=int, default=200_000, help="of the table that is written to under holds")
    parser.add_argument("--parted-rows", type=int, default=10_000_000, help="of the table in 40 partitions")
    parser.add_argument("--http-rows", type=int, default=3_000_000, help="of each of two tables swept under requests")
    parser.add_argument("--http-seconds", type=int, default=10, help="of each turn, alone and asked")
    parser.add_argument("--http-rounds", type=int, default=5, help="pairs of turns")
    parser.add_argument("--s3-keys", type=int, default=200_000, help="listed and deleted; ten times as many for memory")
    parser.add_argument("--s3-rounds", type=int, default=3, help="runs of each client")
    parser.add_argument("--slow-keys", type=int, default=1_000_000, help="swept on an endpoint that is slow")
    parser.add_argument("--sweep-rounds", type=int, default=1, help="of s3_slow and s3_ceph: runs of each program")
    parser.add_argument("--rest-keys", type=int, default=100_000, help="of the bucket with nothing due")
    parser.add_argument("--inventory-rows", type=int, default=1_000_000, help="of the report; a tenth for memory")
    parser.add_argument("--ceph-keys", type=int, default=100_000, help="written, and swept on Ceph; for each run anew")
    parser.add_argument("--log-megabytes", type=int, default=1000, help="of the log that is rewritten")
    parser.add_argument("--log-rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--log-files", type=int, default=10_000, help="with nothing due")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(_ALL)):
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(_ALL)}")
    asyncio.run(main(given.names, given))
