"""This machine: which addresses are its own, and how long it has been up.

Two clocks of one machine are one witness, not two. What it has been up for nobody sets, so it is another.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Uptime(NamedTuple):
    """How many seconds a machine has been up, its sleep counted in, since the boot of that id."""

    boot: str
    seconds: float

    def since(self, earlier: Uptime) -> float | None:
        """The seconds between the two; None where they are not of one boot (or a machine that was copied)."""
        return self.seconds - earlier.seconds if self.boot == earlier.boot and self.seconds >= earlier.seconds else None


def uptime() -> Uptime | None:
    """This machine's; None where it does not tell (no Linux)."""
    try:
        return Uptime(_BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError):
        return None


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
