"""`session`: who is asking; logging in with a token for a cookie, and out again. It changes nothing else."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from retentiond.api import asked, models, sessions
from retentiond.api.clients import client_of
from retentiond.api.problems import Refusal
from retentiond.api.resources import PREFIX, body_of, encode
from retentiond.api.site import Site
from retentiond.api.who import who

PATH = PREFIX + "/session"
_PRIVATE = {"Cache-Control": "no-store"}


def routes(site: Site) -> web.RouteTableDef:
    """GET, POST (log in) and DELETE (log out)."""
    table = web.RouteTableDef()

    @table.get(PATH)
    async def mine(request: web.Request) -> web.Response:
        found = await who(site, request)
        site.access.require(found.token, "viewer", found.client, changes=False)
        csrf = sessions.csrf_of(found.cookie) if found.cookie is not None else None
        name, role = (found.token.name, found.token.role) if found.token is not None else (None, None)
        return _answer(models.Session(name=name, role=role, csrf=csrf))

    @table.post(PATH)
    async def log_in(request: web.Request) -> web.Response:
        body: Any = await body_of(request, asked.LogIn)
        client = client_of(request, site.trusted)
        if not site.access.tokens:
            site.access.require(None, "viewer", client, changes=True)
        token = site.access.by_token(body.token, client)
        secret = await sessions.log_in(site, token)
        response = _answer(models.Session(name=token.name, role=token.role, csrf=sessions.csrf_of(secret)), 201)
        sessions.set_cookie(response, secret, client)
        return response

    @table.delete(PATH)
    async def log_out(request: web.Request) -> web.Response:
        cookie = sessions.cookie_of(request)
        if cookie is None:
            raise Refusal(404, "there is no session to end")
        sessions.require_csrf(request, cookie, request.headers.get(sessions.CSRF_HEADER))
        await sessions.log_out(site, cookie)
        response = web.Response(status=204, headers=_PRIVATE)
        sessions.drop_cookie(response)
        return response

    return table


def _answer(found: models.Session, status: int = 200) -> web.Response:
    return web.Response(body=encode(found), status=status, content_type="application/json", headers=_PRIVATE)
