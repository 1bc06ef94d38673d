"""Rows of any listing as columns of one shape, and positions in them as texts that can be kept.

A position is the last row's own key, with its version or upload id where rows have one. What JSON or Postgres can't
carry of a key (a null character, bytes that are no UTF-8) is percent-encoded in it, and so is every `%` then.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import Literal
from urllib.parse import quote, unquote

from retentiond.stores.s3 import listing
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import Doomed

Position = tuple[str, ...] | None
Listing = Literal["objects", "versions", "uploads"]
# As Doomed._make, without a call of Python for each.
_DOOMED = partial(tuple.__new__, Doomed)
_KEPT = "".join(map(chr, range(1, 127))).replace("%", "")


@dataclass(slots=True)
class Rows:
    """Columns of one length: `ids` are of versions or uploads, `markers` tells delete markers; None: rows have none."""

    keys: list[str]
    modified: list[datetime]
    sizes: list[int]
    etags: list[str]
    ids: list[str] | None = None
    markers: list[bool] | None = None
    of_uploads: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, start: int, stop: int) -> Rows:
        """The rows from one index up to another."""
        return Rows(
            self.keys[start:stop],
            self.modified[start:stop],
            self.sizes[start:stop],
            self.etags[start:stop],
            None if self.ids is None else self.ids[start:stop],
            None if self.markers is None else self.markers[start:stop],
            self.of_uploads,
        )

    def plus(self, other: Rows) -> Rows:
        """These and then those."""
        if not self.keys:
            return other
        return Rows(
            self.keys + other.keys,
            self.modified + other.modified,
            self.sizes + other.sizes,
            self.etags + other.etags,
            None if self.ids is None or other.ids is None else self.ids + other.ids,
            None if self.markers is None or other.markers is None else self.markers + other.markers,
            self.of_uploads,
        )

    def position(self, index: int) -> tuple[str, ...]:
        """The position after that row, as it is kept."""
        key = written(self.keys[index])
        return (key,) if self.ids is None else (key, written(self.ids[index]))

    def doomed(self, indices: Sequence[int]) -> list[Doomed]:
        """Those rows as what is to be erased."""
        keys, etags, sizes, modified = (
            list(map(column.__getitem__, indices)) for column in (self.keys, self.etags, self.sizes, self.modified)
        )
        ids = repeat(None) if self.ids is None else map(self.ids.__getitem__, indices)
        versions, uploads = (repeat(None), ids) if self.of_uploads else (ids, repeat(None))
        return list(map(_DOOMED, zip(keys, versions, etags, sizes, modified, uploads)))  # noqa: B905 - of repeat there is no end


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one request listed; `after` is where the listing goes on (not as it is kept), `at` when it was asked for."""

    rows: Rows
    after: Position
    at: float = field(default_factory=time.monotonic)


async def fetch(bucket: Bucket, what: Listing, head: str, after: Position, size: int = listing.MOST) -> Chunk:
    """The next page of a listing of all that begins with `head`; raises Blind, Unreachable."""
    began = time.monotonic()
    if what == "objects":
        page = await listing.objects(bucket, head, after=after, size=size)
        return Chunk(Rows(page.keys, page.modified, page.sizes, page.etags), page.after, began)
    if what == "versions":
        all_of = await listing.versions(bucket, head, after=after, size=size)
        columns = (all_of.keys, all_of.modified, all_of.sizes, all_of.etags, all_of.version_ids)
        return Chunk(Rows(*columns, all_of.is_marker), all_of.after, began)
    begun = await listing.uploads(bucket, head, after=after, size=size)
    count = len(begun.keys)
    rows = Rows(begun.keys, begun.modified, [0] * count, [""] * count, begun.upload_ids, None, of_uploads=True)
    return Chunk(rows, begun.after, began)


def until(chunk: Chunk, end: tuple[str, ...]) -> Chunk:
    """What of it is not past the position `end` (not as it is kept); it goes on nowhere where that was reached.

    Of uploads there is no order that every server keeps, so only the very row ends them.
    """
    rows = chunk.rows
    stop = len(rows)
    if not rows.of_uploads and stop and _bytes(rows.keys[-1]) > _bytes(end[0]):
        edge = _bytes(end[0])
        stop = next(i for i, key in enumerate(rows.keys) if _bytes(key) > edge)
    if len(end) > 1 and rows.ids is not None:
        pairs = zip(rows.keys[:stop], rows.ids[:stop], strict=True)
        stop = next((i + 1 for i, pair in enumerate(pairs) if pair == end), stop)
    over = stop < len(rows) or (stop and rows.ids is None and rows.keys[-1] == end[0])
    last = stop and len(end) > 1 and rows.ids is not None and (rows.keys[stop - 1], rows.ids[stop - 1]) == end
    if not over and not last:
        return chunk
    return Chunk(rows.part(0, stop), None, chunk.at)


def written(text: str) -> str:
    """A key or id as it is kept."""
    if text.isascii():
        return text if "%" not in text and "\0" not in text else quote(text, safe=_KEPT)
    try:
        text.encode()
    except UnicodeEncodeError:
        return quote(text, safe=_KEPT, errors="surrogateescape")
    if "%" not in text and "\0" not in text:
        return text
    return quote(text, safe=_KEPT)


def read(position: Position) -> Position:
    """A kept position as it is asked for."""
    return None if position is None else tuple(unquote(each, errors="surrogateescape") for each in position)


def written_all(texts: Sequence[str]) -> Sequence[str]:
    """As `written`, for many."""
    together = "".join(texts)
    if "%" not in together and "\0" not in together:
        try:
            together.encode()
        except UnicodeEncodeError:
            pass
        else:
            return texts
    return [written(each) for each in texts]


def read_all(texts: Collection[str]) -> list[str]:
    """The texts that `written_all` was given."""
    return [unquote(each, errors="surrogateescape") if "%" in each else each for each in texts]


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")
