"""A network, or a server, that fails as it is told to: an HTTP proxy in front of a real S3 server.

A test arms faults; each strikes the next request that it is about, once. What is not struck passes unchanged (but for what
`rewrite` makes of it), with the Host that was signed. `seen` has what came, and `passed` what the server was given.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from services.s3 import S3Server

Kind = Literal[
    "denied", "busy", "broken", "not found", "error in a 200", "keys busy", "keys broken", "cut", "garbled", "lost",
    "never sent", "late", "gave up", "a page", "stopped before", "stopped after", "pretends", "says",
]  # fmt: skip
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection: *[^\r]*", re.IGNORECASE)
_ACTION = re.compile(rb"\r\nx-amz-target: *Logs_20140328\.(\w+)", re.IGNORECASE)
_KEY = re.compile(rb"<Key>([^<]*)</Key>")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    body: bytes
    action: str = ""
    """What a server of AWS that speaks JSON is asked for, such as `DeleteLogStream`."""

    @property
    def erases(self) -> bool:
        """Whether it destroys something."""
        return self.method == "DELETE" or (self.method == "POST" and "delete" in urlsplit(self.target).query)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the next request it is about.

    `denied`, `busy`, `broken`: 403 AccessDenied, 503 SlowDown, 500 InternalError, and the server is not asked. `not found`: nor here, but
    something between says 404, with a page of its own. `error in a 200`: the same as a
    success with `<Error>` for its body. `keys busy`, `keys broken`: the server acts, and the answer says so of the first
    `keys` of a deletion; with `keys` 0 the server is not asked, and it says so of all. `cut`: the server acts, half of the
    answer comes. `garbled`: all of it comes, with one bit of the body changed. `lost`: the server acts, and the connection ends. `never sent`: the connection ends before the server
    has it. `pretends`: a 204, and the server is not asked. `late`: the connection ends, and the server gets it only when
    `release` is called. `stopped before`, `stopped after`: nothing goes on until `release`, with or without the server
    having acted; `reached` is set then.
    `says`: this `status` and `body`, and the server is not asked.
    `gave up`: as a gateway that does not wait any longer, 504 and a page of its own; the server gets it when `release` is
    called. `a page`: 200 and a page, as of a proxy that wants to be logged in to; the server is not asked.
    """

    kind: Kind
    about: Callable[[Asked], bool] = lambda asked: asked.erases
    keys: int = 0
    status: str = ""
    body: bytes = b""


class Faulty:
    """The proxy; `url` is where it listens."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._upstream = urlsplit(server.url)
        self._listening: asyncio.Server | None = None
        self._released = asyncio.Event()
        self._later: list[asyncio.Task[bytes]] = []
        self.armed: list[Fault] = []
        self.seen: list[Asked] = []
        self.passed: list[Asked] = []
        self.server = server
        self.reached = asyncio.Event()
        self.rewrite: Callable[[Asked, bytes], bytes] = lambda _, raw: raw

    def arm(self, *faults: Fault) -> None:
        """Let these strike, in this order where several are about the same request."""
        self.armed += faults

    async def release(self) -> None:
        """Let go on what was stopped; let the server have what is late, and wait until it has answered."""
        self._released.set()
        await asyncio.gather(*self._later)

    async def start(self) -> None:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        self.server = replace(self._server, url=f"http://127.0.0.1:{port}")

    async def stop(self) -> None:
        """Listen no more: what comes now is refused."""
        if self._listening is not None:
            self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection, so that none is taken from a pool just when it ends."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head, body = await _message(reader)
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            action = _ACTION.search(head)
            asked = Asked(method, target, body, action.group(1).decode() if action else "")
            self.seen.append(asked)
            said = await self._answer(asked, head + body)
            if said is not None:
                writer.write(_CONNECTION.sub(b"", said, 1).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                await writer.drain()
                writer.close()
                return
        writer.transport.abort()

    async def _answer(self, asked: Asked, raw: bytes) -> bytes | None:
        """What the client gets; None: the connection ends."""
        fault = next((each for each in self.armed if each.about(asked)), None)
        if fault is None:
            return await self._pass(asked, raw)
        self.armed.remove(fault)
        if fault.kind == "says":
            return _answer(fault.status, fault.body)
        if fault.kind == "not found":
            return _answer("404 Not Found", b"<html><title>404</title></html>")
        if fault.kind in {"denied", "busy", "broken", "error in a 200"}:
            code = {"denied": "AccessDenied", "busy": "SlowDown"}.get(fault.kind, "InternalError")
            statuses = {"denied": "403 Forbidden", "busy": "503 Slow Down", "broken": "500 Internal Server Error"}
            status = statuses.get(fault.kind, "200 OK")
            body = f"<Error><Code>{code}</Code><Message>armed</Message></Error>".encode()
            return _answer(status, b"" if asked.method == "HEAD" else body)
        if fault.kind == "pretends":
            return _answer("204 No Content", b"")
        if fault.kind in {"keys busy", "keys broken"}:
            return await self._keys(asked, raw, fault)
        if fault.kind == "a page":
            return _answer("200 OK", b"<html>Log in</html>")
        if fault.kind in {"late", "gave up"}:
            self._later.append(asyncio.ensure_future(self._pass_later(asked, raw)))
            return None if fault.kind == "late" else _answer("504 Gateway Timeout", b"<html>waited enough</html>")
        if fault.kind == "never sent":
            return None
        if fault.kind == "stopped before":
            self.reached.set()
            passing = asyncio.ensure_future(self._pass_later(asked, raw))
            self._later.append(passing)
            return await passing
        said = await self._pass(asked, raw)
        if fault.kind == "stopped after":
            self.reached.set()
            await self._released.wait()
            return said
        head = said.find(b"\r\n\r\n") + 4
        if fault.kind == "garbled":
            return said[:-1] + bytes([said[-1] ^ 1])
        return None if fault.kind == "lost" else said[: head + (len(said) - head) // 2]

    async def _keys(self, asked: Asked, raw: bytes, fault: Fault) -> bytes:
        if fault.keys:
            await self._pass(asked, raw)
        named = _KEY.findall(asked.body)[: fault.keys or None]
        code = b"SlowDown" if fault.kind == "keys busy" else b"InternalError"
        errors = b"".join(b"<Error><Key>%s</Key><Code>%s</Code></Error>" % (key, code) for key in named)
        return _answer("200 OK", b"<DeleteResult>%s</DeleteResult>" % errors)

    async def _pass_later(self, asked: Asked, raw: bytes) -> bytes:
        await self._released.wait()
        return await self._pass(asked, raw)

    async def _pass(self, asked: Asked, raw: bytes) -> bytes:
        self.passed.append(asked)
        assert self._upstream.hostname is not None
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        try:
            writer.write(
                _CONNECTION.sub(b"", self.rewrite(asked, raw), 1).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            )
            await writer.drain()
            said = await reader.read()
        finally:
            writer.close()
        return said


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head, await reader.readexactly(int(length.group(1))) if length else b""


@asynccontextmanager
async def faulty(server: S3Server) -> AsyncIterator[Faulty]:
    """The proxy before that server; it ends with the block."""
    proxy = Faulty(server)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
