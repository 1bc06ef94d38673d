"""Whether an address is this machine's own: two clocks of one machine are one witness, not two."""

from __future__ import annotations

import ipaddress
import socket


def is_this_machine(host: str | None) -> bool:
    """True for None (a unix socket), loopback, and an address or name that this machine can bind to."""
    if host is None:
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, str(address[0])) for family, _, _, _, address in found)


def _is_own(family: socket.AddressFamily, address: str) -> bool:
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
