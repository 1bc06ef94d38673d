"""How requests reach a server: by aiohttp, with what it does by itself switched off.

It repeats a request whose connection broke, and takes for an answer whatever comes first on a connection. Of a request
that destroys both would be wrong: one of the two would not be accounted for, or a permit end before its request does.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp


def session(url: str, *, answer_seconds: float, connections: int, ca_bundle: str | None) -> aiohttp.ClientSession:
    """A session for requests to an endpoint: each is sent once, and its answer is its own."""
    parts = urlsplit(url)
    # What `trust_env` does as well, but for each request, and with a look at .netrc in a thread.
    bypassed = is_here(url) or proxy_bypass(parts.netloc)
    proxy = None if bypassed else getproxies().get(parts.scheme)
    made = aiohttp.ClientSession(
        connector=_Connector(
            limit=connections,
            ttl_dns_cache=60,
            ssl=ssl.create_default_context(cafile=ca_bundle) if ca_bundle else True,
            socket_factory=partial(_socket, answer_seconds),
        ),
        headers={"User-Agent": "retentiond"},
        skip_auto_headers=("Content-Type", "Accept-Encoding"),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
    )
    # A DELETE whose connection breaks would be sent a second time, and only one of the two be accounted for.
    made._retry_connection = False  # noqa: SLF001 - there is no other way to say so
    return made


def _socket(seconds: float, address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose kernel gives up what was not taken in for so long.

    Else it would try for a quarter of an hour by itself: the end of a body whose headers came in time would arrive
    when the permit is long over, and some servers carry that out.
    """
    made = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    return made


class _Connector(aiohttp.TCPConnector):
    """Uses no connection again on which something has come that nobody asked for.

    aiohttp would take it for the answer to the next request; and a request that is thought answered ends its permit.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        while (found := await super()._get(key, traces)) is not None:
            if found.protocol is not None and not found.protocol.should_close:
                return found
            found.close()
        return None


def is_here(url: str) -> bool:
    """Whether it leads to this machine, which a proxy would take for itself."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False
