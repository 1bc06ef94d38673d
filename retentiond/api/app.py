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
        text = await exposition.get(request.headers.get("Accept", ""))
        headers = {"Content-Type": text.content_type, "Vary": "Accept, Accept-Encoding"}
        if _takes_gzip(request.headers.get("Accept-Encoding", "")):
            return web.Response(body=text.packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=text.plain, headers=headers)

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


def _takes_gzip(accepted: str) -> bool:
    """Whether the client says so, and not that it would rather not (`gzip;q=0`)."""
    for each in accepted.lower().split(","):
        name, _, quality = each.partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def _secured(_: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer; a page sets its own policy."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
