"""The aiohttp application and its server. Errors are RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from retentiond.api import health
from retentiond.api.health import Health
from retentiond.errors import UsageError

Exposition = Callable[[str], tuple[bytes, str]]
_MAX_BODY = 1 << 20


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer each HTTP error with a problem document."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response(
            {"type": "about:blank", "title": error.reason, "status": error.status},
            status=error.status,
            content_type="application/problem+json",
            headers={"Allow": error.headers["Allow"]} if "Allow" in error.headers else None,
        )


def make_app(checks: Health, exposition: Exposition) -> web.Application:
    """All resources; `exposition` gives the metrics for an Accept header."""
    app = web.Application(middlewares=[problems], client_max_size=_MAX_BODY)
    app.add_routes(health.routes(checks))

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app.router.add_get("/metrics", metrics)
    return app


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve until left; gives the address. Raises UsageError when it can't be bound."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(
                f"HTTP can't be served on {host}:{port}: {error.strerror}",
                remedy="set RETENTIOND_HTTP__PORT to a free port (0 chooses one)",
            ) from error
        bound = runner.addresses[0]
        yield f"http://{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()
