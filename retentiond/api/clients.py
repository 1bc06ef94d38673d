"""Who is at the other end: by the connection, or by `X-Forwarded-*` where a configured proxy says so.

Headers of anybody else are believed in nothing. But a request that carries them came through some proxy, so that it
does not count as one of this host's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")


@dataclass(frozen=True, slots=True)
class Client:
    """`address` is None where it can't be told; `local`: on this host, with nobody in between; `secure`: by TLS."""

    address: Address | None
    local: bool
    secure: bool

    @property
    def key(self) -> str:
        """What its failures are counted under: an IPv6 network of one customer counts as one."""
        if isinstance(self.address, IPv6Address):
            return str(IPv6Network((self.address, 64), strict=False))
        return str(self.address)


def client_of(request: web.Request, trusted: tuple[Network, ...]) -> Client:
    """The client of the request; the rightmost address of `X-Forwarded-For` that is no proxy of ours."""
    peer = _peer(request)
    secure = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
    if peer is None or not _is_in(peer, trusted):
        direct = not any(name in request.headers for name in _FORWARDED)
        return Client(peer, peer is not None and peer.is_loopback and direct and _own_name(request), secure)
    forwarded = [part.strip() for value in request.headers.getall("X-Forwarded-For", []) for part in value.split(",")]
    proto = request.headers.getall("X-Forwarded-Proto", [])
    secure = proto[-1].strip().lower() == "https" if proto else secure
    for part in reversed(forwarded):
        address = _address(part)
        if address is None or not _is_in(address, trusted):
            return Client(address, local=False, secure=secure)
    return Client(peer, local=False, secure=secure)


def _peer(request: web.Request) -> Address | None:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return _address(str(name[0])) if isinstance(name, tuple) and name else None


def _address(text: str) -> Address | None:
    bare = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text.partition("%")[0]
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _own_name(request: web.Request) -> bool:
    """Whether the request names this host as such: a page elsewhere can lead its own name to 127.0.0.1."""
    host = request.host.lower()
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    address = _address(name)
    return address is not None and address.is_loopback
