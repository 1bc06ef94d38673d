"""What there is, now, of keys that an inventory says something due of.

They are listed anew, all versions of each, and put in the place of the inventory's rows; so what is judged and erased
is what a listing has said a moment before, whatever has become of the keys since the report: overwritten, deleted,
written anew. Lists go from one such key to the next, never through what lies between where that is far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import NULL
from retentiond.stores.s3.rows import Chunk, Listing, Position, Rows, fetch
from retentiond.stores.s3.walk import Taken

_AT_ONCE: Final = 4
"""How many stretches of keys are listed side by side."""


@dataclass(frozen=True, slots=True)
class Rechecked:
    """The window with what is there now; `gone`: how many of its due rows are not, or are something else.

    `was` tells of each row which one of the window before it is; None: it was listed anew.
    """

    taken: Taken
    was: Sequence[int | None]
    gone: int


async def rechecked(bucket: Bucket, what: Listing, head: str, taken: Taken, due: Sequence[int]) -> Rechecked:
    """The window whose rows of these indices are due, with all rows of their keys as they are now.

    What is not there any more is marked in the picture. Raises Blind, Unreachable.
    """
    assert taken.picture is not None
    rows = taken.rows
    there = _There()
    keys = list(dict.fromkeys(rows.keys[i] for i in sorted(due)))
    before = _before(rows.keys)
    # Nothing is known that comes right before the first of a window, so it is asked for by itself.
    rest = [key for key in keys if key in before]
    share = max(1, -(-len(rest) // _AT_ONCE))
    work = [_listed(bucket, what, head, rest[at : at + share], before, there) for at in range(0, len(rest), share)]
    work += [_listed_alone(bucket, what, key, there) for key in keys if key not in before]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    fresh, was = _merged(rows, set(keys), there, taken.torn)
    lost = [i for i, key in enumerate(rows.keys) if key in there.asked and not _same(rows, i, there)]
    if lost:
        await taken.picture.mark_gone((rows.keys[i], None if rows.ids is None else rows.ids[i]) for i in lost)
    gone = len(set(lost) & set(due))
    return Rechecked(replace(taken, rows=fresh, requests=taken.requests + there.requests), was, gone)


class _There:
    """What was found, by key and id."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.rows: dict[str, list[tuple[Rows, int]]] = {}
        self.requests = 0

    def add(self, chunk: Chunk, wanted: Mapping[str, None]) -> None:
        self.requests += 1
        for i, key in enumerate(chunk.rows.keys):
            if key in wanted:
                self.rows.setdefault(key, []).append((chunk.rows, i))


async def _listed_alone(bucket: Bucket, what: Listing, key: str, there: _There) -> None:
    """All rows of one key: it comes first among all that begin with it."""
    after: Position = None
    while True:
        chunk = await fetch(bucket, what, key, after)
        there.add(chunk, {key: None})
        after = chunk.after
        if after is None or what == "objects" or chunk.rows.keys[-1] != key:
            break
    there.asked.add(key)


async def _listed(
    bucket: Bucket, what: Listing, head: str, keys: Sequence[str], before: Mapping[str, str], there: _There
) -> None:
    """All rows of these keys, which are in order, listed from right before the first of each group near each other."""
    wanted, at = dict.fromkeys(keys), 0
    after: Position = None
    while at < len(keys):
        chunk = await fetch(bucket, what, head, after or (before[keys[at]],))
        there.add(chunk, wanted)
        if chunk.after is None:
            break
        reached = chunk.rows.keys[-1]
        edge = _bytes(reached)
        # Of the last key of a page there may be more versions on the next.
        while at < len(keys) and (_bytes(keys[at]) < edge or (what == "objects" and keys[at] == reached)):
            at += 1
        near = at < len(keys) and (keys[at] == reached or _bytes(before[keys[at]]) <= edge)
        after = chunk.after if near else None
    there.asked.update(keys)


def _before(keys: Sequence[str]) -> Mapping[str, str]:
    """For each key the one that comes before it in the window."""
    found: dict[str, str] = {}
    for i in range(1, len(keys)):
        if keys[i] != keys[i - 1]:
            found[keys[i]] = keys[i - 1]
    return found


def _merged(rows: Rows, keys: set[str], there: _There, torn: frozenset[str]) -> tuple[Rows, list[int | None]]:
    """The rows, with those of these keys replaced by what is there; of a key that is torn none that are elsewhere."""
    parts: list[tuple[Rows, int]] = []
    was: list[int | None] = []
    done: set[str] = set()
    own = {(key, rows.ids[i]) for i, key in enumerate(rows.keys) if key in torn} if rows.ids is not None else set()
    for i, key in enumerate(rows.keys):
        if key not in keys:
            parts.append((rows, i))
            was.append(i)
        elif key not in done:
            done.add(key)
            found = there.rows.get(key, [])
            found = [(of, at) for of, at in found if key not in torn or of.ids is None or (key, of.ids[at]) in own]
            parts += found
            was += [None] * len(found)
    versions = rows.ids is not None
    merged = Rows(
        [of.keys[i] for of, i in parts],
        [of.modified[i] for of, i in parts],
        [of.sizes[i] for of, i in parts],
        [of.etags[i] for of, i in parts],
        [(of.ids or ())[i] for of, i in parts] if versions else None,
        [bool(of.markers and of.markers[i]) for of, i in parts] if versions else None,
    )
    return merged, was


def _same(rows: Rows, i: int, there: _There) -> bool:
    """Whether the row of the inventory is still there as it was; of what has an id of its own nothing can change."""
    for of, at in there.rows.get(rows.keys[i], ()):
        if rows.ids is not None and of.ids is not None:
            if rows.ids[i] != of.ids[at]:
                continue
            if rows.ids[i] != NULL:
                return True
        written = (of.modified[at].replace(microsecond=0), of.sizes[at], of.etags[at])
        return written == (rows.modified[i].replace(microsecond=0), rows.sizes[i], rows.etags[i])
    return False


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")
