"""Connections: how many there may be, and how long one may do nothing. Files are what sweeps need for theirs.

aiohttp closes a connection that rests between two requests, and has no limit for one that never finishes its first, nor
for how many there are. One past the limit is answered 503 and closed at once.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_FULL_BODY = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many connections are open",'
    b'"instance":"/"}'
)
_IDLE_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_OF_FILES = 4


@dataclass(slots=True)
class Connections:
    """The open connections of a server; at most `most`, and each is closed that was not busy for `idle_seconds`."""

    most: int
    idle_seconds: float = _IDLE_SECONDS
    look_seconds: float = _LOOK_SECONDS
    _server: web.Server | None = None
    _busy: Counter[Any] = field(default_factory=Counter)
    _seen: dict[Any, float] = field(default_factory=dict)

    @web.middleware
    async def busy(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Mark the request's connection as busy while it is handled."""
        self._busy[request.protocol] += 1
        try:
            return await handler(request)
        finally:
            self._busy[request.protocol] -= 1
            if not self._busy[request.protocol]:
                del self._busy[request.protocol]
            self._seen[request.protocol] = time.monotonic()

    def protocol_of(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """Makes the protocol of each new connection."""
        self._server = server

        def make() -> asyncio.Protocol:
            return server() if len(server.connections) < self.most else _Full()

        return make

    async def close_idle(self) -> None:
        """Close what does nothing, for ever."""
        while True:
            await asyncio.sleep(self.look_seconds)
            self.look()

    def look(self) -> None:
        """Close what has done nothing for too long."""
        now = time.monotonic()
        current = list(self._server.connections) if self._server is not None else []
        self._seen = {each: self._seen.get(each, now) for each in current}
        for each, at in self._seen.items():
            if each not in self._busy and now - at > self.idle_seconds:
                each.force_close()


class _Full(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so, and close."""
        writer = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its class
        writer.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
        writer.close()


def room_for(wanted: int) -> int:
    """How many connections there may be: so many, or a quarter of the files that this process may have open.

    The limit of files is raised to what the system allows: 1024 is for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft // _OF_FILES), 1)
