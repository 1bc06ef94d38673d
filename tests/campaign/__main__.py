"""`python -m tests.campaign`: play a campaign and judge it. Exit code 1 where a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from tests.campaign import report
from tests.campaign.campaign import kept_if_broken, run
from tests.campaign.workers import PRODUCT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long things happen; draining comes on top")
    parser.add_argument("--seed", type=int, help="of the schedule; another one each time by default")
    parser.add_argument("--sabotage", metavar="NAME", help="try a product that is broken so (see sabotage.py)")
    args = parser.parse_args()
    seed = secrets.randbelow(10**9) if args.seed is None else args.seed
    program = ("-m", "tests.campaign.sabotage", args.sabotage) if args.sabotage else PRODUCT
    verdict = asyncio.run(run(seed, args.seconds, program=program))
    with kept_if_broken(verdict):
        print(report.summary(verdict.schedule, verdict.counts, verdict.history, verdict.violations), flush=True)
        if verdict.violations:
            print(f"logs: {verdict.folder}; again: make campaign N={args.seconds:.0f} SEED={seed}", flush=True)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
