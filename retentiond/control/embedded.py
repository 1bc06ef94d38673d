"""The embedded Postgres: the daemon's own state on a machine that has no database to offer.

What lives here: the life of one server for one state folder. What must hold:

- Several processes (the daemon, a command beside it) share one server. Each keeps a shared lock on `postgres.users`
  for as long as it uses it; starting and stopping happen under the exclusive lock `postgres.lock`; whoever leaves last
  stops the server. A `kill -9` drops the locks and leaves the server, which the next process adopts.
- Nothing else on the machine changes. As root the server runs as an unprivileged account (see `installation`); where
  that account can't enter the state folder, the data go to `/var/lib/retentiond-embedded`, and `postgres.location`
  says so.
- Sockets only, in a private folder with a short path (a socket's path has 107 bytes at most). Authentication is `trust`
  on that socket alone: the folder has mode 0700, so only the account itself and root get that far, and both can read
  the data files anyway; a password would have to lie next to them.

All of it blocks, so it runs in a thread; the event loop only waits for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from retentiond.control.installation import ROOT_FOLDER, Account, can_enter, current_account, installation, run
from retentiond.errors import StateMissing, Unreachable

__all__ = ["EmbeddedPostgres"]

SUPERUSER = "retentiond"
DATABASE = "postgres"
PATIENCE = 60.0
"""Seconds for a start (crash recovery included), a stop, and the wait for another process that does one of them."""

LOG_LIMIT = 10 * 1024 * 1024
"""Bytes after which the log is put aside (one generation) when the server starts."""

_PREFIX = "retentiond-"
_NO_SERVER = 3  # pg_ctl status

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "logging_collector": "off",
    "log_destination": "stderr",
}


class EmbeddedPostgres:
    """A running embedded server, shared with every process that uses the same state folder."""

    def __init__(self, cluster: _Cluster, sockets: Path) -> None:
        self._cluster: _Cluster | None = cluster
        self._sockets = sockets

    @classmethod
    async def start(cls, state_dir: Path, *, create: bool) -> EmbeddedPostgres:
        """Start the server of `state_dir`, or join the one that runs; make the folder and the data when `create`.

        Raises `StateMissing` when there are no data and `create` is false, `UsageError` when the extra `embedded` is
        not installed, and `Unreachable`, with the end of the server's log, when it can't be started.
        """
        cluster = _Cluster(Path(os.path.abspath(state_dir)))  # noqa: PTH100 - `absolute` leaves `..` in place
        opening = asyncio.ensure_future(asyncio.to_thread(cluster.open, create=create))
        try:
            sockets = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread can't be cancelled: wait for it and give back what it took.
            with suppress(Exception):
                await opening
                await asyncio.to_thread(cluster.close)
            raise
        return cls(cluster, sockets)

    @property
    def dsn(self) -> str:
        """Where to connect: a superuser, on the private socket."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={self._sockets}"

    async def stop(self) -> None:
        """Leave the server; stop it when nobody else uses it. A second call does nothing."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await asyncio.shield(asyncio.to_thread(cluster.close))


class _Cluster:
    """What `EmbeddedPostgres` does, blocking."""

    def __init__(self, state_dir: Path) -> None:
        self._state = state_dir
        self._note = state_dir / "postgres.location"
        self._log = state_dir / "postgres.log"
        self._users: IO[bytes] | None = None
        self._data = state_dir / "postgres"
        self._account: Account | None = None
        self._bin = Path()

    def open(self, *, create: bool) -> Path:
        """Take part in the server, starting it where necessary. Returns the folder of its socket."""
        try:
            self._locate()
            if not create and not self._exists():
                raise StateMissing(
                    f"there is no control state in {self._state} yet",
                    remedy="start `retentiond run` or `retentiond sweep` first, or set state.dir or control.dsn",
                )
            self._state.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            with self._starting():
                return self._open_alone()
        except OSError as error:
            raise Unreachable(
                f"the embedded Postgres in {self._state} can't be started: {error}",
                remedy="give this account the right to read and write that folder, or set control.dsn",
            ) from error

    def _open_alone(self) -> Path:
        self._locate()  # again: another process may have made the data in the meantime
        self._account = current_account(self._data if self._exists() else None)
        users = (self._state / "postgres.users").open("ab")
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            if not self._exists():
                self._make()
            self._bin = installation(self._account, self._version()) / "bin"
            sockets = self._adopted() or self._started()
        except BaseException:
            users.close()
            raise
        self._users = users
        return sockets

    def close(self) -> None:
        """Leave; the last one stops the server."""
        users, self._users = self._users, None
        if users is None:
            return
        try:
            with self._starting():
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return  # somebody else still uses it
                self._halt()
        finally:
            users.close()

    # -- where the data are ------------------------------------------------------------------------------------------

    def _locate(self) -> None:
        if self._note.exists():
            self._data = Path(self._note.read_text(encoding="utf-8").strip())

    def _exists(self) -> bool:
        return (self._data / "PG_VERSION").exists()

    def _version(self) -> int:
        return int((self._data / "PG_VERSION").read_text(encoding="ascii").partition(".")[0])

    def _make(self) -> None:
        """Make the data folder beside its final place and move it there when it is whole."""
        account = self._owner()
        binaries = installation(account) / "bin"
        elsewhere = account.switch and not self._note.exists() and not can_enter(account, self._state)
        if elsewhere:
            self._data = self._place_for_root()
        try:
            draft = self._data.with_name(f"{self._data.name}.new")
            shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed: we hold the lock
            try:
                self._initialise(account, binaries, draft)
                draft.rename(self._data)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            if elsewhere:
                self._note.write_text(f"{self._data}\n", encoding="utf-8")
        except BaseException:
            if elsewhere:
                shutil.rmtree(self._data.parent, ignore_errors=True)
                self._data = self._state / "postgres"
            raise

    def _place_for_root(self) -> Path:
        """A folder of its own for this state folder: never one that data of an earlier state folder still use."""
        name = hashlib.sha256(os.fsencode(self._state)).hexdigest()[:16]
        home = ROOT_FOLDER / name
        while home.exists():
            home = ROOT_FOLDER / f"{name}-{secrets.token_hex(3)}"
        home.mkdir(mode=0o755, parents=True)
        return home / "postgres"

    def _initialise(self, account: Account, binaries: Path, draft: Path) -> None:
        draft.mkdir(mode=0o700)
        if account.switch:
            os.chown(draft, account.uid, account.gid)
        options = ["-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--data-checksums"]
        options += ["--auth-local=trust", "--auth-host=reject"]
        with self._log.open("ab") as log:
            code = run(account, [str(binaries / "initdb"), "-D", str(draft), *options], output=log, seconds=PATIENCE)
        if code != 0:
            raise self._failure("initdb", code)

    # -- the server --------------------------------------------------------------------------------------------------

    def _adopted(self) -> Path | None:
        """The socket folder of the server that already runs on the data, None when there is none."""
        self._forget_a_stranger()
        deadline = time.monotonic() + PATIENCE
        while self._pg_ctl("status") != _NO_SERVER:
            lines = self._pid_file()
            if len(lines) >= 8 and lines[7].strip() == "ready":
                sockets = Path(lines[4])
                if (sockets / f".s.PGSQL.{lines[3]}").exists():
                    return sockets
                self._halt()  # its socket was deleted: nobody can reach it any more
                return None
            if time.monotonic() > deadline:
                raise self._failure("pg_ctl status", 124)
            time.sleep(0.05)  # it is starting, or stopping
        self._remove_sockets()
        return None

    def _started(self) -> Path:
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT:
            self._log.replace(self._log.with_name("postgres.log.1"))
        account = self._owner()
        sockets = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))  # noqa: S108 - short, private (0700), ours
        if account.switch:
            os.chown(sockets, account.uid, account.gid)
        settings = _SETTINGS | {"unix_socket_directories": str(sockets)}
        options = shlex.join(
            ["-p", "5432", *(part for key, value in settings.items() for part in ("-c", f"{key}={value}"))]
        )
        code = self._pg_ctl("start", "-w", "-t", f"{PATIENCE:.0f}", "-o", options)
        if code != 0:
            shutil.rmtree(sockets, ignore_errors=True)
            raise self._failure("pg_ctl start", code)
        return sockets

    def _halt(self) -> None:
        lines = self._pid_file()
        code = 0
        for mode in ("fast", "immediate"):  # immediate: nothing is lost, the next start recovers
            code = self._pg_ctl("stop", "-w", "-t", f"{PATIENCE / 2:.0f}", "-m", mode)
            if code == 0 or self._pg_ctl("status") == _NO_SERVER:
                self._remove_sockets(lines)
                return
        raise self._failure("pg_ctl stop", code)

    def _pg_ctl(self, action: str, *arguments: str) -> int:
        command = [str(self._bin / "pg_ctl"), action, "-D", str(self._data), "-s", *arguments]
        with Path(os.devnull).open("wb") if action == "status" else self._log.open("ab") as output:
            return run(self._owner(), command, output=output, seconds=PATIENCE + 5)

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _forget_a_stranger(self) -> None:
        """Remove the pid file of a dead server whose number another process has by now.

        Containers start counting anew, so that number is often ours, and Postgres would refuse to start. A server's
        working directory is its data folder; where there is no /proc, Postgres' own check has to do.
        """
        lines = self._pid_file()
        if not lines or not Path("/proc/self/cwd").exists():
            return
        with suppress(ProcessLookupError, FileNotFoundError):
            try:
                theirs = Path(f"/proc/{int(lines[0])}/cwd").readlink() != self._data.resolve()
            except PermissionError:
                theirs = True  # our own processes we may read
            if theirs:
                self._remove_sockets(lines)
                (self._data / "postmaster.pid").unlink()

    def _remove_sockets(self, lines: list[str] | None = None) -> None:
        """Remove the socket folder that a pid file names, if it is one of those that `_started` makes."""
        lines = self._pid_file() if lines is None else lines
        folder = Path(lines[4]) if len(lines) > 4 and lines[4] else None
        if folder is None or folder.parent != Path("/tmp") or not folder.name.startswith(_PREFIX):
            return
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == self._owner().uid:
            shutil.rmtree(folder, ignore_errors=True)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _owner(self) -> Account:
        assert self._account is not None
        return self._account

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Hold the lock under which the server starts and stops; `Unreachable` when another process keeps it."""
        deadline = time.monotonic() + 2 * PATIENCE
        with (self._state / "postgres.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Unreachable(
                            f"another process has been starting or stopping the embedded Postgres in {self._state} "
                            f"for {2 * PATIENCE:.0f} s",
                            remedy=f"look for it with `fuser {self._state / 'postgres.lock'}`",
                        ) from None
                    time.sleep(0.02)
                else:
                    break
            yield

    def _failure(self, program: str, code: int) -> Unreachable:
        tail = ""
        if self._log.exists():
            tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        return Unreachable(
            f"the embedded Postgres in {self._data}: {program} ended with {code}. The end of {self._log}:\n{tail}",
            remedy="mend what the log says, or set control.dsn to a Postgres of your own",
        )
