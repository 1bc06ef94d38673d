"""The real `retentiond` as a process of its own, with nothing in its environment but what a test gives it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

DEADLINE = 120.0
"""Seconds that a command may take before it is killed and the test fails."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended: `code` is negative when a signal ended it."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.stdout)


async def run_retentiond(
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline: float = DEADLINE,
    prefix: Sequence[str] = (),
    stdin: str | None = None,
) -> Result:
    """Run `retentiond args…` to its end. `prefix` goes before the command (`faketime -f +2y`)."""
    with _Home() as home:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            sys.executable,
            "-m",
            "retentiond",
            *args,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(home, env),
            cwd=cwd or home,
            start_new_session=True,
        )
        given = None if stdin is None else stdin.encode()
        try:
            out, err = await asyncio.wait_for(process.communicate(given), deadline)
        except TimeoutError:
            await _end(process)
            raise AssertionError(f"retentiond {' '.join(args)} took longer than {deadline} s") from None
        except asyncio.CancelledError:
            await _end(process)
            raise
        return Result(process.returncode or 0, out.decode(), err.decode())


class Running:
    """A long-running `retentiond`; `output` is all it has written so far to stdout and stderr, as it came."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self._over = False
        self.output = ""
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.returncode

    async def wait_for(self, text: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait until the output holds a match of the regular expression; fail when the process ends before."""
        pattern = re.compile(text)

        async def look() -> re.Match[str]:
            async with self._changed:
                while (match := pattern.search(self.output)) is None:
                    if self._over:
                        raise AssertionError(f"ended without writing {text!r}:\n{self.output}")
                    await self._changed.wait()
                return match

        try:
            return await asyncio.wait_for(look(), deadline)
        except TimeoutError:
            raise AssertionError(f"no {text!r} within {deadline} s in:\n{self.output}") from None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for its end and return the exit code."""
        try:
            code = await asyncio.wait_for(self._process.wait(), deadline)
        except TimeoutError:
            raise AssertionError(f"still running after {deadline} s:\n{self.output}") from None
        with suppress(TimeoutError):  # a grandchild may hold the pipe
            await asyncio.wait_for(asyncio.shield(self._reader), 2)
        return code

    async def close(self) -> None:
        await _end(self._process)
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while chunk := await self._process.stdout.read(65536):
                async with self._changed:
                    self.output += chunk.decode(errors="replace")
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._over = True
                self._changed.notify_all()


@asynccontextmanager
async def start_retentiond(
    *args: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Running]:
    """Start `retentiond args…`; on leaving it is killed, stopped or not, with everything in its process group."""
    with _Home() as home:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            sys.executable,
            "-m",
            "retentiond",
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(home, env),
            cwd=cwd or home,
            start_new_session=True,
            preexec_fn=_as_from_a_terminal,
        )
        running = Running(process)
        try:
            yield running
        finally:
            await running.close()


def _as_from_a_terminal() -> None:
    """A shell that runs the tests in the background has SIGINT ignored, which a program would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _environment(home: Path, env: Mapping[str, str] | None) -> dict[str, str]:
    measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUNBUFFERED": "1"} | measured | dict(env or {})


class _Home:
    """A home folder that goes away, whatever is still being written into it."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="rt-home-", dir="/tmp"))
        return self.path

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
