"""The folder of a target: its files by name, opened by nothing but the folder's own descriptor, and never through a
link.

A path is resolved once; after that files are reached by their names in the folder that is open, so that nothing that is
put in the way of the path leads out of it. Names are bytes (any but `/`); as texts they have surrogates, and a position
in a walk is percent-encoded, since JSON carries neither.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from retentiond.errors import Blind, Unreachable

PRIVATE: Final = ".retentiond-"
"""What the names of our own files begin with; a wildcard does not match a leading dot."""
_REMEDY = "see that the folder exists, and may be read and written by the user of this process"


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a file from another, and from itself before a change."""

    dev: int
    ino: int
    size: int
    mtime: int

    @classmethod
    def of(cls, found: os.stat_result) -> Mark:
        """From what the system says."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def document(self) -> list[int]:
        """As JSON."""
        return [self.dev, self.ino, self.size, self.mtime]


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of the target as it was met in the folder."""

    name: str
    mark: Mark
    links: int

    @property
    def shown(self) -> str:
        """The name for messages: on one line, whatever is in it."""
        return shown(self.name)


def shown(name: str) -> str:
    """A name for messages: on one line, whatever is in it."""
    plain = name.isprintable() and not any("\udc80" <= c <= "\udcff" for c in name)
    return name if plain else ascii(name)


def position_of(name: str) -> str:
    """The name as a walk's position."""
    return quote_from_bytes(os.fsencode(name))


def name_at(position: str) -> str:
    """The name of a position."""
    return os.fsdecode(unquote_to_bytes(position))


class Folder:
    """An open folder."""

    def __init__(self, path: str, pattern: str) -> None:
        """`path`: of the folder, `pattern` of the names that are taken of it. Raises Unreachable, Blind."""
        self.path, self._given, self._pattern = os.path.realpath(path), path, pattern
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError as error:
            raise Blind(f"folder {shown(path)} may not be opened", remedy=_REMEDY) from error
        except OSError as error:
            raise Unreachable(f"folder {shown(path)} can't be opened: {error.strerror}", remedy=_REMEDY) from error

        # Whoever works in it keeps it: a number that is closed under a thread would soon be another folder's.
        self._closing = weakref.finalize(self, os.close, self.fd)

    def close(self) -> None:
        """Give it up at once; else it is when nobody has it any more."""
        self._closing()

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the folder."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino

    @property
    def same(self) -> bool:
        """Whether its path, as it is configured, still leads to it: a link may lead elsewhere by now."""
        try:
            there, mine = Path(self._given).stat(), os.fstat(self.fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def entries(self) -> tuple[list[Entry], list[str]]:
        """The target's files in the order of their names' bytes; and names that fit and are no regular files.

        Raises Unreachable, Blind.
        """
        files: list[Entry] = []
        others: list[str] = []
        try:
            with os.scandir(self.fd) as found:
                for each in found:
                    if not self.fits(each.name):
                        continue
                    if not each.is_file(follow_symlinks=False):
                        others.append(each.name)
                        continue
                    try:
                        told = each.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # gone since
                    files.append(Entry(each.name, Mark.of(told), told.st_nlink))
        except PermissionError as error:
            raise Blind(f"folder {shown(self.path)} may not be read", remedy=_REMEDY) from error
        except OSError as error:
            raise Unreachable(f"folder {shown(self.path)} can't be read: {error.strerror}", remedy=_REMEDY) from error
        files.sort(key=lambda entry: os.fsencode(entry.name))
        return files, sorted(others)

    def fits(self, name: str) -> bool:
        """Whether a name is of the target."""
        if name.startswith(".") and not self._pattern.startswith("."):
            return False
        return not name.startswith(PRIVATE) and fnmatch.fnmatchcase(name, self._pattern)

    def all_names(self) -> list[str]:
        """Whatever is in it."""
        return os.listdir(self.fd)  # noqa: PTH208 - of an open folder, which pathlib does not know

    def private(self, prefix: str) -> list[str]:
        """The names of our own files that begin so."""
        return sorted(name for name in self.all_names() if name.startswith(prefix))

    def entry(self, name: str) -> Entry | None:
        """The regular file of that name as it is now; None where there is none."""
        try:
            told = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return Entry(name, Mark.of(told), told.st_nlink) if stat.S_ISREG(told.st_mode) else None

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[int]:
        """The file's descriptor, to read; raises Changed where another is there by now, and OSError."""
        fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            if Mark.of(os.fstat(fd)) != entry.mark:
                raise Changed
            yield fd
        finally:
            os.close(fd)

    def free(self) -> int:
        """How many bytes may still be written to its file system."""
        found = os.fstatvfs(self.fd)
        return found.f_bavail * found.f_frsize


class Changed(Exception):
    """The file is no longer as it was met."""
