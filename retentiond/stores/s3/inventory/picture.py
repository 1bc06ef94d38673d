"""An inventory's rows in the order of listings: sorted in files, so that memory does not depend on how many there are.

SQLite sorts and keeps them, within a few megabytes of memory. Its files are nobody's but ours: they lose their names as
soon as they are open, so that nothing is left whatever becomes of this process. What is found to be gone is marked, and
not taken out: a position may name it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from retentiond.errors import Blind
from retentiond.stores.s3.inventory.files import EPOCH, Row
from retentiond.stores.s3.inventory.manifest import Manifest
from retentiond.stores.s3.rows import Chunk, Position, Rows

_PAGE: Final = 1000
_CACHE_KIB: Final = 16 * 1024
_CHECK_EVERY: Final = 10_000
_ONE_AT_A_TIME: Final = threading.Lock()
_COLUMNS: Final = "key, newest, id, size, etag, marker"


class _Stopped(Exception):
    """The file that is read is not wanted any more."""


class Picture:
    """One report on one target's keys, as the rows of `files` with `newest` in their order; made by `Builder`.

    Used by any number of walks (`taken`, `left`); once it is `retired` the last of them closes it.
    """

    def __init__(self, database: sqlite3.Connection, manifest: Manifest, *, versions: bool) -> None:
        self.manifest, self.versions = manifest, versions
        self._database, self._guard = database, threading.Lock()
        self._users, self._retired = 0, False

    @property
    def retired(self) -> bool:
        """Whether another one has taken its place."""
        return self._retired

    def taken(self) -> None:
        """One walk more."""
        self._users += 1

    async def left(self) -> None:
        """One walk less."""
        self._users -= 1
        await self._close_if_done()

    async def retire(self) -> None:
        """Close it when nobody walks over it any more."""
        self._retired = True
        await self._close_if_done()

    async def fetch(self, after: Position, size: int = _PAGE) -> Chunk:
        """The rows after a position (not as it is kept), as a listing gives them.

        After a version that it does not have: from the first of its key on.
        """
        return await asyncio.to_thread(self._fetch, after, size)

    async def has(self, keys: Collection[str]) -> int:
        """How many of these keys it has."""
        return await asyncio.to_thread(self._has, list(keys))

    async def mark_gone(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        """These keys and ids of versions are not there any more, or are something else now."""
        await asyncio.to_thread(self._mark_gone, list(pairs))

    async def _close_if_done(self) -> None:
        if self._retired and not self._users:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._guard:
            self._database.close()

    def _fetch(self, after: Position, size: int) -> Chunk:
        at = time.monotonic()
        with self._guard:
            where, values = self._from(after)
            order = "key, newest, id" if self.versions else "key"
            found = self._database.execute(
                f"SELECT {_COLUMNS} FROM rows WHERE {where} AND NOT gone ORDER BY {order} LIMIT ?", (*values, size)
            ).fetchall()
        columns: list[tuple[Any, ...]] = list(zip(*found, strict=True)) if found else [()] * 6
        rows = _rows(columns, versions=self.versions)
        if len(found) < size:
            return Chunk(rows, None, at)
        last = rows.keys[-1]
        return Chunk(rows, (last,) if rows.ids is None else (last, rows.ids[-1]), at)

    def _from(self, after: Position) -> tuple[str, tuple[object, ...]]:
        if after is None:
            return "1", ()
        key = _bytes(after[0])
        if not self.versions or len(after) == 1:
            return "key > ?", (key,)
        there = self._database.execute("SELECT newest FROM rows WHERE key = ? AND id = ?", (key, after[1])).fetchone()
        if there is None:
            return "key >= ?", (key,)
        return "(key, newest, id) > (?, ?, ?)", (key, there[0], after[1])

    def _has(self, keys: list[str]) -> int:
        with self._guard:
            asked = ", ".join("?" * len(keys))
            sql = f"SELECT count(DISTINCT key) FROM rows WHERE key IN ({asked})"
            return int(self._database.execute(sql, [_bytes(key) for key in keys]).fetchone()[0])

    def _mark_gone(self, pairs: list[tuple[str, str | None]]) -> None:
        with self._guard:
            self._database.execute("BEGIN")
            self._database.executemany(
                "UPDATE rows SET gone = 1 WHERE key = ? AND id = ?",
                ((_bytes(key), (id_ or "") if self.versions else "") for key, id_ in pairs),
            )
            self._database.execute("COMMIT")


class Builder:
    """Takes rows in any order, and makes a picture of them; `folder` is where its files go (None: the system's)."""

    def __init__(self, folder: Path | None, *, versions: bool) -> None:
        self._versions, self._guard, self._stop = versions, threading.Lock(), False
        self._place = str(folder) if folder is not None else tempfile.gettempdir()
        self._database = _opened(self._place, versions=versions)

    def add(self, rows: Iterable[Row]) -> None:
        """Add these; raises what reading them raises, and Blind where there is no room."""
        database = self._database
        with self._guard, _room():
            database.execute("BEGIN")
            database.executemany("INSERT INTO raw.rows VALUES (?, ?, ?, ?, ?, ?)", self._until_stopped(rows))
            database.execute("COMMIT")

    def picture(self, manifest: Manifest) -> Picture:
        """All of them, sorted; of an object that was met twice the newest."""
        database = self._database
        with self._guard, _room(), _sorting_in(database, self._place):
            database.execute("BEGIN")
            database.execute("INSERT OR IGNORE INTO rows SELECT *, 0 FROM raw.rows ORDER BY key, newest, id")
            database.execute("COMMIT")
            database.execute("DETACH raw")
        return Picture(database, manifest, versions=self._versions)

    def close(self) -> None:
        """Give up what was begun."""
        self._stop = True
        with self._guard:
            self._database.close()

    def _until_stopped(self, rows: Iterable[Row]) -> Iterator[Row]:
        for at, row in enumerate(rows):
            if self._stop and at % _CHECK_EVERY == 0:
                raise _Stopped
            yield row


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Blind(
            f"the inventory can't be sorted: {error}",
            remedy="make room in state_dir: sorting takes about three times as much as the keys themselves",
        ) from error


@contextmanager
def _sorting_in(database: sqlite3.Connection, place: str) -> Iterator[None]:
    """What SQLite spills while it sorts goes to that folder: /tmp may be memory, and this is as large as all keys.

    The setting is of the whole process, so only one sorts at a time.
    """
    quoted = place.replace("'", "''")
    with _ONE_AT_A_TIME:
        database.execute(f"PRAGMA temp_store_directory='{quoted}'")
        try:
            yield
        finally:
            database.execute("PRAGMA temp_store_directory=''")


def _opened(place: str, *, versions: bool) -> sqlite3.Connection:
    with _room(), _nameless(place) as kept, _nameless(place) as raw:
        database = sqlite3.connect(kept, isolation_level=None, check_same_thread=False)
        try:
            database.execute("ATTACH ? AS raw", (raw,))
            for name in ("main", "raw"):
                for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
                    database.execute(f"PRAGMA {name}.{pragma}")
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA temp_store=FILE")
            columns = "key BLOB, newest INTEGER, id TEXT, size INTEGER, etag TEXT, marker INTEGER"
            primary = "key, newest, id" if versions else "key"
            database.execute(f"CREATE TABLE rows ({columns}, gone INTEGER, PRIMARY KEY ({primary})) WITHOUT ROWID")
            database.execute(f"CREATE TABLE raw.rows ({columns})")
        except BaseException:
            database.close()
            raise
        return database


@contextmanager
def _nameless(place: str) -> Iterator[str]:
    """A private file that has a name only for as long as the block lasts."""
    try:
        handle, name = tempfile.mkstemp(prefix=".retentiond-inventory-", dir=place)
    except OSError as error:
        raise Blind(
            f"no file can be made in {place}, where the inventory is sorted: {error.strerror}",
            remedy="set state_dir to a folder with room that retentiond may write to",
        ) from error
    os.close(handle)
    try:
        yield name
    finally:
        Path(name).unlink()


def _rows(columns: list[tuple[Any, ...]], *, versions: bool) -> Rows:
    keys, newest, ids, sizes, etags, markers = columns
    return Rows(
        [key.decode(errors="surrogateescape") for key in keys],
        [_instant(each) for each in newest],
        list(sizes),
        list(etags),
        list(ids) if versions else None,
        [bool(each) for each in markers] if versions else None,
    )


def _instant(newest: int) -> datetime:
    return EPOCH + timedelta(microseconds=-newest)


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")
