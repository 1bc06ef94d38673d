"""A real streaming replica of a server of the tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from tests.services.postgres import Server, _run, as_account, free_port


@contextmanager
def replica(primary: Server, name: str = "replica", **settings: str) -> Iterator[Server]:
    """A replica that streams from the primary under that application_name; stopped and removed at the end."""
    data = primary.data.with_name(f"replica-{name}")
    child = as_account(primary.account)
    source = f"host={primary.host} port={primary.port} user=postgres application_name={name}"
    try:
        data.mkdir(mode=0o700)
        if primary.account is not None:
            import os

            os.chown(data, *primary.account)
        _run([primary.bin / "pg_basebackup", "-D", data, "-d", source, "-R", "-c", "fast", "-X", "stream"], child)
        port = free_port()
        options = {"port": str(port), "unix_socket_directories": str(data), **settings}
        with (data / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"primary_conninfo = '{source}'\n")
            conf.writelines(f"{key} = '{value}'\n" for key, value in options.items())
        _run([primary.bin / "pg_ctl", "-D", data, "-w", "-t", "60", "-l", data / "server.log", "start"], child)
        found = replace(primary, port=port, data=data)
        try:
            yield found
        finally:
            resume(found)
            _run([primary.bin / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], child)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def freeze(server: Server, title: str) -> None:
    """Stop the server's process whose title has that text (`startup` replays, `walreceiver` receives)."""
    (found,) = [each for each in _family(server) if title in " ".join(each.cmdline())]
    found.suspend()


def resume(server: Server) -> None:
    """Let every process of the server go on."""
    for each in _family(server):
        if each.status() == psutil.STATUS_STOPPED:
            each.resume()


def _family(server: Server) -> list[psutil.Process]:
    pid = int((Path(server.data) / "postmaster.pid").read_text().split()[0])
    return psutil.Process(pid).children()
