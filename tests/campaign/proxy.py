"""A network that fails: a TCP proxy between one worker and one server, which knows when a COMMIT passes.

`lose`: the COMMIT reaches the server and the answer never comes back. `late`: the worker's connection is gone and the
COMMIT reaches the server seconds later all the same. `drop`: it never does.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

Fault = Literal["lose", "late", "drop"]
_BEGIN = re.compile(rb"Q\0\0\0.BEGIN", re.DOTALL)
_CHANGE = re.compile(rb"\b(DELETE FROM|UPDATE|INSERT INTO)\b")
_COMMIT = re.compile(rb"Q\0\0\0.COMMIT;?\0", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Armed:
    """What becomes of the next COMMIT of a transaction that changes something, and for `late`, after how many seconds."""

    fault: Fault
    seconds: float = 0.0


class Proxy:
    """Leads from an address of its own to the server's, until told otherwise. `done` counts the faults carried out."""

    def __init__(self, server: tuple[str, int], host: str) -> None:
        self._server, self._host = server, host
        self._links: set[_Link] = set()
        self._listening: asyncio.Server | None = None
        self._refusing = False
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.armed: deque[Armed] = deque()
        self.done: dict[str, int] = {}
        self.port = 0

    async def start(self) -> None:
        """Begin to listen, on any free port."""
        self._listening = await asyncio.start_server(self._accepted, self._host, 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        self.cut()
        if self._listening is not None:
            self._listening.close()
        await asyncio.gather(*(link.task for link in self._links), return_exceptions=True)

    def cut(self) -> int:
        """End all connections, as a reset does; how many there were."""
        links = list(self._links)
        for link in links:
            link.abort()
        return len(links)

    def partition(self, *, on: bool) -> None:
        """While on, nothing can be reached: what is open is cut, what is new is refused."""
        self._refusing = on
        if on:
            self.cut()

    def freeze(self, *, on: bool) -> None:
        """While on, nothing passes either way, and nobody is told."""
        self.thawed.clear() if on else self.thawed.set()

    def heal(self) -> None:
        """Let everything pass from now on."""
        self._refusing = False
        self.thawed.set()
        self.armed.clear()

    def count(self, fault: str) -> None:
        """Note that a fault was carried out."""
        self.done[fault] = self.done.get(fault, 0) + 1

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, reader, writer, up_reader, up_writer)
        self._links.add(link)
        try:
            await link.task
        finally:
            self._links.discard(link)


class _Link:
    """One connection: two pumps, both ended with either."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._server = writer, up_writer
        self._muted = self._detached = self._changes = False
        self.task = asyncio.ensure_future(self._run(reader, up_reader))

    def abort(self) -> None:
        """Cut it on both sides; a COMMIT that is on its way late stays on its way."""
        self._client.transport.abort()
        if not self._detached:
            self._server.transport.abort()

    async def _run(self, reader: asyncio.StreamReader, up_reader: asyncio.StreamReader) -> None:
        pumps = [
            asyncio.ensure_future(self._pump(reader, self._outward)),
            asyncio.ensure_future(self._pump(up_reader, self._inward)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self._detached:
                await asyncio.wait(pumps)
        finally:
            self._detached = False
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.abort()

    async def _pump(self, reader: asyncio.StreamReader, pass_on: Callable[[bytes], Awaitable[bool]]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._proxy.thawed.wait()
                if not await pass_on(data):
                    return

    async def _inward(self, data: bytes) -> bool:
        if not self._muted:
            self._client.write(data)
            await self._client.drain()
        return True

    async def _outward(self, data: bytes) -> bool:
        if _BEGIN.search(data):
            self._changes = False
        if _CHANGE.search(data):
            self._changes = True
        if self._proxy.armed and self._changes and _COMMIT.search(data):
            return await self._strike(self._proxy.armed.popleft(), data)
        self._server.write(data)
        await self._server.drain()
        return True

    async def _strike(self, armed: Armed, data: bytes) -> bool:
        """Do to this COMMIT what is armed; the connection is over then."""
        self._proxy.count(armed.fault)
        self._muted = True
        if armed.fault == "drop":
            return False
        if armed.fault == "late":
            self._detached = True
            self._client.transport.abort()
            await asyncio.sleep(armed.seconds)
        self._server.write(data)
        await self._server.drain()
        await asyncio.sleep(0.2)  # a reset at once could overtake it
        if armed.fault == "late":
            self._server.transport.abort()
        return False
