"""An embedded Postgres: the control database where no `control.dsn` is given.

Several processes may use one server: the daemon, and a command beside it. Each holds a shared lock on
`postgres.users` in the state folder for as long as it does; starting and stopping happen under an exclusive lock on
`postgres.start`. Who leaves last, which is to say gets `postgres.users` for itself, stops the server. The kernel frees
the locks of a process that was killed; the server it leaves behind is adopted by the next one. `postmaster.pid` alone
says where the server is.

The server listens on a Unix socket only, in a private folder below /tmp: a socket's path may have 107 bytes, which a
state folder can exceed. It has a session of its own, so that Ctrl-C to the daemon doesn't stop it first.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from retentiond.control import cluster
from retentiond.control.cluster import USER
from retentiond.control.installation import Account, installation, run
from retentiond.errors import Unreachable

__all__ = ["EmbeddedPostgres"]

_SOCKETS = Path("/tmp")  # noqa: S108 - the shortest folder there is; ours in it is made by mkdtemp, 0700
_PREFIX = "retentiond-"
_PATIENCE = 60.0
"""Seconds to wait for another process that starts or stops the server, and for the server itself (crash recovery)."""
_LOG_BYTES = 10_000_000
"""At a start, a log longer than this gives way to a new one; one old one is kept."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What `postmaster.pid` says."""

    pid: int
    sockets: Path


class EmbeddedPostgres:
    """One process's use of a state folder's server. `dsn` reaches its database as superuser; `data` is its folder."""

    def __init__(self, state_dir: Path, data: Path, account: Account, sockets: Path, users: int) -> None:
        self._state_dir, self.data, self._account = state_dir, data, account
        self._users: int | None = users
        self.dsn = f"postgresql://{USER}@/{USER}?host={quote(str(sockets), safe='')}&port=5432"

    @classmethod
    async def start(cls, state_dir: Path, *, create: bool, copies: Path | None = None) -> EmbeddedPostgres:
        """Use the server of `state_dir`, an existing folder, starting it where it doesn't run yet.

        `create`: make the data folder where there is none; else that raises `StateMissing`. `copies`: the folder for
        copies of binaries that the server's account can't reach, instead of the usual one, which stays.

        Raises `UsageError` when the extra `embedded` is not installed, `Unreachable` with the end of the server's log
        when it does not come up.
        """
        entering = asyncio.ensure_future(asyncio.to_thread(_enter, state_dir.resolve(), create, copies))
        try:
            server = await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on; what it starts must not outlive us.
            await (await entering).stop()
            raise
        try:
            await _ensure_database(server.dsn, server.data)
        except BaseException:
            await server.stop()
            raise
        return server

    async def stop(self) -> None:
        """End this use; stops the server when nobody else uses it. A second call does nothing."""
        users, self._users = self._users, None
        if users is not None:
            await asyncio.shield(asyncio.to_thread(_leave, self._state_dir, self.data, self._account, users))


async def _ensure_database(dsn: str, data: Path) -> None:
    try:
        connection = await asyncpg.connect(dsn, timeout=_PATIENCE)
    except asyncpg.InvalidCatalogNameError:
        connection = await asyncpg.connect(dsn, database="postgres", timeout=_PATIENCE)
        try:
            await connection.execute(f'CREATE DATABASE "{USER}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            return  # another process of ours was faster
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError) as error:
        raise _unreachable(data, f"does not answer: {error}") from error
    else:
        await connection.close()


def _enter(state_dir: Path, create: bool, copies: Path | None) -> EmbeddedPostgres:
    """Blocking: find or make, adopt or start; returns with the shared lock held."""
    try:
        with _alone(state_dir, create=create):
            data, account = cluster.made(state_dir, create=create, copies=copies)
            users = _open(state_dir / "postgres.users", state_dir)
            try:
                running = _adopted(data, account) or _started(data, account)
                fcntl.flock(users, fcntl.LOCK_SH)
            except BaseException:
                os.close(users)
                raise
            return EmbeddedPostgres(state_dir, data, account, running.sockets, users)
    except OSError as error:
        raise Unreachable(
            f"the embedded Postgres in {state_dir} can't be started: {error}",
            remedy="give this account the right to the state folder, name another by state_dir, or set control.dsn",
        ) from error


def _leave(state_dir: Path, data: Path, account: Account, users: int) -> None:
    """Blocking: give up the shared lock; stop the server when it was the last one."""
    try:
        with _alone(state_dir, create=True):
            # Turning a shared lock into an exclusive one fails at once while others hold theirs.
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            _stop(data, account)
    finally:
        os.close(users)


@contextmanager
def _alone(state_dir: Path, *, create: bool) -> Iterator[None]:
    """The start lock: nobody else starts or stops the server meanwhile."""
    if not create and cluster.located(state_dir) is None:
        cluster.made(state_dir, create=False)  # raises StateMissing before a lock file is left in an empty folder
    lock = _open(state_dir / "postgres.start", state_dir)
    deadline = time.monotonic() + _PATIENCE + 15
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"another process has been starting or stopping the embedded Postgres in {state_dir} for long",
                        remedy=f"end the process that holds {state_dir / 'postgres.start'} (`fuser` shows it)",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _open(path: Path, state_dir: Path) -> int:
    """Open a lock file, made where it is missing: for the state folder's owner, also where root makes it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        owner = state_dir.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor


def _postmaster(data: Path) -> _Postmaster | None:
    """The server of this data folder, None when none runs: line 1 is its process, line 5 the socket's folder."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    pid = int(lines[0])
    if not _is_server(pid, data):
        return None
    sockets = Path(lines[4].strip()) if len(lines) > 4 and lines[4].strip() else None
    if sockets is None:  # it has just begun and not written that far
        raise _unreachable(data, "has not finished starting")
    return _Postmaster(pid, sockets)


def _is_server(pid: int, data: Path) -> bool:
    """Whether that process lives and is the server: in a container that was started anew, numbers soon come again.

    In doubt it is: taking a living server for a dead one would put two on the same files.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's: the server belongs to the account that we are or to one that root may signal
    process = Path(f"/proc/{pid}")
    if not process.exists():  # no Linux
        return True
    try:
        return process.joinpath("cwd").samefile(data)  # the server works in its data folder
    except PermissionError:  # root in a container without the right to look into others' processes
        return b"postgres" in process.joinpath("cmdline").read_bytes().split(b"\0")[0]
    except FileNotFoundError:
        return False


def _adopted(data: Path, account: Account) -> _Postmaster | None:
    """The server that runs already, once it accepts connections."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        running = _settled(data)
        if running is None:
            return None
        if _accepts(account, data, running):
            return running
        time.sleep(0.05)
    raise _unreachable(data, "runs and does not accept connections")


def _settled(data: Path) -> _Postmaster | None:
    for _ in range(20):
        try:
            return _postmaster(data)
        except Unreachable:
            time.sleep(0.05)
    return _postmaster(data)


def _accepts(account: Account, data: Path, running: _Postmaster) -> bool:
    binaries = installation(account, cluster.version_of(data))
    command = [str(binaries / "bin" / "pg_isready"), "-q", "-h", str(running.sockets), "-p", "5432", "-t", "3"]
    with tempfile.TemporaryFile() as output:
        return run(account, command, output=output, seconds=10) == 0


def _started(data: Path, account: Account) -> _Postmaster:
    _forget_the_dead(data)
    sockets = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SOCKETS))
    try:
        if account.switch:
            os.chown(sockets, account.uid, account.gid)
        log = data / "server.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        start = ("start", "-l", str(log), "-o", f"-k {sockets}")
        code, said = _pg_ctl(account, data, *start)
        if code != 0:  # the backends of a server that was killed take a moment to notice, and block the next one
            time.sleep(1)
            code, said = _pg_ctl(account, data, *start)
        running = _settled(data) if code == 0 else None
        if running is None:
            raise _unreachable(data, f"did not start (pg_ctl ended with {code}: {said})")
    except BaseException:
        shutil.rmtree(sockets, ignore_errors=True)
        raise
    return running


def _forget_the_dead(data: Path) -> None:
    """Remove what a killed server left: its sockets and, where its number is another process's now, `postmaster.pid`.

    Postgres itself deals with the number of a dead process, and better: it also looks for surviving backends.
    """
    note = data / "postmaster.pid"
    try:
        lines = note.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    if len(lines) > 4 and lines[4].strip():
        _remove_sockets(Path(lines[4].strip()))
    if not lines or not lines[0].strip().isdigit() or Path(f"/proc/{lines[0].strip()}").exists():
        note.unlink()


def _remove_sockets(folder: Path) -> None:
    """Remove a socket folder of ours; anything else that the file may name is left alone."""
    if folder.parent == _SOCKETS and folder.name.startswith(_PREFIX) and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def _stop(data: Path, account: Account) -> None:
    running = _settled(data)
    if running is None:
        return
    code, said = _pg_ctl(account, data, "stop", "-m", "fast")
    if code != 0 and _settled(data) is not None:
        raise _unreachable(data, f"did not stop (pg_ctl ended with {code}: {said})")
    _remove_sockets(running.sockets)


def _pg_ctl(account: Account, data: Path, *words: str) -> tuple[int, str]:
    """Run pg_ctl to the end of what it does; returns its exit code and what it said, on one line."""
    binaries = installation(account, cluster.version_of(data))
    command = [str(binaries / "bin" / "pg_ctl"), "-D", str(data), "-s", "-w", "-t", str(int(_PATIENCE)), *words]
    with tempfile.TemporaryFile() as output:
        code = run(account, command, output=output, seconds=_PATIENCE + 10)
        output.seek(0)
        return code, " ".join(output.read().decode(errors="replace").split())


def _unreachable(data: Path, what: str) -> Unreachable:
    log = data / "server.log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            tail = file.read().decode(errors="replace").strip()
    except OSError:
        tail = "(none)"
    return Unreachable(
        f"the embedded Postgres in {data} {what}; the end of its log:\n{tail}",
        remedy=f"see {log}; or set control.dsn to a Postgres of your own",
    )
