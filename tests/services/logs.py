"""A target `logs` over log files in a folder, as the contract's subject: a record is a line of a file that holds a few."""

from __future__ import annotations

import asyncio
import gzip
import json
import lzma
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard

from retentiond.stores.files.batch import FilesBatch
from tests.contract.behaviours import Subject
from tests.services.sweeping import ACCOUNTS, Rig

OLD = 3600.0
"""Seconds since when nobody has changed the files."""


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    if suffix == ".zst":
        return zstandard.compress(content)
    if suffix == ".xz":
        return lzma.compress(content)
    return content


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    return content


def line(key: int, *, account: str | None = "1", days: float = 400, **more: object) -> bytes:
    """A line as a service writes it."""
    then = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    return json.dumps({"ts": then, "account_id": account, "key": key, "ip": "192.0.2.77", **more}).encode() + b"\n"


class LogsSubject(Subject):
    """Lines in the files of a folder, some in each, packed by `suffix`."""

    def __init__(self, rig: Rig, folder: Path, *, suffix: str = "", each: int = 1) -> None:
        super().__init__(rig)
        self.folder, self.suffix, self.each = folder, suffix, each

    def file(self, key: int) -> Path:
        return self.folder / f"app-{key // self.each:05}.log{self.suffix}"

    async def add(self, key, *, account="1", days=400):
        path = self.file(key)
        kept = [each for each in self.lines(path) if json.loads(each)["key"] != key] if path.exists() else []
        self.write(path.name, b"".join([*kept, line(key, account=account, days=days)]))

    def write(self, name: str, content: bytes, *, age: float = OLD) -> Path:
        """As a rotation does: another file under the name, that was written to so long ago."""
        path, made = self.folder / name, self.folder / f".{os.urandom(6).hex()}"
        made.write_bytes(packed(content, path.suffix))
        then = time.time() - age
        os.utime(made, (then, then))
        made.rename(path)
        return path

    def lines(self, path: Path) -> list[bytes]:
        return unpacked(path).splitlines(keepends=True)

    def files(self) -> list[Path]:
        """The target's files; an empty one that is being written is none of a test's."""
        return sorted(each for each in self.folder.glob("app*") if each.name != "app.log")

    async def left(self):
        return {json.loads(each)["key"] for path in self.files() for each in self.lines(path)}

    def ours(self) -> list[str]:
        """What sweeps have left in the folder beside log files."""
        return sorted(each.name for each in self.folder.glob(".retentiond*") if each.suffix != ".lock")

    @contextmanager
    def dying(self, at):
        whole = FilesBatch.erase

        async def erase(*args, **named):
            if at == "after":
                await whole(*args, **named)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FilesBatch, "erase", erase)
            yield

    @contextmanager
    def meanwhile(self, work):
        whole, done = FilesBatch.intended, []

        async def intended(batch, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(batch, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FilesBatch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self):
        """Nothing has to: who died has let go of the lock."""


def target(folder: Path, **more) -> dict:
    """The configuration of a target over that folder."""
    usual = {
        "store": "files",
        "class": "operational_logs",
        "path": f"{folder}/app*.log*",
        "format": "jsonl",
        "anchor": "ts",
        "account": "account_id",
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
    }
    return {key: value for key, value in {**usual, **more}.items() if value is not None}


async def prepared(rig: Rig, folder: Path, *, suffix: str = "", each: int = 1, **more) -> LogsSubject:
    """The rig with that target, its accounts, and an empty file that is being written."""
    await rig.db.execute(ACCOUNTS)
    rig.targets["logs"] = target(folder, **more)
    (folder / "app.log").touch()
    return LogsSubject(rig, folder, suffix=suffix, each=each)
