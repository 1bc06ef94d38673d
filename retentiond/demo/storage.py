"""The demo's bucket, as the demo starts and ends it; `storage_server` is what runs."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from retentiond.errors import Unreachable, UsageError

_SERVER = "retentiond.demo.storage_server"
_NEEDED = ("moto", "flask", "flask_cors")
_READY_SECONDS = 60.0
_END_SECONDS = 10.0
_TAIL_BYTES = 2000
_OTHERS = ("AWS_", "MOTO_", "RETENTIOND_")


def require_storage() -> None:
    """Raise UsageError where the server is not installed."""
    if any(find_spec(name) is None for name in _NEEDED):
        raise UsageError(
            "the demo's bucket needs moto's S3 server, which is not installed", remedy="pip install 'retentiond[demo]'"
        )


@dataclass(frozen=True, slots=True)
class Storage:
    """The server, which may be coming up yet."""

    process: Process
    log: Path

    async def address(self) -> str:
        """Where it listens, once it does; asked for once. Raises Unreachable with the end of its log when it ended."""
        return f"http://127.0.0.1:{await _port(self.process, self.log)}"


@asynccontextmanager
async def storage(folder: Path) -> AsyncIterator[Storage]:
    """The server with the bucket in it, just started; its log goes to `folder`, and it ends with the block.

    It ends with this process too, however that ends: the pipe to its standard input closes.
    """
    log = folder / "storage.log"
    process = await _spawn(log)
    try:
        yield Storage(process, log)
    finally:
        await _end(process)


def forget_aws() -> None:
    """Take what configures the AWS libraries out of this process and those it starts: the demo has its own bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]


async def _spawn(log: Path) -> Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the demo alone.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _SERVER),
            stdin=PIPE,
            stdout=PIPE,
            stderr=output,
            env=inherited,
            start_new_session=True,
        )


async def _port(process: Process, log: Path) -> int:
    assert process.stdout is not None
    line = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            line = await process.stdout.readline()
    word, _, port = line.decode(errors="replace").partition(" ")
    if word != "ready":
        tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
        raise Unreachable(
            f"the demo's S3 server did not come up; the end of its log:\n{tail}", remedy="mend what the log names"
        )
    return int(port)


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
