"""What `check` says of a target over log files: what can't be read or rewritten, and what is left alone and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from retentiond.stores.base import Finding
from retentiond.stores.files.folder import Changed, Entry, shown
from retentiond.stores.files.ground import Ground, in_thread
from retentiond.stores.files.intent import swap_prefix
from retentiond.stores.files.lines import BLOCK, Block, blocks
from retentiond.stores.files.live import unclosed, writers
from retentiond.stores.files.packing import Damaged, packing_of, unpacked
from retentiond.stores.files.presence import network_kind
from retentiond.stores.files.sieve import asked
from retentiond.stores.rulings import Untold

_SOME: Final = 5
_FILES: Final = 20
_MOST_READ: Final = 1 << 26
"""Bytes of each of them."""
_HOW_TO_ROTATE: Final = (
    "let the rotation close it: logrotate with `create` and a signal in `postrotate`, daily, and no `copytruncate`, "
    "which loses lines and leaves the file open for ever"
)


async def findings(ground: Ground) -> list[Finding]:
    """All that is to be said; nothing is changed. Raises Blind, Unreachable where the folder can't be read."""
    entries = await ground.entries(anew=True)
    told = [*await in_thread(lambda: _of_folder(ground)), *_of_links(ground, entries, await ground.others())]
    if not entries:
        message = f"no file fits {ground.config.path}"
        return [*told, Finding("warning", ground.name, message, f"see targets.{ground.name}.path")]
    told += await in_thread(lambda: _of_lines(ground, entries))
    told += await _of_writing(ground, entries)
    return told


def _of_folder(ground: Ground) -> list[Finding]:
    folder, name = ground.folder, ground.name
    told = []
    if not os.access(f"/proc/self/fd/{folder.fd}", os.W_OK | os.X_OK):
        message = f"nothing may be written in {shown(folder.path)}, and so no file can be rewritten or removed"
        told.append(
            Finding("error", name, message, "let this process's user write there, or run it as the logs' owner")
        )
    if (kind := network_kind(folder)) is not None:
        message = (
            f"{shown(folder.path)} lies on a file system that is no local one ({kind}): after a crash nothing shows "
            "that a worker is gone, so that holds stay pending until an operator says so"
        )
        told.append(Finding("warning", name, message, "run retentiond where the disk is; or see `permit end`"))
    told += [
        Finding(
            "warning",
            name,
            f"{each} in {shown(folder.path)} was left by a sweep that was cut off, and nothing says what it is",
            "see what is in it: it is a log file, or what was to go of one; then move or remove it",
        )
        for each in folder.private(swap_prefix(name))
    ]
    return told


def _of_links(ground: Ground, entries: Sequence[Entry], others: Sequence[str]) -> list[Finding]:
    told = []
    if linked := [entry.shown for entry in entries if entry.links > 1]:
        message = f"left alone, since they have other names too (hard links): {_some(linked)}"
        told.append(Finding("warning", ground.name, message, "remove the other names, or copy the files"))
    if others:
        message = f"left alone, since they are no regular files: {_some([shown(each) for each in others])}"
        told.append(Finding("info", ground.name, message, "make what links lead to a target of its own"))
    return told


def _of_lines(ground: Ground, entries: Sequence[Entry]) -> list[Finding]:
    """Whether the first lines of some files can be read."""
    told: list[Finding] = []
    lines = unread = undated = without = 0
    for entry in entries[-_FILES:]:
        try:
            with ground.folder.opened(entry) as fd, unpacked(fd, packing_of(entry.name)) as read:
                first = next(blocks(read), None)
                _read_on(read)
        except Damaged as error:
            message = f"{entry.shown} is damaged and stays as it is: {error}"
            told.append(Finding("warning", ground.name, message, "repair or remove it: nobody can tell what is in it"))
            continue
        except Changed:
            continue
        except OSError as error:
            message = f"{entry.shown} can't be read: {error.strerror}"
            told.append(Finding("error", ground.name, message, "let this process's user read it"))
            continue
        if not isinstance(first, Block):
            continue
        columns = asked(ground.format.columns(first.content, first.lines()))
        lines += len(columns.anchors)
        unread += columns.accounts.count(Untold.LINE)
        without += columns.accounts.count(Untold.FIELD)
        undated += columns.anchors.count(None)
    return told + _of_columns(ground, lines, unread, undated - unread, without)


def _read_on(read: Callable[[int], bytes]) -> None:
    """See whether the file can be read on, as far as a look may take."""
    left = _MOST_READ
    while left > 0 and (part := read(BLOCK)):
        left -= len(part)


def _of_columns(ground: Ground, lines: int, unread: int, undated: int, without: int) -> list[Finding]:
    config, told = ground.config, []
    for count, what, remedy in (
        (unread, f"don't read as {config.format}", "set targets.{}.format to how the lines are written"),
        (undated, f"have no date in {config.anchor!r} that can be read", "set targets.{}.anchor, and unit for numbers"),
        (
            without,
            f"lack the field {config.account!r}",
            "set targets.{}.account; or account_optional, where such lines are nobody's",
        ),
    ):
        if count > 0:
            message = f"of the first {lines} lines {count} {what}: they are kept"
            severe = "error" if count == lines else "warning"
            told.append(Finding(severe, ground.name, message, remedy.format(ground.name)))  # type: ignore[arg-type]
    return told


async def _of_writing(ground: Ground, entries: Sequence[Entry]) -> list[Finding]:
    seen = await in_thread(lambda: writers(ground.folder, {(each.mark.dev, each.mark.ino) for each in entries}))
    told = []
    if not seen.complete and (loose := sorted(unclosed(entries))):
        message = (
            "not all processes can be seen that may write here, so that files are left alone which no rotation shows "
            f"to be closed: {_some([shown(each) for each in loose])}"
        )
        told.append(Finding("info", ground.name, message, _HOW_TO_ROTATE))
    busy = [each.shown for each in entries if (each.mark.dev, each.mark.ino) in seen.files]
    if busy:
        message = f"being written, and so left alone until it is rotated: {_some(busy)}"
        told.append(Finding("info", ground.name, message, _HOW_TO_ROTATE))
    return told


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more
