"""Sessions of people at the page: a cookie instead of the token, which is typed once and kept nowhere.

The cookie is HttpOnly and SameSite=Strict; the database has its SHA-256, and the session ends with the token. A change
by cookie must carry what only a page of this site can know (`csrf_of`), and the browser must say that it is from here.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from aiohttp import web

from retentiond.api.access import Token
from retentiond.api.clients import Client
from retentiond.api.problems import Refusal
from retentiond.api.site import Site
from retentiond.control import sessions

COOKIE = "retentiond_session"
CSRF_HEADER = "X-CSRF-Token"
SECONDS = 12 * 3_600
_LONGEST = 200


def cookie_of(request: web.Request) -> str | None:
    """The session's secret, as the browser sent it."""
    found = request.cookies.get(COOKIE)
    return found if found and len(found) <= _LONGEST else None


def csrf_of(cookie: str) -> str:
    """What a change by that session must carry: a page of this site has it from us, another site can't reckon it."""
    return hashlib.sha256(b"retentiond csrf\n" + cookie.encode("utf-8", "surrogateescape")).hexdigest()


def require_csrf(request: web.Request, cookie: str, given: str | None) -> None:
    """Raise Refusal 403 unless the change comes from a page of ours; `given` is its header's or form's value."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "the request comes from another site")
    if given is None or not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), csrf_of(cookie).encode()):
        raise Refusal(
            403,
            f"a change by a session's cookie takes the header {CSRF_HEADER}",
            remedy="send what GET /api/v1/session answers as csrf; or use a token instead of the cookie",
        )


async def token_of(site: Site, cookie: str) -> Token | None:
    """Whose session it is; None where it is over, or its token is configured no more."""
    async with site.desk.database.transaction(read_only=True) as tx:
        found = await sessions.find(tx, _id(cookie))
    return None if found is None else site.access.standing(found.principal, found.token)


async def log_in(site: Site, token: Token) -> str:
    """Open a session for whoever showed this token; its secret, for the cookie."""
    secret = secrets.token_urlsafe(32)
    async with site.desk.database.transaction() as tx:
        await sessions.begin(tx, _id(secret), sessions.Session(token.name, token.sha256), SECONDS)
    return secret


async def log_out(site: Site, cookie: str) -> None:
    """End the session."""
    async with site.desk.database.transaction() as tx:
        await sessions.end(tx, _id(cookie))


def set_cookie(response: web.StreamResponse, secret: str, client: Client) -> None:
    """Give the browser the session's secret."""
    response.set_cookie(
        COOKIE, secret, max_age=SECONDS, path="/", httponly=True, samesite="Strict", secure=client.secure
    )


def drop_cookie(response: web.StreamResponse) -> None:
    """Take it away again."""
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")


def _id(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
