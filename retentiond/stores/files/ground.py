"""What batches on a target's files, and questions about them, stand on; and the walk over its files that both take."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from retentiond.domain.plan import TargetPlan
from retentiond.errors import Refused
from retentiond.stores.base import AccountDirectory, Tally, Window
from retentiond.stores.files.changing import Changing
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.folder import Changed, Entry, Folder, name_at, position_of
from retentiond.stores.files.formats import Format
from retentiond.stores.files.live import Writers, live, writers
from retentiond.stores.files.memory import Memory
from retentiond.stores.files.packing import Damaged
from retentiond.stores.files.presence import part_prefix
from retentiond.stores.files.sieve import Sieve, exactly, together, unread
from retentiond.stores.files.work import Made, NoSpace, Work, discard
from retentiond.stores.rulings import Rulings

FILES: Final = "files"
"""The walk over a target's files, in the order of their names."""
_FRESH_SECONDS: Final = 5.0
_MOST_MADE: Final = 64
"""Files of a batch at most, each of which keeps a descriptor open."""
T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """The result of work that only waits for a disk. Who is cancelled meanwhile, however often, waits for its end.

    A lock must not be given back while a thread could still do what it stands for.
    """
    task = asyncio.create_task(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # it is heard, and goes with who was cancelled
        raise cancelled
    return task.result()


@dataclass(slots=True)
class Ground:
    """A target: its folder, how its lines read, what is remembered of it."""

    name: str
    config: FilesTarget
    folder: Folder
    format: Format
    changing: Changing | None
    directory: AccountDirectory | None
    memory: Memory = field(default_factory=Memory)
    _scanned: tuple[float, list[Entry], list[str]] | None = None
    _seen: tuple[float, Writers] | None = None

    async def entries(self, *, anew: bool = False) -> list[Entry]:
        """The files, as they were met a moment ago; raises Blind, Unreachable."""
        if anew or self._scanned is None or time.monotonic() - self._scanned[0] > _FRESH_SECONDS:
            found, others = await in_thread(self.folder.entries)
            self._scanned = (time.monotonic(), found, others)
            self.memory.keep(found)
        return self._scanned[1]

    async def others(self) -> list[str]:
        """Names that fit and are no regular files: they are left alone."""
        await self.entries()
        return self._scanned[2] if self._scanned is not None else []

    def stale(self) -> None:
        """The files are others than they were."""
        self._scanned = None

    def from_place(self, entries: Sequence[Entry], window: Window) -> Sequence[Entry]:
        """The files of the window's leg from where it begins."""
        keys = [os.fsencode(entry.name) for entry in entries]
        begin = 0 if window.after is None else bisect_right(keys, os.fsencode(name_at(window.after[0])))
        end = len(keys) if window.until is None else bisect_right(keys, os.fsencode(name_at(window.until[0])))
        return entries[begin:end]

    async def read(self, work: Work, rulings: Rulings) -> None:
        """Read the file to its end; raises what `Work.advance` and the directory raise."""
        while (lacking := await in_thread(work.advance)) is not None:
            if lacking:
                await rulings.ask(lacking, self.directory)

    async def written(self, entries: Sequence[Entry], among: Sequence[Entry], *, anew: bool = False) -> dict[str, str]:
        """Of `among` those that are being written, with why; as of some seconds ago, unless it is to be seen anew.

        To see who writes takes a look at all processes, so one look does for all files.
        """
        if anew or self._seen is None or time.monotonic() - self._seen[0] > _FRESH_SECONDS:
            wanted = {(each.mark.dev, each.mark.ino) for each in (*entries, *among)}
            self._seen = (time.monotonic(), await in_thread(lambda: writers(self.folder, wanted)))
        return dict(live(entries, self._seen[1], among=among, named=self.config.live, settle=self.config.settle))


@dataclass(slots=True)
class Walker:
    """Goes over the files of a window: `made` are those that are ready to go, `total` what all come to."""

    ground: Ground
    plan: TargetPlan
    rulings: Rulings
    erasing: bool
    total: Tally = field(default_factory=Tally)
    made: list[Made] = field(default_factory=list)
    seen_all: bool = False

    async def walk(self, window: Window) -> Tally:
        """The window, whose size is in lines that had to be read; raises Blind, Unreachable."""
        ground = self.ground
        entries = await ground.entries()
        mine = ground.from_place(entries, window)
        sieve = Sieve(self.rulings, tiered=ground.config.tier_field is not None)
        read, last = 0, None
        for at, entry in enumerate(mine):
            known = ground.memory.of(entry, self.plan, exact=not self.erasing)
            if known is None:
                found = await self._one(entries, entry, sieve)
                read += max(found.scanned, 1)
            else:
                found = known
            self.total = together(self.total, found) if self.erasing else exactly(self.total, found)
            if (read >= window.size or len(self.made) >= _MOST_MADE) and at + 1 < len(mine):
                last = entry
                break
        after = (position_of(last.name),) if last is not None else None
        self.total = replace(self.total, after=after)
        return self.total

    async def close(self) -> None:
        """Throw away what was made ready and not taken."""
        made, self.made = self.made, []
        for each in made:
            throw_away(self.ground.folder, each)

    async def _one(self, entries: Sequence[Entry], entry: Entry, sieve: Sieve) -> Tally:
        """One file: what it comes to, and whatever is wrong with it alone."""
        try:
            if not self.erasing:
                return await self._left(entries, entry, sieve)
            return await self._prepared(entries, entry, sieve)
        except Changed:
            return Tally()  # it was replaced or has grown: by then it is being written
        except Damaged:
            # Whatever is in it: nobody can tell, so that it stays as a whole.
            return unread(1, Tally())
        except NoSpace:
            return _failed(
                f"there is no room to rewrite {entry.shown} of target {self.ground.name}",
                "free some space on its file system: what is kept of the file is written beside it first",
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return Tally()  # renamed by a rotation, or a link by now
            return _failed(
                f"{entry.shown} of target {self.ground.name} can't be rewritten: {error.strerror}",
                "see that the folder and its files may be read, written and given their owner by this process",
            )

    async def _counted(self, entry: Entry, sieve: Sieve) -> Tally:
        ground = self.ground
        work = Work(ground.folder, entry, ground.format, sieve, prefix="", changing=ground.changing)
        try:
            await ground.read(work, self.rulings)
            return work.counted
        finally:
            await in_thread(work.close)

    async def _kept(self, entries: Sequence[Entry], entry: Entry, found: Tally) -> Tally:
        """What is due in a file that is being written, or has another name elsewhere, is blocked."""
        if entry.links == 1 and not await self.ground.written(entries, [entry]):
            return found
        tiers = {
            label: replace(tier, due=0, bytes=0, oldest=None, newest=None, blocked=tier.due)
            for label, tier in found.tiers.items()
        }
        blocked = sum(tier.blocked for tier in tiers.values())
        return replace(found.by(tiers), blocked=blocked, overdue_seconds=found.overdue_seconds)

    async def _prepared(self, entries: Sequence[Entry], entry: Entry, sieve: Sieve) -> Tally:
        ground, made = self.ground, None
        prefix = part_prefix(ground.name)
        work = Work(ground.folder, entry, ground.format, sieve, prefix=prefix, changing=ground.changing)
        try:
            if entry.links > 1 or entry.mark.mtime > time.time_ns() - int(ground.config.settle * 1e9):
                return await self._left(entries, entry, sieve)
            await ground.read(work, self.rulings)
            found = work.sums.tally()
            ground.memory.learn(entry.mark, self.plan, found, exact=False)
            if not found.selected:
                return found
            if await ground.written(entries, [entry]):
                return await self._left(entries, entry, sieve)
            made = await in_thread(work.result)
            if made is not None:
                self.made.append(made)
            return found
        finally:
            await in_thread(work.close)

    async def _left(self, entries: Sequence[Entry], entry: Entry, sieve: Sieve) -> Tally:
        """A file that is left as it is, counted; one that is being written is another than a moment ago."""
        entry = self.ground.folder.entry(entry.name) or entry
        found = await self._counted(entry, sieve)
        self.ground.memory.learn(entry.mark, self.plan, found, exact=True)
        return await self._kept(entries, entry, found) if found.selected else found


def throw_away(folder: Folder, made: Made) -> None:
    """Undo what was made ready of a file."""
    if made.part:
        discard(folder, made.part, made.fd)


def _failed(message: str, remedy: str) -> Tally:
    return Tally(failed=1, refusal=Refused(message, remedy=remedy))
