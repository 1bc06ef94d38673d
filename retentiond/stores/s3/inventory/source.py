"""The inventory of one target: which report is taken, when it is read, and what is done where there is none.

Where no report is complete, or the newest is older than `max_age`, the bucket is listed, and `check` says so. A promise
that waits for reports which come no more would be broken in silence; a listing costs a fraction of a cent for a
thousand keys. A report that is there and can't be used (another bucket's, a column too few, a file that is not what its
manifest says) is an error instead: whoever asked for an inventory has to mend it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final

from retentiond.domain.duration import rfc3339
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Refused, Unreachable
from retentiond.stores.base import Tally, earliest
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.inventory.covering import require_covering
from retentiond.stores.s3.inventory.files import Wanted, require_reader, rows_of
from retentiond.stores.s3.inventory.manifest import DataFile, Manifest, Newest, newest, require_columns
from retentiond.stores.s3.inventory.picture import Builder, Picture
from retentiond.stores.s3.inventory.values import LATE
from retentiond.stores.s3.objects import pieces
from retentiond.stores.s3.rows import Listing

_LOOK_SECONDS: Final = 300.0
_AGAIN_SECONDS: Final = 3600.0
"""After which a report that could not be read is fetched again: a sweep that failed is tried again each minute."""


def not_before(plan: TargetPlan, manifest: Manifest) -> datetime | None:
    """Before that instant (UTC) nothing can be due by its term that the report does not have; None: never.

    An anchor is never before `LastModified`: a date in the key or a row only makes it later, and a copy or a restore
    begins `LastModified` anew. So what was written after the report has an anchor after it, and is due no sooner than
    after the shortest term. (That whatever comes in for an erased account is due at once is true of lists, too:
    `sweep.rest`.)
    """
    horizon = plan.horizon()
    return None if horizon is None else min(manifest.at, plan.now) - LATE + (plan.now - horizon)


def bounded(tally: Tally, plan: TargetPlan, picture: Picture) -> Tally:
    """The tally of a window of the picture, whose target may rest for no longer than the picture can tell."""
    unseen = not_before(plan, picture.manifest)
    return tally if unseen is None else replace(tally, next_due=earliest(tally.next_due, rfc3339(unseen)))


def age_of(manifest: Manifest, now: datetime) -> timedelta:
    """How long ago the report was begun."""
    return now - manifest.at


class Inventory:
    """The reports on one target; `bucket` gives the target's own, `folder` is where rows are sorted."""

    def __init__(self, config: S3Target, bucket: Callable[[], Awaitable[Bucket]], folder: Path | None) -> None:
        assert config.inventory is not None
        self._config, self._of, self._bucket, self._folder = config, config.inventory, bucket, folder
        self._looking, self._loading = asyncio.Lock(), asyncio.Lock()
        self._looked: float | None = None
        self._newest = Newest(None, 0)
        self._picture: Picture | None = None
        self._located: Bucket | None = None
        self._failed: tuple[tuple[Manifest, Listing], Blind, float] | None = None

    @property
    def location(self) -> str:
        """What the keys of its reports begin with."""
        return self._of.location(self._config.bucket)

    @property
    def max_age(self) -> timedelta:
        """Older reports are not taken."""
        return timedelta(microseconds=self._of.max_age.nominal())

    @property
    def as_of(self) -> datetime | None:
        """When the report was begun that is taken now; None where none is."""
        return self._picture.manifest.at if self._picture is not None else None

    async def bucket(self) -> Bucket:
        """Where the reports are."""
        source = await self._bucket()
        if self._of.bucket in (None, source.name):
            return source
        if self._located is None or self._located.endpoint is not source.endpoint:
            self._located = await source.endpoint.locate(self._of.bucket or "")
        return self._located

    async def look(self, listing: Listing, *, anew: bool = False) -> Newest:
        """See which report is the newest; `anew`: even if that was seen a moment ago.

        Raises Blind where it can't be used for this listing, Unreachable.
        """
        async with self._looking:
            if not anew and self._looked is not None and time.monotonic() - self._looked < _LOOK_SECONDS:
                return self._newest
            self._looked = None
            bucket = await self.bucket()
            await bucket.ask("HEAD")  # whatever it answers, it tells the time
            now = bucket.endpoint.clock.earliest()
            found = await newest(bucket, self.location, self._config.bucket, now=now)
            if found.manifest is not None:
                where = f"inventory {found.manifest.key}"
                require_columns(found.manifest.columns, versions=listing == "versions", where=where)
                require_reader(found.manifest)
            self._newest, self._looked = found, time.monotonic()
            return found

    async def picture(self, listing: Listing) -> Picture | None:
        """The rows of the newest report, read when first asked for; None: the bucket is to be listed.

        Whoever gets one has `taken` it. Raises Blind where it can't be read, Unreachable.
        """
        async with self._loading:
            await self._look_if_possible(listing)
            manifest, versions = self._newest.manifest, listing == "versions"
            if manifest is not None and await self._too_old(manifest):
                manifest = None
            known = self._picture
            if known is not None and (known.manifest, known.versions) != (manifest, versions):
                self._picture = None
                await known.retire()
            if manifest is None:
                return None
            if self._picture is None:
                self._picture = await self._read_once(manifest, listing)
            self._picture.taken()
            return self._picture

    async def _read_once(self, manifest: Manifest, listing: Listing) -> Picture:
        """The picture of the report; one that can't be read is not fetched again with every sweep that is tried."""
        failed = self._failed
        if failed is not None and failed[0] == (manifest, listing) and time.monotonic() - failed[2] < _AGAIN_SECONDS:
            raise Blind(failed[1].message, remedy=failed[1].remedy)
        try:
            picture = await self._covering(await self._read(manifest, versions=listing == "versions"), listing)
        except Blind as error:
            self._failed = ((manifest, listing), error, time.monotonic())
            raise
        self._failed = None
        return picture

    async def _look_if_possible(self, listing: Listing) -> None:
        """A walk that is under way goes on by what it has."""
        try:
            await self.look(listing)
        except Unreachable:
            if self._picture is None:
                raise
            self._looked = time.monotonic()

    async def _covering(self, picture: Picture, listing: Listing) -> Picture:
        try:
            await require_covering(await self._bucket(), listing, self._config.template().head, picture)
        except BaseException:
            await picture.retire()
            raise
        return picture

    async def close(self) -> None:
        """Give up what was read."""
        known, self._picture, self._looked = self._picture, None, None
        if known is not None:
            await known.retire()

    async def _too_old(self, manifest: Manifest) -> bool:
        return age_of(manifest, (await self.bucket()).endpoint.clock.earliest()) > self.max_age

    async def _read(self, manifest: Manifest, *, versions: bool) -> Picture:
        require_columns(manifest.columns, versions=versions, where=f"inventory {manifest.key}")
        bucket, folder = await self.bucket(), _writable(self._folder)
        head = self._config.template().head.encode(errors="surrogateescape")
        wanted = Wanted(self._config.bucket, head, versions)
        builder = await asyncio.to_thread(Builder, folder, versions=versions)
        try:
            for each in manifest.files:
                with tempfile.TemporaryFile(dir=folder) as kept:
                    await _fetch(bucket, each, kept)
                    await asyncio.to_thread(builder.add, rows_of(kept, each.key, manifest, wanted))
            return await asyncio.to_thread(builder.picture, manifest)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(builder.close))
            raise


async def _fetch(bucket: Bucket, file: DataFile, into: IO[bytes]) -> None:
    """The whole file, which is what the manifest says; raises Blind where it is not, Unreachable."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        async for piece in pieces(bucket, file.key, file.size):
            digest.update(piece)
            into.write(piece)
    except (Refused, OSError) as error:
        why = error.message if isinstance(error, Refused) else f"no room for it: {error.strerror}"
        raise Blind(
            f"inventory file {file.key} can't be fetched: {why}",
            remedy="see that it is there, of the size that its manifest says, and that there is room in state_dir",
        ) from error
    if digest.hexdigest() != file.md5:
        raise Blind(
            f"inventory file {file.key} is not the one of its manifest: its MD5 is another",
            remedy="see who writes there; the next report is taken when it is there",
        )
    into.seek(0)


def _writable(folder: Path | None) -> Path | None:
    """The folder, where files can be made in it; who only looks may not be who the daemon is."""
    return folder if folder is not None and os.access(folder, os.W_OK | os.X_OK) else None
