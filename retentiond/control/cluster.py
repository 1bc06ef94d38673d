"""The data folder of the embedded Postgres: where it lies, and how a new one is made.

It is `postgres` in the state folder. As root, where the unprivileged account can't pass a folder above that (a state
folder of mode 0700), it is a folder of ours below /var/lib, and `postgres.location` in the state folder says which. A
new one is made under another name and moved into place, so that a failed attempt leaves nothing that looks like state.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from retentiond.control.installation import (
    ROOT_FOLDER,
    Account,
    can_enter,
    current_account,
    installation,
    make_passable,
    run,
)
from retentiond.errors import NoState, Unreachable

__all__ = ["USER", "located", "made", "version_of"]

USER = "retentiond"
"""The server's superuser, and the name of the database."""

_FOLDER = "postgres"
_LOCATION = "postgres.location"

# Small: the control state is thousands of rows, and the daemon shares its machine. No replicas, hence minimal WAL.
_SETTINGS = """\
# Written by retentiond when it made this folder; free to be changed.
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 64MB
max_wal_size = 512MB
wal_level = minimal
max_wal_senders = 0
max_parallel_workers_per_gather = 0
jit = off
fsync = on
synchronous_commit = on
full_page_writes = on
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
log_line_prefix = '%m [%p] '
"""

# Trust: the socket lies in a folder of mode 0700, which only the server's own account and root can pass, and both could
# change the data files as well. A password or `peer` would keep out nobody else.
_AUTHENTICATION = f"local all {USER} trust\n"


def located(state_dir: Path) -> Path | None:
    """The data folder of this state folder, None when there is none yet.

    Raises `Unreachable` when the state folder speaks of one that isn't there: a new one in its place lacks the holds.
    """
    here = state_dir / _FOLDER
    note = state_dir / _LOCATION
    data = here if here.exists() or not note.exists() else Path(note.read_text(encoding="utf-8").strip())
    if (data / "PG_VERSION").exists():
        return data
    if data == here and not here.exists():
        return None
    raise Unreachable(
        f"{data} should be the data folder of the embedded Postgres and is not",
        remedy=f"restore it; only if its holds and evidence are given up for lost, remove {here} and {note}",
    )


def version_of(data: Path) -> int:
    """The major version of Postgres that the data folder was made by."""
    return int((data / "PG_VERSION").read_text(encoding="utf-8").strip())


def made(state_dir: Path, *, create: bool, copies: Path | None = None) -> tuple[Path, Account]:
    """The data folder and the account that runs it; made where there is none and `create` says so.

    To be called under the start lock. Raises `NoState` when there is none and none may be made.
    """
    data = located(state_dir)
    if data is not None:
        return data, current_account(data, copies)
    if not create:
        raise NoState(
            f"there is no control state in {state_dir}",
            remedy="run `retentiond run` first, or set control.dsn or state_dir to the daemon's",
        )
    account = current_account(None, copies)
    if not account.switch or can_enter(account, state_dir):
        return _initialised(account, state_dir / _FOLDER), account
    data = _initialised(account, _elsewhere(state_dir))
    _write_note(state_dir / _LOCATION, data)
    return data, account


def _elsewhere(state_dir: Path) -> Path:
    # Named after the state folder, for people, and never the same twice: a state folder that was removed and made again
    # must not come upon what the old one left.
    mark = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16]
    make_passable(ROOT_FOLDER)
    return ROOT_FOLDER / f"{mark}-{os.urandom(4).hex()}"


def _write_note(note: Path, data: Path) -> None:
    draft = note.with_suffix(".draft")
    draft.write_text(f"{data}\n", encoding="utf-8")
    draft.rename(note)


def _initialised(account: Account, data: Path) -> Path:
    """Make a data folder at `data`, which does not exist; on any failure nothing is left of it."""
    binaries = installation(account)
    draft = data.with_name(f".{data.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a process killed meanwhile; we have the start lock
    draft.mkdir(mode=0o700)
    try:
        if account.switch:
            os.chown(draft, account.uid, account.gid)
        _initdb(account, binaries, draft)
        _write_as(account, draft / "postgresql.conf", _SETTINGS)
        _write_as(account, draft / "pg_hba.conf", _AUTHENTICATION)
        draft.rename(data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return data


def _initdb(account: Account, binaries: Path, data: Path) -> None:
    command = [str(binaries / "bin" / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "-k"]
    with tempfile.TemporaryFile() as output:
        code = run(account, [*command, "--locale=C.UTF-8"], output=output, seconds=120)
        if code != 0 and b"locale" in _read(output):  # some systems have no C.UTF-8
            code = run(account, [*command, "--locale=C"], output=output, seconds=120)
        if code != 0:
            text = _read(output).decode(errors="replace").strip()[-2000:]
            raise Unreachable(
                f"the embedded Postgres can't make its data folder (initdb ended with {code}): {text}",
                remedy="mend what it names (disk space, rights), or set control.dsn to a Postgres of your own",
            )


def _read(output: IO[bytes]) -> bytes:
    output.seek(0)
    return output.read()


def _write_as(account: Account, path: Path, text: str) -> None:
    # Anew rather than into initdb's file: the folder is private, so nothing can be put in the way.
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    if account.switch:
        os.chown(path, account.uid, account.gid)
