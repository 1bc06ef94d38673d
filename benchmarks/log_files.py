"""Rewriting log files: input a second of one core, for JSONL and its .gz and .zst; beside jq and gzip; peak memory.

60 % of the lines are due: of two tiers the one with the shorter term; 100 accounts are on hold. And one pass over many
files in which nothing is due, none of which may be opened again. Each run is a process of its own, whose CPU counts;
that alone is `python -m benchmarks.log_files --rewrite FOLDER`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from benchmarks.common import save
from retentiond.domain.accounts import AccountFacts
from retentiond.domain.holds import TargetHold
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.stores.base import Known, Window
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.folder import Folder
from retentiond.stores.files.store import FilesStore

_ACCOUNTS, _HELD = 20_000, 100
_LINES = 50_000
_SUFFIXES = ("", ".gz", ".zst")
_GOALS = {"": 300.0}
_MOST_MB = 100
_MANY = "many"
NOW = datetime.now(UTC)


class Directory:
    """Accounts in memory: six of ten are free."""

    async def known(self, class_name: str, ids: Collection[str]) -> Mapping[str, Known]:
        del class_name
        return {each: Known(each, AccountFacts(True, "free" if int(each) % 10 < 6 else "pro")) for each in ids}

    async def canonical(self, ids: Collection[str]) -> Mapping[str, str]:
        return {each: each for each in ids}

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        del class_name
        return (Group("free"), Group("pro"))


def plan() -> TargetPlan:
    terms = {"ttl": {"free": "P90D", "pro": "P365D"}}
    policy, faults = parse_policy(
        {"tiers": ["free", "pro"], "classes": {"logs": terms}}, used_classes=frozenset(["logs"])
    )
    assert policy is not None, faults
    hold = TargetHold("h", frozenset(map(str, range(_HELD))))
    groups = (Group("free"), Group("pro"))
    return TargetPlan("logs", policy.classes["logs"], policy, NOW, groups=groups, holds=(hold,))


def store(folder: Path) -> FilesStore:
    given = {"store": "files", "class": "logs", "path": f"{folder}/app*", "format": "jsonl", "anchor": "ts"}
    config = FilesTarget.model_validate({**given, "account": "account_id", "settle": 0})
    return FilesStore("logs", config, action="delete", secret=b"k" * 32)


def make(path: Path, size: int, *, days: float = 100.0) -> None:
    """A day's log that began so many days ago, of about that size."""
    chance, then, written = random.Random(7), NOW - timedelta(days=days), 0
    with path.open("wb") as file:
        while written < size:
            lines = []
            for _ in range(min(_LINES, size)):
                then += timedelta(milliseconds=20 + chance.randrange(10))
                account, status = chance.randrange(_ACCOUNTS), chance.choice((200, 200, 201, 404, 500))
                lines.append(
                    f'{{"ts":"{then.isoformat()[:-9]}Z","level":"info","service":"api","account_id":"{account}",'
                    f'"ip":"203.0.113.{account % 251}","method":"GET","path":"/v1/projects/{account * 7}/builds",'
                    f'"status":{status},"duration_ms":{chance.randrange(900)},"user_agent":"Mozilla/5.0 (X11; Linux '
                    f'x86_64; rv:140.0) Gecko/20100101 Firefox/140.0","request_id":"{chance.getrandbits(128):032x}"}}\n'
                )
                written += len(lines[-1])
                if written >= size:
                    break
            file.write("".join(lines).encode())
    os.utime(path, (1e9, 1e9))


def pack(source: Path, suffix: str) -> Path:
    target = source.with_name(source.name + suffix)
    with source.open("rb") as given, target.open("wb") as made:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=6, mtime=0) as packed:
                shutil.copyfileobj(given, packed, 1 << 20)
        else:
            zstandard.ZstdCompressor(level=3).copy_stream(given, made)
    return target


def peak_mb() -> float:
    """The most memory that this process has had; what rusage tells is its parent's as well."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def rewrite(folder: Path) -> None:
    """In a process of its own: sweep the folder's files, and tell what it took."""
    of, target = plan(), store(folder)
    await target.open(Directory())
    before, began = time.process_time(), time.perf_counter()
    window = Window("files", None, 1)
    async with target.batch(of) as batch:
        seen = await batch.looked(window)
        attended = await batch.attend()
        permit = Permit(1, Lease(Unit("logs"), "w", 1), of.epoch, "", "b", NOW, NOW + timedelta(seconds=30))
        await batch.intended(permit, window)
        found = await batch.erase(permit, window, salt="s")
    assert attended
    told = {
        "cpu": time.process_time() - before,
        "seconds": time.perf_counter() - began,
        "lines": seen.scanned,
        "share": found.changed / seen.scanned,
        "held": seen.held,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(told))


async def nothing(folder: Path) -> None:
    """In a process of its own: a first pass over many files, and a second that opens none."""
    of, target, opened = plan(), store(folder), 0
    await target.open(Directory())
    whole = Folder.opened

    def counting(self: Folder, entry):
        nonlocal opened
        opened += 1
        return whole(self, entry)

    Folder.opened = counting  # type: ignore[method-assign]
    times = []
    for _ in range(2):
        began, opened, after = time.perf_counter(), 0, None
        target._there.stale()  # noqa: SLF001 - as if the folder was looked at some seconds later
        while True:
            async with target.batch(of) as batch:
                seen = await batch.looked(Window("files", after, 50_000))
            assert not seen.selected
            after = seen.after
            if after is None:
                break
        times.append({"seconds": time.perf_counter() - began, "opened": opened})
    peak = peak_mb()
    print(json.dumps({"first": times[0], "second": times[1], "peak_mb": peak}))


def alone(what: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.log_files", f"--{what}", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def piped(command: str, path: Path) -> float:
    """Seconds that a pipeline of the shell takes, which has a core for each of its parts where there are so many."""
    began = time.perf_counter()
    subprocess.run(["sh", "-c", command, "sh", str(path)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def run(megabytes: int, rounds: int, files: int) -> None:
    """Measure, print and save."""
    folder = Path(tempfile.mkdtemp(prefix="retentiond-logs-"))
    try:
        _run(folder, megabytes, rounds, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, megabytes: int, rounds: int, files: int) -> None:
    plain = folder / "source"
    make(plain, megabytes * 1_000_000)
    size = plain.stat().st_size / 1e6
    document: dict[str, object] = {"megabytes": size, "accounts": _ACCOUNTS, "on_hold": _HELD}
    for suffix in _SUFFIXES:
        source = pack(plain, suffix) if suffix else plain
        runs = []
        for _ in range(rounds):
            work = folder / "work"
            work.mkdir()
            path = work / f"app.log{suffix}"
            shutil.copy2(source, path)
            os.utime(path, (1e9, 1e9))
            runs.append(alone("rewrite", work))
            shutil.rmtree(work)
        best = min(runs, key=lambda each: each["cpu"])
        told = {
            "mb_per_cpu_second": size / best["cpu"],
            "mb_per_second": max(size / each["seconds"] for each in runs),
            "share_due": best["share"],
            "held": best["held"],
            "peak_mb": max(each["peak_mb"] for each in runs),
        }
        document[suffix or "plain"] = told
        print(f"{suffix or 'plain'}: {told['mb_per_cpu_second']:.0f} MB/s of a core, peak {told['peak_mb']:.0f} MB")
    packed = folder / "source.gz"
    pipes = {
        "zcat_gzip": 'zcat "$1" | gzip',
        "zcat_jq_gzip": 'zcat "$1" | jq -c "select((.account_id|tonumber) % 10 >= 6)" | gzip',
    }
    for name, command in pipes.items():
        if name == "zcat_jq_gzip" and shutil.which("jq") is None:
            continue
        document[name] = {"mb_per_second": size / min(piped(command, packed) for _ in range(rounds))}
        print(f"{name}: {document[name]}")
    many = folder / _MANY
    many.mkdir()
    make(folder / "young", 3000, days=1.0)
    content = (folder / "young").read_bytes()
    for n in range(files):
        (many / f"app-{n:06}.log").write_bytes(content)
        os.utime(many / f"app-{n:06}.log", (1e9, 1e9))
    document["nothing_due"] = {"files": files, **alone("nothing", many)}
    print(f"nothing due: {document['nothing_due']}")
    save("log_files", document)


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    asyncio.run(rewrite(where) if what == "--rewrite" else nothing(where))
