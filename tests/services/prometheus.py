"""A fake of a Prometheus: `/api/v1/query` answers in the documented shapes with what the test says, and nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class FakePrometheus:
    """`value` is the sample of every query; None: an empty vector. `status` other than 200 gives an error document.

    A `body` is sent in so many `chunks`, each apart from the one before it.
    """

    value: str | None = "0"
    kind: str = "vector"
    status: int = 200
    body: str | None = None
    chunks: int = 1
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """As the HTTP API documents it."""
        form = await request.post()
        self.asked.append((str(form["query"]), request.headers.get("Authorization")))
        if self.body is not None and self.chunks > 1:
            return await self._in_chunks(request, self.body.encode())
        if self.body is not None:
            return web.Response(text=self.body, status=self.status)
        if self.status != 200:
            error = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end of input"}
            return web.json_response(error, status=self.status)
        samples = [] if self.value is None else [{"metric": {}, "value": [1.0, v]} for v in self.value.split()]
        result = [1.0, self.value] if self.kind == "scalar" else samples
        return web.json_response({"status": "success", "data": {"resultType": self.kind, "result": result}})

    async def _in_chunks(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        size = -(-len(body) // self.chunks)
        for at in range(0, len(body), size):
            await response.write(body[at : at + size])
            await asyncio.sleep(0.01)
        await response.write_eof()
        return response


@asynccontextmanager
async def fake_prometheus() -> AsyncIterator[FakePrometheus]:
    """The fake on a free port, until left."""
    fake = FakePrometheus()
    application = web.Application()
    application.router.add_post("/api/v1/query", fake.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
