"""Where workers live: each in a network namespace of its own, as on a host of its own, where this machine allows that.

Such a host's cable can be pulled: packets vanish in both directions and nobody is told. Elsewhere it is a process that
reaches the servers by loopback, and only the proxies' faults are to be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    """`address` is where the campaign's proxies are reached from there; `prefix` goes before a command to run there."""

    address: str
    prefix: tuple[str, ...] = ()
    cable: str | None = None

    def plug(self, *, on: bool) -> None:
        """Pull the cable, or put it back."""
        if self.cable is not None:
            _ip("link", "set", self.cable, "up" if on else "down")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, gone at the end."""
    made: list[str] = []
    try:
        yield [_namespace(index, made) if _can() else Host("127.0.0.1") for index in range(count)]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _can() -> bool:
    if os.getuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"rtprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode != 0:
        return False
    _ip("netns", "del", name)
    return True


def _namespace(index: int, made: list[str]) -> Host:
    name, outside, inside = (f"rt{kind}{os.getpid()}x{index}" for kind in "hoi")
    net = f"10.{64 + os.getpid() % 128}.{index}"
    _ip("netns", "add", name)
    made.append(name)
    _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
    _ip("address", "add", f"{net}.1/24", "dev", outside)
    _ip("link", "set", outside, "up")
    _ip("-n", name, "address", "add", f"{net}.2/24", "dev", inside)
    _ip("-n", name, "link", "set", inside, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    return Host(f"{net}.1", ("ip", "netns", "exec", name), outside)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
