"""What a batch on files is about to do, as it is written down before, and what of it is seen to be done afterwards.

Each file is named with what tells it from every other before and after: device, inode, size, time of change. A file
that was rewritten is another one, with a number of its own, wherever a rotation has moved it to since. The digest is of
which lines of it go.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import uuid4

from retentiond.stores.base import Fate, Tally, earliest, latest
from retentiond.stores.files.folder import PRIVATE, Folder, Mark, name_at, position_of
from retentiond.stores.files.live import family
from retentiond.stores.files.packing import packing_of
from retentiond.stores.files.presence import is_abandoned, is_there, part_prefix
from retentiond.stores.files.swap import put_back, taken_back
from retentiond.stores.files.work import Made

Done = Literal["done", "not done", "unknown"]
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """One file that lines of go: `private` is the name of ours by which it goes, `after` what takes its place."""

    name: str
    private: str
    before: Mark
    after: Mark | None
    by_tier: Mapping[str, int]
    bytes: int
    oldest: str | None
    newest: str | None
    flags: str

    @classmethod
    def of(cls, made: Made, target: str) -> Item:
        """Of a file that is ready to go."""
        told = made.sums.tally()
        return cls(
            made.entry.name,
            f"{swap_prefix(target)}{uuid4().hex}",
            made.entry.mark,
            made.after,
            told.by_tier,
            told.bytes,
            told.oldest,
            told.newest,
            made.flags,
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": position_of(self.name),
            "private": self.private,
            "before": self.before.document(),
            "after": None if self.after is None else self.after.document(),
            "by_tier": dict(self.by_tier),
            "bytes": self.bytes,
            "oldest": self.oldest,
            "newest": self.newest,
            "flags": self.flags,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Item:
        """From what was written down."""
        after = document["after"]
        return cls(
            name_at(document["name"]),
            document["private"],
            Mark(*document["before"]),
            None if after is None else Mark(*after),
            document["by_tier"],
            document["bytes"],
            document["oldest"],
            document["newest"],
            document["flags"],
        )


def swap_prefix(target: str) -> str:
    """What the names begin with by which files of a target go."""
    return f"{PRIVATE}{target}.going-"


def went(items: Sequence[Item], salt: str) -> Tally:
    """What these files come to, now that their lines are gone."""
    if not items:
        return Tally()
    by_tier: Counter[str] = Counter()
    for each in items:
        by_tier.update(each.by_tier)
    ids = sorted(f"{position_of(each.name)}:{each.flags}" for each in items)
    return Tally(
        changed=by_tier.total(),
        by_tier=dict(by_tier),
        bytes=sum(each.bytes for each in items),
        oldest=earliest(*(each.oldest for each in items)),
        newest=latest(*(each.newest for each in items)),
        ids_digest=hashlib.sha256((salt + "\n".join(ids)).encode()).hexdigest(),
    )


def document(items: Sequence[Item], attended: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is written down of a batch; `attended`: what its worker can be told by, and the folder with it."""
    return {"files": [item.document() for item in items], "presence": attended}


def fate(folder: Folder, target: str, prepared: Mapping[str, Any]) -> Fate:
    """What became of a batch whose worker is gone; what it has begun with a file is undone. OSError.

    Unknown where this is not the folder that the worker was in, as where another disk was mounted: no file is there.
    """
    intended = prepared["intended"]
    if not is_there(folder, target, intended.get("presence")):
        return Fate("unknown")
    items = [Item.read(each) for each in intended["files"]]
    for item in items:
        _settle(folder, item)
    os.fsync(folder.fd)
    there = _there(folder)
    done = ["not done" if folder.entry(item.private) else _done(item, there) for item in items]
    if "unknown" in done:
        return Fate("unknown")
    gone = [item for item, what in zip(items, done, strict=True) if what == "done"]
    return Fate("looked", went(gone, str(prepared["salt"])))


def tidied(folder: Folder, target: str) -> None:
    """Throw away what was made ready and never taken; only while this worker is there, and nobody else. OSError."""
    for name in folder.private(part_prefix(target)):
        if is_abandoned(folder, name):
            os.unlink(name, dir_fd=folder.fd)


def _settle(folder: Folder, item: Item) -> None:
    """Undo what was begun with a file, whatever the name of ours has: a hold may have come since.

    Only what this project has made goes: the file `after`, which has nothing but a copy of what was to stay.
    """
    found = folder.entry(item.private)
    if found is None:
        return
    if found.mark == item.after:
        os.unlink(item.private, dir_fd=folder.fd)
    elif not _exchanged_back(folder, item):
        put_back(folder, item.private, item.name)


def _exchanged_back(folder: Folder, item: Item) -> bool:
    """Where what was made in its place is there, under whichever name a rotation gave it since."""
    if item.after is None:
        return False
    name = _there(folder).get(item.after)
    return name is not None and taken_back(folder, item.private, name, item.after)


def _there(folder: Folder) -> dict[Mark, str]:
    """All files of the folder with their names."""
    found = (folder.entry(name) for name in folder.all_names() if not name.startswith(PRIVATE))
    return {entry.mark: entry.name for entry in found if entry is not None}


def _done(item: Item, there: Mapping[Mark, str]) -> Done:
    """By what is there, under any name. One that was packed since is another file, and has the time of the old one.

    A file with the old one's number and another size or time may be the old one, written to, or one made since.
    """
    if item.before in there:
        return "not done"
    if item.after is not None:
        return "done" if item.after in there else "unknown"
    if any((mark.dev, mark.ino) == (item.before.dev, item.before.ino) for mark in there):
        return "unknown"
    second, kind = item.before.mtime // _SECOND, family(item.name)
    packed_since = not packing_of(item.name) and any(
        packing_of(name) and mark.mtime // _SECOND == second and family(name) == kind for mark, name in there.items()
    )
    return "unknown" if packed_since else "done"
