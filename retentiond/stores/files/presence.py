"""A worker's presence in a folder: a lock file, locked from before the permit is asked for until the outcome is
written.

The lock (flock) is of the open file, so that it lasts as long as the process, stopped or not, and is gone with it,
however it dies. The file has a line of its own for each of the last batches, which stands in the permit with the file's
number: who asks must find just that file with that line before a free lock says anything. A folder that only looks the
same (on another machine, a copy of the disk) tells nothing. Lines of earlier batches stay: a permit may be open
still, and where the lock is free nobody is at work under any of them.

On a file system of a network the server may take a lock from a client that it can't hear, which lives; a folder that a
hypervisor shares may be another machine's too, whose locks are not seen here. On all but local ones a free lock is no
proof, and only an operator's word ends the wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from retentiond.errors import Blind, Unreachable
from retentiond.stores.files.folder import PRIVATE, Folder, shown

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES: Final = 8
_LENGTH: Final = 4096
_KEPT: Final = 64
"""Lines of so many batches stand in the file; of an older one an operator has to speak."""
_LOCAL: Final = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "nilfs2", "bcachefs", "tmpfs", "overlay"]
)
"""The file systems whose locks are this kernel's to keep. Of any other (a network's, a hypervisor's folder, FUSE, one
that is new) it is not known whose they are."""


class Presence:
    """The lock file of one target, while this worker has it."""

    def __init__(self, folder: Folder, target: str) -> None:
        self._folder, self._name = folder, lock_name(target)
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this worker is there."""
        return self._fd >= 0

    def take(self) -> Mapping[str, Any]:
        """Be there; what it can be told by. Raises Unreachable where another worker is, Blind, OSError."""
        for _ in range(_TRIES):
            fd = os.open(self._name, _FLAGS | os.O_CREAT, 0o600, dir_fd=self._folder.fd)
            try:
                if not _locked(fd):
                    raise Unreachable(
                        f"another worker has {self._name} in {shown(self._folder.path)}",
                        remedy="nothing to do: it is tried again; end that process where it does nothing any more",
                    )
                if self._is_at_its_name(fd):
                    token = _marked(fd, uuid4().hex)
                    self._fd, fd = fd, -1
                    found = os.fstat(self._fd)
                    return {"lock": [found.st_dev, found.st_ino], "token": token}
            finally:
                if fd >= 0:
                    os.close(fd)
        raise Unreachable(f"{self._name} in {shown(self._folder.path)} is replaced again and again")

    def leave(self) -> None:
        """Be there no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def gone(self, attended: Mapping[str, Any] | None) -> bool:
        """Whether the worker that could be told by that is gone; raises Blind, Unreachable where that is not told."""
        if attended is None:
            raise Blind("the permit does not say what its worker can be told by")
        try:
            fd = os.open(self._name, _FLAGS, dir_fd=self._folder.fd)
        except OSError as error:
            raise Unreachable(
                f"{self._name} in {shown(self._folder.path)} can't be opened ({error.strerror}), and nothing else "
                "tells whether the worker is there"
            ) from error
        try:
            if not _is_that(fd, attended):
                raise Unreachable(
                    f"{self._name} in {shown(self._folder.path)} is not the one that the worker has locked: this is "
                    "another folder, or somebody has replaced it"
                )
            if not _locked(fd):
                return False
        finally:
            os.close(fd)
        if (kind := network_kind(self._folder)) is not None:
            raise Unreachable(
                f"the lock in {shown(self._folder.path)} is free, but on a {kind} file system that does not show that "
                "its worker is gone"
            )
        return True

    def _is_at_its_name(self, fd: int) -> bool:
        mine = os.fstat(fd)
        if not stat.S_ISREG(mine.st_mode):
            raise Blind(f"{self._name} in {shown(self._folder.path)} is no file", remedy="remove it")
        try:
            there = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def lock_name(target: str) -> str:
    """The name of a target's lock file."""
    return f"{PRIVATE}{target}.lock"


def is_there(folder: Folder, target: str, attended: Mapping[str, Any] | None) -> bool:
    """Whether this is the folder in which a worker could be told by that; raises OSError."""
    if attended is None:
        return False
    try:
        fd = os.open(lock_name(target), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    except FileNotFoundError:
        return False
    try:
        return _is_that(fd, attended)
    finally:
        os.close(fd)


def part_prefix(target: str) -> str:
    """What the names of files begin with that are made ready for a target."""
    return f"{PRIVATE}{target}.part-"


def is_abandoned(folder: Folder, name: str) -> bool:
    """Whether a file that was made ready has nobody who writes it; only while this worker is there."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.fd)
    except OSError:
        return False
    try:
        return _locked(fd)
    finally:
        os.close(fd)


def network_kind(folder: Folder) -> str | None:
    """The kind of the folder's file system unless it is known for a local one; then None."""
    kind = _kind_of(folder)
    if kind is None:
        return "unknown"
    return None if kind in _LOCAL else kind


def _kind_of(folder: Folder) -> str | None:
    dev = os.fstat(folder.fd).st_dev
    wanted = f"{os.major(dev)}:{os.minor(dev)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    # proc(5): id, parent, major:minor, root, mount point, options, optional fields, "-", type, source, options.
    found = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == wanted and " - " in line]
    return found[-1] if found else _by_path(folder, lines)


def _by_path(folder: Folder, lines: list[str]) -> str | None:
    """By the longest mount point above it: some file systems (btrfs, overlays) have other numbers in their files."""
    best: tuple[int, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        inside = folder.path == point or folder.path.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= best[0]):
            best = (len(point), rest.split()[0])
    return best[1] if best else None


def _locked(fd: int) -> bool:
    """Lock it if nobody has it; it is free again when the file is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_that(fd: int, attended: Mapping[str, Any]) -> bool:
    """Whether it is the lock file that a worker could be told by."""
    found = os.fstat(fd)
    mine = stat.S_ISREG(found.st_mode) and [found.st_dev, found.st_ino] == list(attended["lock"])
    return mine and attended["token"] in (_tokens(fd) or [""])


def _tokens(fd: int) -> list[str]:
    """The lines of batches, the latest first."""
    return os.pread(fd, _LENGTH, 0).decode(errors="replace").splitlines()


def _marked(fd: int, token: str) -> str:
    """Write the line before those that stand there; the first one then. On a full disk that is what stood there: logs
    may be what has filled it.

    It must outlast a loss of power, or nobody could tell afterwards that it is the same file.
    """
    content = "".join(f"{each}\n" for each in [token, *_tokens(fd)][:_KEPT]).encode()
    try:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return next(iter(_tokens(fd)), "")
