r"""A file's content in blocks of whole lines; what is too long for a line passes in parts, unread.

A line ends with `\n`. The last one may lack it, which is remembered, so that what is kept of a file is what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 1 << 20
"""Bytes read at a time."""
LONGEST: Final = 1 << 22
"""Bytes of a line at most: a longer one is kept as one that can't be read."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, each with its end (of the last line of a file, `torn`, the end was added)."""

    content: bytes
    torn: bool = False

    def lines(self) -> list[bytes]:
        """The lines without their ends."""
        found = self.content.split(b"\n")
        found.pop()
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a line that is too long to be read; `last` has the line's end, or the file's."""

    content: bytes
    last: bool


def blocks(read: Callable[[int], bytes]) -> Iterator[Block | Part]:
    """All of the content; raises what reading raises."""
    kept: list[bytes] = []
    size, passing = 0, False
    while chunk := read(BLOCK):
        if passing:
            end = chunk.find(b"\n") + 1
            yield Part(chunk[:end] if end else chunk, last=bool(end))
            if not end:
                continue
            chunk, passing = chunk[end:], False
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield from _split(b"".join([*kept, chunk[:cut]]))
            kept, size = ([chunk[cut:]] if cut < len(chunk) else []), len(chunk) - cut
            continue
        kept.append(chunk)
        size += len(chunk)
        if size > LONGEST:
            yield Part(b"".join(kept), last=False)
            kept, size, passing = [], 0, True
    if passing:
        yield Part(b"", last=True)
    elif size:
        yield Block(b"".join([*kept, b"\n"]), torn=True)


def _split(content: bytes) -> Iterator[Block | Part]:
    """Blocks of what may begin with a line that is just too long."""
    first = content.find(b"\n") + 1
    if first > LONGEST:
        yield Part(content[:first], last=True)
        content = content[first:]
    if content:
        yield Block(content)
