"""How many lines a target has: those of files that were judged are remembered, the ends of the others' lines
counted.
"""

from __future__ import annotations

from typing import Final

from retentiond.stores.files.folder import Changed, Entry
from retentiond.stores.files.ground import Ground, in_thread
from retentiond.stores.files.packing import Damaged, packing_of, unpacked

_CHUNK: Final = 1 << 20


async def counted(ground: Ground, most: int) -> int:
    """How many lines there are, but at most `most`; a file that can't be read has one."""
    found = 0
    for entry in await ground.entries():
        known = ground.memory.lines(entry)
        found += known if known is not None else await _lines(ground, entry, most - found)
        if found >= most:
            return most
    return found


async def _lines(ground: Ground, entry: Entry, most: int) -> int:
    def read() -> int:
        lines, last = 0, b"\n"
        now = ground.folder.entry(entry.name) or entry
        with ground.folder.opened(now) as fd, unpacked(fd, packing_of(entry.name)) as content:
            while lines < most and (part := content(_CHUNK)):
                lines += part.count(b"\n")
                last = part
        return lines + (not last.endswith(b"\n"))

    try:
        return await in_thread(read)
    except (Damaged, Changed, OSError):
        return 1
