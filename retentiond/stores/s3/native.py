"""Holds that the bucket keeps as well: a legal hold of Object Lock on every version that one of ours covers.

`settle` walks over all versions and writes what is missing, remembered as ours before it is written; what was on a
version already is somebody else's, and stays so. When no hold of ours covers a version any more, what is ours goes off
it. Versions that come later are found by the next look. All of it is defence in depth: our own sweeps mind each hold
whatever the bucket says, and a late or lost request here loosens nothing of that.

One process is at a bucket at a time, under a lease; and what it sends is refused by the server itself after an instant
that is long before the lease ends. So one that was stopped and comes back undoes nothing of what another has done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import canonical
from retentiond.domain.holds import Hold, TargetHold, covers_target
from retentiond.errors import Blind, Refused, RetentiondError, quoted
from retentiond.stores.base import AccountDirectory
from retentiond.stores.clock import Expiry
from retentiond.stores.covering import covered
from retentiond.stores.s3 import buckets
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.legalholds import write_legal_hold
from retentiond.stores.s3.native_memory import Memory, Standing, Version
from retentiond.stores.s3.objects import Absent, legal_hold
from retentiond.stores.s3.rows import Chunk, Position, Rows, fetch
from retentiond.stores.s3.store import S3Store

_ANSWER_SECONDS: Final = 12.0
"""What one call may take: a hold that waits for a large bucket must not keep others waiting."""
_MOST_SECONDS: Final = 30.0
"""After that a call is given up wherever it is: the endpoint hardly answers."""
_LOOK_SECONDS: Final = 600.0
_VERIFY_SECONDS: Final = 86_400.0
_LEASE_SECONDS: Final = 60.0
_WRITING_SECONDS: Final = 300.0
_EXPIRY: Final = timedelta(seconds=60)
"""A server may take its time with a request that came before its expiry: the lease is longer by minutes."""
_PAGE: Final = 500
_AT_ONCE: Final = 16


@dataclass(slots=True)
class _Pass:
    """One walk over all versions, as far as it has come.

    `written` has the digests of `wanted`, the holds that it writes; what one of `keeping` covers stays written. `sent`:
    a request is under way, or was never answered.
    """

    written: Mapping[str, str]
    wanted: Sequence[TargetHold]
    keeping: Sequence[TargetHold]
    verify: bool
    after: Position = None
    versions: int = 0
    sent: bool = False


@dataclass(slots=True)
class S3NativeHolds:
    """The legal holds of one target. `mended`: what a look found that somebody else had taken off.

    `can`: whether the bucket was seen to have Object Lock, or not looked at yet. One that has none keeps no hold from
    becoming active that only asked for it (`hold place --native`); with `native_holds` it does.
    """

    store: S3Store
    class_name: str
    memory: Memory
    directory: AccountDirectory | None
    mended: tuple[str, ...] = ()
    can: bool = True
    _pass: _Pass | None = None
    _left: bool = True
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def always(self) -> bool:
        """Whether every hold is written there; else those that ask for it."""
        return self.store.config.native_holds

    def concerned(self, known: Sequence[Hold]) -> list[str]:
        """The holds that are to be written there, and, as long as any may be, those that have ended."""
        ended = [hold.id for hold in known if not hold.holds and self._covers(hold)] if self._left else []
        return [*(hold.id for hold in self.wanted(known)), *ended]

    async def settle(self, known: Sequence[Hold]) -> dict[str, str]:
        """Bring the bucket in step; see `control.natives.NativeStep`. Nothing that it answers raises."""
        wanted = self._asking(known)
        try:
            async with asyncio.timeout(_MOST_SECONDS), self._settling:
                standing = await self.memory.standing()
                self._left = standing.any_left
                if not self.always and wanted:
                    self.can = (await buckets.lock(await self.store.place.bucket())).enabled
                    wanted = self.wanted(known)
                if not wanted and not standing.any_left and not standing.holds:
                    return {}
                why = await self._settle(known, standing)
                standing = await self.memory.standing()
                self._left = standing.any_left
                digests = await self._digests(wanted)
        except (RetentiondError, OSError, TimeoutError) as error:
            return dict.fromkeys(self.concerned(known), _told(error))
        unwritten = [each for each, digest in digests.items() if digest != standing.holds.get(each)]
        lacking = dict.fromkeys(unwritten, why or "not all of it is written yet")
        if why and not lacking:
            # Holds that have ended, and are not off yet.
            lacking = {h.id: why for h in known if not h.holds and h.id in standing.holds}
        return lacking

    async def leave(self) -> None:
        """Let others go on, where this process is in the midst of it and has asked for nothing that may come late."""
        if self._pass is not None and not self._pass.sent:
            self._pass = None
            with suppress(RetentiondError):  # then the lease runs out by itself
                await self.memory.leave()

    def _covers(self, hold: Hold) -> bool:
        return covers_target(hold.scope, target=self.store.name, class_name=self.class_name)

    def wanted(self, known: Sequence[Hold]) -> list[Hold]:
        """Those that are to be written there."""
        return self._asking(known) if self.can or self.always else []

    def _asking(self, known: Sequence[Hold]) -> list[Hold]:
        return [hold for hold in known if hold.holds and (self.always or hold.native) and self._covers(hold)]

    async def digest(self, hold: Hold) -> str:
        """Another text where the hold covers other records of the target; raises Blind, Unreachable."""
        return _digest(await self._hold(hold))

    async def taken_off(self, bucket: Bucket, most: int) -> tuple[int, int]:
        """Of the first of those that are ours and written, how many there are, and how many are off; Unreachable."""
        ours = await self.memory.all_ours(most, written=True)
        return len(ours), len(await _off(bucket, ours))

    async def _digests(self, holds: Sequence[Hold]) -> dict[str, str]:
        return {hold.id: await self.digest(hold) for hold in holds}

    async def _hold(self, hold: Hold) -> TargetHold:
        return await self.store.hold_by(hold, self.directory)

    async def _settle(self, known: Sequence[Hold], standing: Standing) -> str:
        """Why it is not all done yet; empty where it is."""
        verify = standing.verified is None or standing.verified > _VERIFY_SECONDS
        digests = await self._digests(self.wanted(known))
        fresh = standing.looked is not None and standing.looked < _LOOK_SECONDS
        if fresh and dict(standing.holds) == digests and self._pass is None:
            return ""
        if (now := await self.memory.take(_LEASE_SECONDS)) is None:
            return "another process is writing legal holds there"
        await self._begin(now, verify=verify)
        assert self._pass is not None
        bucket = await self._opened(bool(self._pass.wanted))
        until = time.monotonic() + _ANSWER_SECONDS
        more = self._walked if self._pass.keeping else self._cleared
        while await more(bucket, self._pass):
            if time.monotonic() > until:
                return f"{self._pass.versions} versions are looked at so far"
        await self.memory.done(self._pass.written, verified=self._pass.verify)
        self._pass = None
        return ""

    async def _begin(self, known: Sequence[Hold], *, verify: bool) -> None:
        """Go on with the walk that is under way, or begin anew where the holds are others than it goes by."""
        bearing = [hold for hold in known if hold.holds and self._covers(hold)]
        written = await self._digests(self.wanted(known))
        keeping = [await self._hold(hold) for hold in bearing]
        wanted = [hold for hold in keeping if hold.hold_id in written]
        if self._pass is None or (self._pass.written, self._pass.keeping) != (written, keeping):
            self._pass = _Pass(written, wanted, keeping, verify)

    async def _opened(self, writes: bool) -> Bucket:
        """The bucket, whose Object Lock is there if something is to be written; raises Blind."""
        place = self.store.place
        await place.open()
        bucket = await place.bucket()
        if writes and not (await buckets.lock(bucket)).enabled:
            raise Blind(
                f"bucket {bucket.name} has no Object Lock, so it can't keep a hold itself",
                remedy=f"make a bucket with Object Lock and move the objects there, or take targets.{self.store.name}"
                ".native_holds out: our own sweeps mind the hold all the same",
            )
        return bucket

    async def _walked(self, bucket: Bucket, walk: _Pass) -> bool:
        """One page of all versions; whether there is more."""
        if await self.memory.take(_LEASE_SECONDS) is None:
            raise Refused("another process has taken over")
        ground = self.store.ground()
        chunk: Chunk = await fetch(bucket, "versions", self.store.records[-1], walk.after, _PAGE)
        rows = chunk.rows
        page = await ground.sources.page(bucket, rows)
        wanted = await covered(walk.wanted, page, self.directory)
        keeping = await covered(walk.keeping, page, self.directory)
        ours = await self.memory.ours({_bytes(key) for key in rows.keys})
        versions = _versions(rows)
        lacks = [v for v, want in zip(versions, wanted, strict=True) if v is not None and want and not ours.get(v)]
        spare = [v for v, keep in zip(versions, keeping, strict=True) if v is not None and not keep and v in ours]
        there = [v for v, want in zip(versions, wanted, strict=True) if v is not None and want and ours.get(v)]
        await self._write(bucket, walk, lacks, ours)
        if walk.verify:
            await self._verify(bucket, walk, there)
        await self._take_off(bucket, walk, spare)
        walk.versions += len(rows)
        walk.after = chunk.after
        return chunk.after is not None

    async def _cleared(self, bucket: Bucket, walk: _Pass) -> bool:
        """Take off the next of all that are ours: no hold bears on the target any more; whether there are more."""
        left = await self.memory.all_ours(_PAGE)
        await self._take_off(bucket, walk, left)
        walk.versions += len(left)
        return bool(left)

    async def _write(self, bucket: Bucket, walk: _Pass, lacks: Sequence[Version], ours: Mapping[Version, bool]) -> None:
        """Put legal holds on; one that is there and not ours is somebody else's, and is left to them."""
        free = await _off(bucket, [each for each in lacks if each not in ours])
        if free:
            await self.memory.intend(free)
        todo = [each for each in lacks if each in ours or each in set(free)]
        gone = await self._send(bucket, walk, todo, on=True)
        await self.memory.wrote(set(todo) - gone)
        if gone:
            await self.memory.forget(gone)

    async def _verify(self, bucket: Bucket, walk: _Pass, there: Sequence[Version]) -> None:
        if off := await _off(bucket, there):
            await self.memory.intend(off)
            await self.memory.wrote(set(off) - await self._send(bucket, walk, off, on=True))
            self.mended = (*self.mended, f"{len(off)} legal holds had been taken off")

    async def _take_off(self, bucket: Bucket, walk: _Pass, spare: Sequence[Version]) -> None:
        if spare:
            # Whoever wants one of these from now on writes it again, whatever becomes of this.
            await self.memory.intend(spare)
            await self._send(bucket, walk, spare, on=False)
            await self.memory.forget(spare)

    async def _send(self, bucket: Bucket, walk: _Pass, versions: Sequence[Version], *, on: bool) -> set[Version]:
        """Write them until an instant that is long before the lease ends; those that are not there any more."""
        if not versions:
            return set()
        how = (await self.store.place.abilities()).how()
        begins = bucket.endpoint.clock.earliest()
        if await self.memory.take(_WRITING_SECONDS) is None:
            raise Refused("another process has taken over")
        expiry = Expiry(begins, begins + _EXPIRY)
        gone: set[Version] = set()

        async def one(each: Version) -> None:
            try:
                await write_legal_hold(bucket, _key(each), each[1], on=on, how=how, expiry=expiry)
            except Absent:
                gone.add(each)

        walk.sent = True
        await _several(one, versions)
        walk.sent = False
        return gone


async def _off(bucket: Bucket, versions: Sequence[Version]) -> list[Version]:
    """Those that are there and have no legal hold on them."""
    found: list[Version] = []

    async def look(each: Version) -> None:
        with suppress(Absent):
            if not await legal_hold(bucket, _key(each), each[1]):
                found.append(each)

    await _several(look, versions)
    return found


def _versions(rows: Rows) -> list[Version | None]:
    """The versions of the rows; None for a delete marker, which can't be held."""
    ids, markers = rows.ids or (), rows.markers or ()
    return [None if m else (_bytes(key), i) for key, i, m in zip(rows.keys, ids, markers, strict=True)]


def _digest(hold: TargetHold) -> str:
    """Another text where the hold covers other records."""
    told = {
        "accounts": sorted(hold.accounts) if hold.accounts is not None else None,
        "records": sorted(hold.records) if hold.records is not None else None,
        "prefixes": sorted(hold.prefixes),
        "since": rfc3339(hold.since) if hold.since else None,
        "until": rfc3339(hold.until) if hold.until else None,
    }
    return hashlib.sha256(canonical(told)).hexdigest()


async def _several(work: Callable[[Version], Awaitable[None]], versions: Sequence[Version]) -> None:
    """All of it, some at a time; the first error ends it."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Version) -> None:
        async with gate:
            await work(each)

    tasks = [asyncio.ensure_future(one(each)) for each in versions]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _key(version: Version) -> str:
    return version[0].decode(errors="surrogateescape")


def place_of(store: S3Store) -> tuple[str, bytes]:
    """By what its legal holds are remembered: the bucket, and what the target's keys begin with."""
    _, service, bucket, head = store.records
    return json.dumps([service, bucket]), _bytes(head)


def _told(error: RetentiondError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, RetentiondError) and error.remedy:
        return f"{error.message}; remedy: {error.remedy}"
    return quoted(error)
