"""One file, read line by line: judged, and where lines of it are due what is kept written beside it.

All of it is done by steps that wait for nothing but the disk, for a thread to take; between two of them the account
directory is asked about accounts that were met for the first time. What is kept goes to a file of our own in the same
folder, begun only where a line is due and another is not: nothing is written for a file that stays or goes whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from typing import Final
from uuid import uuid4

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally
from retentiond.stores.files.changing import Changing, Unchangeable
from retentiond.stores.files.folder import Changed, Entry, Folder, Mark
from retentiond.stores.files.formats import Columns, Format
from retentiond.stores.files.lines import BLOCK, Block, Part, blocks
from retentiond.stores.files.packing import Packed, is_as_written, packing_of, unpacked
from retentiond.stores.files.sieve import Sieve, Sums, unread
from retentiond.stores.judging import plus
from retentiond.stores.rulings import Account

_STEP: Final = 8
"""Blocks of a step, so that a sweep that is to stop does so within a moment."""
_RESERVE: Final = 1 << 26
_SLACK: Final = 2
"""Packed anew a file may be larger than it was, where others packed it with more patience."""


class NoSpace(Exception):
    """There is not enough room for what is to be kept of a file."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file that is ready to go: whole (`after` None), or to be replaced by the file `part`, which `fd` keeps locked.

    `flags` is a digest of which lines go.
    """

    entry: Entry
    sums: Sums
    flags: str
    part: str = ""
    after: Mark | None = None
    fd: int = -1


class Work:
    """A file being read; `advance` until it is over, then `result`. To be closed, which undoes what was not taken."""

    def __init__(
        self, folder: Folder, entry: Entry, format_: Format, sieve: Sieve, *, prefix: str, changing: Changing | None
    ) -> None:
        """`prefix`: what the name of the file that is made begins with; empty: none is made, and all is counted."""
        self._folder, self.entry, self._format, self._sieve = folder, entry, format_, sieve
        self._prefix, self._changing = prefix, changing
        self._stack = ExitStack()
        self._fd = -1
        self._items: Iterator[Block | Part] | None = None
        self._waiting: tuple[Block, list[bytes], Columns] | None = None
        self.sums, self.counted = Sums(), Tally()
        self._flags = hashlib.sha256()
        self._kept = 0
        self._first_due = False
        self._part, self._part_fd = "", -1
        self._packed: Packed | None = None

    def advance(self) -> set[Account] | None:
        """Go on for a while: the accounts to be asked about before it is gone on; None: all is read.

        Raises Changed, Damaged, NoSpace, OSError.
        """
        if self._items is None:
            self._fd = self._stack.enter_context(self._folder.opened(self.entry))
            self._items = blocks(self._stack.enter_context(unpacked(self._fd, packing_of(self.entry.name))))
        if self._waiting is not None:
            self._judge(*self._waiting)
            self._waiting = None
        for _ in range(_STEP):
            item = next(self._items, None)
            if item is None:
                if self._prefix and Mark.of(os.fstat(self._fd)) != self.entry.mark:
                    raise Changed
                return None
            if isinstance(item, Part):
                self._pass(item)
                continue
            lines = item.lines()
            columns = self._format.columns(item.content, lines)
            if lacking := self._sieve.lacking(columns):
                self._waiting = (item, lines, columns)
                return lacking
            self._judge(item, lines, columns)
        return set()

    def result(self) -> Made | None:
        """What is ready to go now that all is read; None where nothing is due. Raises OSError, NoSpace."""
        if not self.sums.due.total():
            return None
        if self._packed is None:
            if self._kept:
                self._begin()
            else:
                return Made(self.entry, self.sums, self._flags.hexdigest())
        packed = self._packed
        assert packed is not None
        packed.finish()
        os.fsync(self._part_fd)
        if not is_as_written(self._part_fd, packed):
            raise OSError(errno.EIO, "what was written is not what is read back")
        told = os.fstat(self._fd)
        os.utime(self._part_fd, ns=(told.st_atime_ns, told.st_mtime_ns))
        made = Made(
            self.entry, self.sums, self._flags.hexdigest(), self._part, Mark.of(os.fstat(self._part_fd)), self._part_fd
        )
        self._packed, self._part, self._part_fd = None, "", -1
        return made

    def close(self) -> None:
        """Give up what is at hand."""
        if self._packed is not None:
            self._packed.give_up()
        if self._part:
            discard(self._folder, self._part, self._part_fd)
        self._part, self._part_fd = "", -1
        self._stack.close()

    def _judge(self, block: Block, lines: list[bytes], columns: Columns) -> None:
        if not self._prefix:
            self._count(lines, columns)
            return
        flags, exactly, judged = self._sieve.due(columns)
        changed = self._changes(lines, flags) if self._changing is not None and True in flags else {}
        self._sieve.add(self.sums, columns, flags, exactly, judged)
        self._flags.update(bytes(flags))
        if True not in flags:
            self._keep(block.content[:-1] if block.torn else block.content)
            return
        if self._packed is None and self._kept:
            self._begin()
        self._first_due = True
        if changed:
            self._keep_changed(block, lines, changed)
            return
        kept = list(compress(lines, map(not_, flags)))
        content = b"\n".join(kept) + b"\n" if kept else b""
        self.sums.bytes += len(block.content) - len(content)
        self._keep(content[:-1] if block.torn and content and not flags[-1] else content)

    def _changes(self, lines: list[bytes], flags: list[bool]) -> dict[int, bytes]:
        """The lines that are due as they are to be; those that are so already, or can't be, are due no more."""
        assert self._changing is not None
        changed: dict[int, bytes] = {}
        for at, flag in enumerate(flags):
            if not flag:
                continue
            try:
                found = self._changing.changed(lines[at])
            except Unchangeable:
                self.sums.failed += 1
                found = None
            if found is None:
                flags[at] = False
            else:
                changed[at] = found
        return changed

    def _keep_changed(self, block: Block, lines: list[bytes], changed: dict[int, bytes]) -> None:
        self.sums.bytes += sum(len(lines[at]) + 1 for at in changed)
        content = b"\n".join([changed.get(at, line) for at, line in enumerate(lines)]) + b"\n"
        self._keep(content[:-1] if block.torn else content)

    def _count(self, lines: list[bytes], columns: Columns) -> None:
        sizes = [len(line) + 1 for line in lines]
        judged = self._sieve.exact(columns, sizes)
        if self._changing is not None and judged.due:
            flags = [False] * len(lines)
            for at in judged.due:
                flags[at] = True
            before = list(flags)
            self._changes(lines, flags)
            judged = self._sieve.exact(
                columns, sizes, [was and not now for was, now in zip(before, flags, strict=True)]
            )
        found = replace(judged.tally, next_due=rfc3339(judged.next_due) if judged.next_due is not None else None)
        self.counted = plus(self.counted, found)
        self.sums.lines += len(lines)

    def _pass(self, part: Part) -> None:
        """A line that is too long to be read stays."""
        if part.last:
            self.sums.lines += 1
            self.sums.unresolved += 1
            self._flags.update(b"\0")
            self.counted = unread(1, self.counted)
        if self._prefix:
            self._keep(part.content)

    def _keep(self, content: bytes) -> None:
        if content and self._first_due and self._packed is None:
            self._begin()
        if self._packed is not None:
            self._packed.write(content)
        self._kept += len(content)

    def _begin(self) -> None:
        """Begin the file of what is kept, with all that was kept so far; raises NoSpace, OSError."""
        told = os.fstat(self._fd)
        packing = packing_of(self.entry.name)
        needed = told.st_size * (_SLACK if packing else 1)
        if self._folder.free() < needed + min(_RESERVE, needed):
            raise NoSpace
        self._part = f"{self._prefix}{uuid4().hex}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._part_fd = os.open(self._part, flags, 0o600, dir_fd=self._folder.fd)
        fcntl.flock(self._part_fd, fcntl.LOCK_EX)
        _as_like(self._fd, self._part_fd, told)
        self._packed = Packed(self._part_fd, packing)
        if not self._kept:
            return
        left = self._kept
        with self._folder.opened(self.entry) as fd, unpacked(fd, packing) as read:
            while left and (content := read(min(left, BLOCK))):
                self._packed.write(content[:left])
                left -= len(content[:left])
        if left:
            raise Changed


def discard(folder: Folder, name: str, fd: int) -> None:
    """Throw away a file that was made; what can't be thrown away is found by the next sweep."""
    try:
        os.unlink(name, dir_fd=folder.fd)
    except FileNotFoundError:
        pass
    finally:
        if fd >= 0:
            os.close(fd)


def _as_like(source: int, target: int, told: os.stat_result) -> None:
    """Owner, mode and extended attributes (among them ACLs) as the other file has them; raises OSError."""
    made = os.fstat(target)
    if (made.st_uid, made.st_gid) != (told.st_uid, told.st_gid):
        os.fchown(target, told.st_uid, told.st_gid)
    for name in _attributes(source):
        os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, told.st_mode & 0o7777)


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise
