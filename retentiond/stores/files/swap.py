"""Putting one file in the place of another, and taking one away, so that nothing else can go instead.

rename(2) replaces whatever is there at that moment, which a rotation may have put there a microsecond ago. So the two
are exchanged (`RENAME_EXCHANGE`), or the one is moved aside under a name of ours (`RENAME_NOREPLACE`); then it is seen
whether what came away is what was meant, and if not it is put back. See renameat2(2). A file system that can do
neither (NFS) is told by `guarded`: there a look right before has to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import Final

from retentiond.stores.files.folder import Changed, Folder, Mark

_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
_UNABLE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Swap:
    """What is to happen to the file `name`, which is `before`: gone, or replaced by the file `private` (`after`)."""

    name: str
    before: Mark
    private: str
    after: Mark | None


def carried_out(folder: Folder, swap: Swap) -> bool:
    """Do it, whole or not at all; returns whether it was guarded. Raises Changed and Undone with nothing done, OSError.

    What an OSError leaves is told by what stands at the two names.
    """
    _require(folder, swap.name, swap.before)
    try:
        _rename2(folder, swap, _EXCHANGE if swap.after is not None else _NOREPLACE)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise Undone(error.strerror) from error
        _unguarded(folder, swap)
        return False
    try:
        _require(folder, swap.private, swap.before)
    except Changed:
        _rename2(folder, swap, _EXCHANGE if swap.after is not None else _NOREPLACE, back=True)
        raise
    os.unlink(swap.private, dir_fd=folder.fd)
    return True


def put_back(folder: Folder, private: str, name: str) -> None:
    """Give a file its name back, unless another has it by now; raises OSError."""
    swap = Swap(name, Mark(0, 0, 0, 0), private, None)
    try:
        _rename2(folder, swap, _NOREPLACE, back=True)
    except FileExistsError:
        return  # it stays under the name of ours, and `check` says so


def taken_back(folder: Folder, private: str, name: str, after: Mark) -> bool:
    """Exchange what stands under a name of ours with the file `after` that took its place, which then goes.

    False, with nothing done, where another file has that name in this moment; raises OSError.
    """
    swap = Swap(name, Mark(0, 0, 0, 0), private, after)
    _rename2(folder, swap, _EXCHANGE, back=True)
    found = folder.entry(private)
    if found is None or found.mark != after:
        _rename2(folder, swap, _EXCHANGE)
        return False
    os.unlink(private, dir_fd=folder.fd)
    return True


class Undone(Exception):
    """The system refused it, and nothing was done."""


def _unguarded(folder: Folder, swap: Swap) -> None:
    _require(folder, swap.name, swap.before)
    if swap.after is None:
        os.unlink(swap.name, dir_fd=folder.fd)
    else:
        os.rename(swap.private, swap.name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)


def _require(folder: Folder, name: str, mark: Mark) -> None:
    found = folder.entry(name)
    if found is None or found.mark != mark or found.links != 1:
        raise Changed


def _rename2(folder: Folder, swap: Swap, how: int, *, back: bool = False) -> None:
    """renameat2; without it in the C library as if the kernel had not known how."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    source, target = (swap.private, swap.name) if back else (swap.name, swap.private)
    failed = call(folder.fd, os.fsencode(source), folder.fd, os.fsencode(target), ctypes.c_uint(how))
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
