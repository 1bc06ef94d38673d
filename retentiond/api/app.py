"""The aiohttp application: every resource, what is served beside them, and what each answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from retentiond.api import health, holds, ledger, openapi, operating, session, views
from retentiond.api.connections import Connections
from retentiond.api.exposition import Exposition
from retentiond.api.problems import problems
from retentiond.api.pulse import Pulse
from retentiond.api.resources import MAX_BODY, Resource, add
from retentiond.api.site import Site

RESOURCES: tuple[Resource, ...] = (*views.RESOURCES, *holds.RESOURCES, *operating.RESOURCES, *ledger.RESOURCES)
_HEADERS = {
    "Server": "retentiond",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def make_app(site: Site, exposition: Exposition, pulse: Pulse, connections: Connections) -> web.Application:
    """All resources."""
    app = web.Application(middlewares=[connections.busy, problems], client_max_size=MAX_BODY)
    app.on_response_prepare.append(_secured)
    app.add_routes(health.routes(site.health, pulse))
    app.add_routes(session.routes(site))
    for resource in RESOURCES:
        add(app, site, resource)
    described = orjson.dumps(openapi.document(RESOURCES))

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await exposition.get(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def describe(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/openapi.json", describe)

    async def readings(_: web.Application) -> AsyncIterator[None]:
        yield
        await site.shared.close()
        await site.health.close()

    app.cleanup_ctx.append(readings)
    return app


async def _secured(_: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer; a page sets its own policy."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
