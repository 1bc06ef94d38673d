"""A real PgBouncer in front of a Postgres of the tests, where the machine has one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.postgres import Server, free_port


@contextmanager
def pgbouncer(server: Server, mode: str, *, size: int = 20) -> Iterator[str]:
    """The DSN of the database `postgres` behind a PgBouncer of that pool mode; it ends with the block.

    It leads to every other database of the server as well, with `size` server connections to each.
    """
    home = Path(tempfile.mkdtemp(prefix="rt-pgb-", dir="/tmp"))
    home.chmod(0o755)
    port = free_port()
    (home / "users").write_text('"postgres" ""\n')
    (home / "bouncer.ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {home}/users\npool_mode = {mode}\n"
        f"default_pool_size = {size}\nignore_startup_parameters = extra_float_digits\n"
    )
    child = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        child = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["pgbouncer", str(home / "bouncer.ini")], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **child
        )
        try:
            _wait_for(port, process, home / "log")
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(home, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"pgbouncer ended with {process.returncode}: {log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"pgbouncer does not listen: {log.read_text()}")
