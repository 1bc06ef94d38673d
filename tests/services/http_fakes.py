"""What fakes of servers have in common: a port of their own, and faults that are scripted."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager

from aiohttp import web


class Fault:
    """The next request that the path has `part` in: a `status` instead of what is asked, or its answer is lost.

    `status` 0: it is carried out, and the connection closed without an answer; -1: closed before it is carried out.
    """

    def __init__(self, part: str, status: int, *, method: str | None = None, times: int = 1, body=None) -> None:
        self.part, self.status, self.method, self.times, self.body = part, status, method, times, body


class Fake:
    """A server; subclasses have `routes`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.faults: deque[Fault] = deque()
        self.url = ""

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def fail(self, part: str, status: int, **more) -> None:
        """The next requests of that kind go wrong."""
        self.faults.append(Fault(part, status, **more))

    @asynccontextmanager
    async def running(self):
        app = web.Application(middlewares=[self._middleware], client_max_size=64 * 1024 * 1024)
        app.add_routes(self.routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _middleware(self, request, handler):
        self.calls.append((request.method, request.path_qs))
        fault = next((f for f in self.faults if f.part in request.path_qs and f.method in (None, request.method)), None)
        if fault is not None:
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
            if fault.status > 0:
                return web.json_response(fault.body or {}, status=fault.status)
            if fault.status == 0:
                await handler(request)
            request.transport.abort()
            return web.Response()
        return await handler(request)
