"""Letting a request in: by its token, by its session, or as one of this host's own where no token is configured."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from retentiond.api import sessions
from retentiond.api.access import Needs, Token
from retentiond.api.clients import Client, client_of
from retentiond.api.problems import Refusal
from retentiond.api.site import Site

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, from where; `cookie` is the session's secret, where it came by one."""

    token: Token | None
    client: Client
    cookie: str | None = None


async def who(site: Site, request: web.Request) -> Who:
    """Who asks; raises Refusal for a wrong token. A token goes before a cookie."""
    client = client_of(request, site.trusted)
    if not site.access.tokens:
        return Who(None, client)
    given = request.headers.getall("Authorization", [])
    if given:
        scheme, _, presented = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or not presented.strip():
            raise Refusal(
                401,
                "the header Authorization is not `Bearer TOKEN`",
                headers={"WWW-Authenticate": 'Bearer realm="retentiond", error="invalid_request"'},
            )
        return Who(site.access.by_token(presented.strip(), client), client)
    cookie = sessions.cookie_of(request)
    token = await sessions.token_of(site, cookie) if cookie is not None else None
    return Who(token, client, cookie if token is not None else None)


async def let_in(site: Site, request: web.Request, needs: Needs, csrf: str | None = None) -> Who:
    """Who asks, once it is sure that they may; raises Refusal. `csrf` is of a form, which has no headers of its own."""
    found = await who(site, request)
    changes = request.method not in _SAFE
    site.access.require(found.token, needs, found.client, changes=changes)
    if changes and found.cookie is not None:
        sessions.require_csrf(request, found.cookie, csrf or request.headers.get(sessions.CSRF_HEADER))
    return found
