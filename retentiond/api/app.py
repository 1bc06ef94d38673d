"""The aiohttp application and its server. Errors are RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from retentiond.api import health
from retentiond.api.health import Health
from retentiond.errors import UsageError

log = structlog.get_logger()
Exposition = Callable[[str], tuple[bytes, str]]
_MAX_BODY = 1 << 20
_FIRST_ERROR = 400
_CLOSE_SECONDS = 2.0


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer each error with a problem document; a defect is logged, and its answer says nothing of it."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < _FIRST_ERROR:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return _problem(request, error.status, error.reason, headers)
    except Exception as error:
        log.error("unexpected", path=request.path, exc_info=error)
        return _problem(request, 500, "Internal Server Error")


def _problem(request: web.Request, status: int, title: str, headers: Mapping[str, str] | None = None) -> web.Response:
    details = {
        404: f"there is nothing at {request.path}; see /healthz, /readyz and /metrics",
        405: f"{request.method} is not for {request.path}; see the header Allow",
        500: "a defect: see the log, and report it",
    }
    document = {"type": "about:blank", "title": title, "status": status, "instance": request.path}
    if status in details:
        document["detail"] = details[status]
    return web.json_response(document, status=status, content_type="application/problem+json", headers=headers)


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
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
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
