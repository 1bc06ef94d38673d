"""Which files are being written, and so are left alone, whatever is due in them.

A file is taken for one where any of these says so: the configuration names it; it was changed a moment ago; a process
has it open for writing, as far as /proc shows. Where /proc does not show all processes (in a container, without root,
mounted with `hidepid`, on a file system that other machines write to), also every one that rotation does not show
to be closed: neither packed, nor of a name that a rotation gives beside a newer file of the name that it had before.
"""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from retentiond.stores.files.folder import Entry, Folder
from retentiond.stores.files.packing import SUFFIXES, packing_of
from retentiond.stores.files.presence import network_kind

_PROC: Final = Path("/proc")
# include/linux/proc_ns.h, PROC_PID_INIT_INO: the number of the namespace of processes that all others lie in.
_ALL_PROCESSES: Final = "pid:[4026531836]"
_SHOWN: Final = ("hidepid=0", "hidepid=off")
_ACCESS: Final = 0o3
_VARIES: Final = re.compile(r"[-_.]?\d+(?:[-_.T:]?\d+)*")
# A day, or a month, and a time of day; not any number, which may be a worker's.
_DATE: Final = (
    r"[-_.](?:19|20)\d{2}[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?"
    r"(?:[-_.T]?(?:[01]\d|2[0-3])(?:[-_.:]?[0-5]\d){0,2}|-\d{10})?"
)
_ROTATED: Final = re.compile(
    rf"(?P<head>.+?)(?:{_DATE}(?:[-_.]\d{{1,3}})?(?P<end>\.[A-Za-z]\w*)?|\.\d{{1,3}})", re.ASCII | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Writers:
    """The files among those asked about that a process has open for writing, as (device, inode).

    `complete`: whether all processes were seen that could have.
    """

    files: frozenset[tuple[int, int]]
    complete: bool


def writers(folder: Folder, wanted: Collection[tuple[int, int]]) -> Writers:
    """Who writes what; takes a moment on a machine of many processes."""
    found: set[tuple[int, int]] = set()
    complete = _sees_all() and network_kind(folder) is None
    for process in _processes():
        # Texts, since there may be ten thousands of them.
        try:
            opened = os.listdir(f"{process}/fd")  # noqa: PTH208
        except (ProcessLookupError, FileNotFoundError):
            continue
        except OSError:
            complete = False
            continue
        for each in opened:
            which = _file_at(f"{process}/fd/{each}")
            if which in wanted and _writes(Path(f"{process}/fdinfo/{each}")):
                found.add(which)  # type: ignore[arg-type]
    return Writers(frozenset(found), complete)


def unclosed(entries: Iterable[Entry]) -> frozenset[str]:
    """The files of which no rotation shows that nobody writes them any more."""
    known = {each.name: each for each in entries}
    return frozenset(name for name in known if not _is_closed(known[name], known))


def _is_closed(entry: Entry, known: Mapping[str, Entry]) -> bool:
    if packing_of(entry.name):
        return True
    before = known.get(named_before(entry.name))
    return before is not None and before.name != entry.name and before.mark.mtime > entry.mark.mtime


def named_before(name: str) -> str:
    """The name that a file had before a rotation gave it this one, by a number at its end or a date; or the same."""
    found = _ROTATED.fullmatch(name)
    return name if found is None else found["head"] + (found["end"] or "")


def family(name: str) -> str:
    """What the names may have in common that rotation gives to one log: without numbers, dates and packing.

    Logs of several workers may have it in common too.
    """
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return _VARIES.sub("", name)


def live(
    entries: Sequence[Entry], seen: Writers, *, among: Collection[Entry], named: Sequence[str], settle: float
) -> Mapping[str, str]:
    """Of `among` those that are being written, with why; `entries` are all files of the target."""
    young = time.time_ns() - int(settle * 1e9)
    loose = frozenset[str]() if seen.complete else unclosed({*entries, *among})
    found = {}
    for entry in among:
        if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in named):
            found[entry.name] = "it is configured as one that is being written"
        elif entry.mark.mtime > young:
            found[entry.name] = "it was changed a moment ago"
        elif (entry.mark.dev, entry.mark.ino) in seen.files:
            found[entry.name] = "a process has it open for writing"
        elif entry.name in loose:
            found[entry.name] = "no rotation shows it closed, and not all processes can be seen that may write it"
    return found


def _sees_all() -> bool:
    """Whether /proc lists every process there is: one that it hides raises no error, it is just not there."""
    try:
        os.listdir(f"{_PROC}/1/fd")  # noqa: PTH208 - only of who may see it
        everywhere = os.readlink(_PROC / "self" / "ns" / "pid") == _ALL_PROCESSES  # noqa: PTH115 - not a file's name
        return everywhere and not _hides((_PROC / "self" / "mountinfo").read_text(errors="replace"))
    except OSError:
        return False


def _hides(mounts: str) -> bool:
    """Whether /proc is mounted so that it hides other users' processes (`hidepid`, proc(5)); in doubt it is."""
    # proc_pid_mountinfo(5): the mount point is the fifth field; the last one mounted there is what is seen.
    mine = [line.split() for line in mounts.splitlines() if line.split()[4:5] == [str(_PROC)]]
    options = ",".join(mine[-1][5:]).split(",") if mine else ["hidepid=unknown"]
    return any(each.startswith("hidepid=") and each not in _SHOWN for each in options)


def _processes() -> list[str]:
    try:
        return [f"{_PROC}/{each.name}" for each in _PROC.iterdir() if each.name.isdigit()]
    except OSError:
        return []


def _file_at(link: str) -> tuple[int, int] | None:
    try:
        found = os.stat(link)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _writes(info: Path) -> bool:
    """Whether the open file may be written: its flags, in octal (proc_pid_fdinfo(5)). In doubt it may."""
    try:
        text = info.read_text()
        flags = next(line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
        return int(flags, 8) & _ACCESS != os.O_RDONLY
    except (OSError, StopIteration, ValueError):
        return True
