"""The daemon of the demo: `retentiond run` as a process of its own, as it would be in production.

A process of its own so that what is shown is the daemon and no imitation, and so that drawing costs its event loop
nothing. It has a session of its own too: Ctrl-C reaches the demo alone, which then lets it drain.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from retentiond.errors import Unreachable

PORT = 8087
"""What the daemon listens on unless told otherwise; a demo beside another one takes any free port."""

_READY_SECONDS = 60.0
_DRAIN_SECONDS = 30.0
"""More than the daemon's own `shutdown_grace`."""
_POLL_SECONDS = 0.1
_TAIL_BYTES = 2000
_SERIES = re.compile(r"^(retentiond_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Reading:
    """What `/metrics` said: records acted on by (target, tier), and when each target was last drained (Unix time)."""

    acted: Mapping[tuple[str, str], int]
    drained: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Child:
    """The daemon, ready; `address` is where it serves HTTP, `log` the file that it writes to."""

    process: Process
    address: str
    log: Path

    async def read(self, session: aiohttp.ClientSession) -> Reading:
        """Its counters as they are now; raises Unreachable with the end of its log when it has ended."""
        try:
            async with session.get(f"{self.address}/metrics") as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failed(self.log, "does not answer") from error
        return parse(text)

    async def ended(self) -> Unreachable:
        """Wait until it ends by itself, which it should not; the error to raise then."""
        code = await self.process.wait()
        return _failed(self.log, f"ended by itself with exit code {code}")


def parse(text: str) -> Reading:
    """The counters in the Prometheus text format; other series are passed over."""
    acted: dict[tuple[str, str], int] = {}
    drained: dict[str, float] = {}
    for name, inside, value in _SERIES.findall(text):
        labels = dict(_LABEL.findall(inside))
        if name in ("retentiond_records_erased_total", "retentiond_records_anonymised_total"):
            key = (labels["target"], labels["tier"])
            acted[key] = acted.get(key, 0) + int(float(value))
        elif name == "retentiond_last_success_timestamp_seconds":
            drained[labels["target"]] = float(value)
    return Reading(acted, drained)


@asynccontextmanager
async def running(variables: Mapping[str, str], folder: Path, hurry: asyncio.Event) -> AsyncIterator[Child]:
    """The daemon under that configuration, ready, its log in `folder`; it drains at the end, unless `hurry` is set.

    Raises Unreachable with the end of its log when it does not become ready.
    """
    log = folder / "daemon.log"
    process = await _spawn(variables, log, PORT if _free(PORT) else 0)
    try:
        address = await _ready(process, log)
        if address is None and not _free(PORT):  # somebody else took the port between our look and its own
            process = await _spawn(variables, log, 0)
            address = await _ready(process, log)
        if address is None:
            raise _failed(log, f"ended with exit code {process.returncode}")
        yield Child(process, address, log)
    finally:
        await _stop(process, hurry)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the daemon: what only lingers is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _spawn(variables: Mapping[str, str], log: Path, port: int) -> Process:
    # Whatever configuration the caller has is another daemon's.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETENTIOND_")}
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "retentiond",
            "run",
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            env=inherited | dict(variables) | {"RETENTIOND_HTTP__PORT": str(port)},
            start_new_session=True,
        )


async def _ready(process: Process, log: Path) -> str | None:
    """The address that it serves at, from its log; None when it has ended."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while (address := _address(log)) is None:
                if process.returncode is not None:
                    return None
                await asyncio.sleep(_POLL_SECONDS)
            return address
    except TimeoutError:
        raise _failed(log, f"was not ready within {_READY_SECONDS:.0f} s") from None


def _address(log: Path) -> str | None:
    for line in log.read_bytes().splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:  # a line that is still being written
            continue
        if isinstance(entry, dict) and entry.get("event") == "ready":
            return str(entry["http"])
    return None


async def _stop(process: Process, hurry: asyncio.Event) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    over = asyncio.create_task(process.wait())
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({over, hurried}, timeout=_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if process.returncode is None:
        process.kill()
    await over


def _failed(log: Path, what: str) -> Unreachable:
    tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"
    return Unreachable(f"the demo's daemon {what}; the end of its log:\n{tail}", remedy="mend what the log names")
