"""Whose each object is, of which tier and how old, where its key does not tell: its tags, or the row that owns it.

Tags cost a call for every object, rows one question a page. Both can change while the object does not, so what is about
to be erased is asked about again under the permit. What lacks a tag or a row is unresolved, and under every hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from retentiond.stores.base import AccountDirectory
from retentiond.stores.judging import Page
from retentiond.stores.rulings import Account, Untold
from retentiond.stores.s3.config import S3Target, Tags
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.objects import tags as tags_of
from retentiond.stores.s3.reading import Reading
from retentiond.stores.s3.rows import Rows

_AT_ONCE = 16


class Owner(Protocol):
    """What the row that owns an object says of it."""

    @property
    def account(self) -> str | None:
        """Whose it is."""

    @property
    def tier(self) -> str | None:
        """Its tier."""

    @property
    def anchor(self) -> datetime | None:
        """When it began (UTC); None where it can't be told."""


class Owners(Protocol):
    """The target whose rows own the objects."""

    @property
    def names_account(self) -> bool:
        """Whether its rows say whose they are."""

    @property
    def names_tier(self) -> bool:
        """Whether its rows say their tier."""

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that they can be read; raises Blind, Unreachable."""

    async def orphans(self) -> tuple[int, int]:
        """Of the newest rows how many were looked at, and how many of them own nothing any more."""

    async def owners(self, keys: Collection[str]) -> Mapping[str, Owner]:
        """The owners of the objects of these keys, as they are now; raises Blind, Unreachable.

        Absent: there is no row, or there are several that don't say the same of whose it is.
        """


class Sources:
    """Makes the pages of one target; `owners` where it is paired."""

    def __init__(self, config: S3Target, reading: Reading, owners: Owners | None = None) -> None:
        self._tags, self._reading, self._owners = config.tags, reading, owners
        tagged = config.tags is not None and config.tags.account is not None
        names_account = config.account is not None or tagged or "account" in config.template().names
        self._account_of_row = owners is not None and not names_account
        self._tier_of_row = owners is not None and owners.names_tier and not config.has_tier and config.tier is None

    async def page(self, bucket: Bucket, rows: Rows) -> Page:
        """The records of the rows, as they are judged; raises Blind, Unreachable."""
        page = self._reading.page(rows)
        if self._tags is None and self._owners is None:
            return page
        return await self._asked(bucket, rows, page, range(len(rows)))

    async def again(self, bucket: Bucket, rows: Rows, page: Page, indices: Collection[int]) -> Page:
        """The page with what can change of these records asked anew; the same page where nothing can."""
        if self._tags is None and self._owners is None:
            return page
        return await self._asked(bucket, rows, page, indices)

    async def after(self, bucket: Bucket, rows: Rows, before: Page, was: Sequence[int | None]) -> Page:
        """The records of the rows, of which some were on a page before: only the others are asked about."""
        page = self._reading.page(rows)
        if self._tags is None and self._owners is None:
            return page
        into = _Columns.of(page)
        for i, at in enumerate(was):
            if at is not None:
                into.accounts[i], into.anchors[i] = before.accounts[at], before.anchors[at]
                into.tiers[i] = before.tiers[at] if before.tiers is not None else None
        return await self._asked(bucket, rows, into.page(page), [i for i, at in enumerate(was) if at is None])

    async def _asked(self, bucket: Bucket, rows: Rows, page: Page, indices: Collection[int]) -> Page:
        plain = self._reading.page(rows)
        into = _Columns.of(page)
        records = [i for i in indices if rows.markers is None or not rows.markers[i]]
        if self._tags is not None:
            await self._ask_tags(bucket, rows, self._tags, records, into)
        owners: Mapping[str, Owner] = {}
        if self._owners is not None:
            owners = await self._owners.owners({rows.keys[i] for i in indices})
            for i in records:
                self._own(i, owners.get(rows.keys[i]), rows, plain, into)
        self._mark(rows, [i for i in indices if rows.markers is not None and rows.markers[i]], into, owners)
        return into.page(page)

    async def _ask_tags(
        self, bucket: Bucket, rows: Rows, wanted: Tags, indices: Collection[int], into: _Columns
    ) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(i: int) -> None:
            found: Mapping[str, str] | None = None
            if not rows.of_uploads:  # an upload gets its tags when it is completed
                async with gate:
                    found = await tags_of(bucket, rows.keys[i], rows.ids[i] if rows.ids is not None else None)
            _take_tags(found or {}, wanted, i, into)

        tasks = [asyncio.ensure_future(one(i)) for i in indices if into.accounts[i] is not Untold.KEY]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _own(self, i: int, owner: Owner | None, rows: Rows, plain: Page, into: _Columns) -> None:
        if into.accounts[i] is Untold.KEY or into.accounts[i] is Untold.TAG:
            return
        if owner is None:
            # The row of an upload is made when it is completed: what needs none can be judged without.
            if not rows.of_uploads or self._account_of_row or self._tier_of_row:
                into.accounts[i] = Untold.OWNER
            return
        if self._account_of_row:
            into.accounts[i] = owner.account
        elif into.accounts[i] is Untold.OWNER:
            into.accounts[i] = plain.accounts[i]
        if self._tier_of_row:
            into.tiers[i] = owner.tier
        modified = plain.anchors[i]
        into.anchors[i] = None if owner.anchor is None or modified is None else max(modified, owner.anchor)

    def _mark(self, rows: Rows, markers: Sequence[int], into: _Columns, owners: Mapping[str, Owner]) -> None:
        """A delete marker is whose the newest version of its key is, if one is at hand; else as its key tells."""
        if not markers:
            return
        newest: dict[str, int] = {}
        for i, key in enumerate(rows.keys):
            if rows.markers is not None and not rows.markers[i]:
                newest.setdefault(key, i)
        for i in markers:
            of, owner = newest.get(rows.keys[i]), owners.get(rows.keys[i])
            if of is not None:
                into.accounts[i], into.tiers[i] = into.accounts[of], into.tiers[of]
            elif self._tags is not None:
                into.accounts[i] = Untold.TAG
            elif owner is not None:
                into.accounts[i] = owner.account if self._account_of_row else into.accounts[i]
                into.tiers[i] = owner.tier if self._tier_of_row else into.tiers[i]
            elif self._account_of_row or self._tier_of_row:
                into.accounts[i] = Untold.OWNER


@dataclass(slots=True)
class _Columns:
    """The columns of a page while they are filled in."""

    accounts: list[Account]
    tiers: list[str | None]
    anchors: list[datetime | None]

    @classmethod
    def of(cls, page: Page) -> _Columns:
        """Those of a page, to be changed."""
        tiers: list[str | None] = list(page.tiers or [None] * len(page.keys))
        return cls(list(page.accounts), tiers, list(page.anchors))

    def page(self, of: Page) -> Page:
        """The page with these; the very page where they are what it has."""
        tiers = self.tiers if of.tiers is not None or any(each is not None for each in self.tiers) else None
        made = replace(of, accounts=self.accounts, tiers=tiers, anchors=self.anchors)
        same = list(of.accounts) == self.accounts and list(of.anchors) == self.anchors
        return of if same and (tiers is None or list(of.tiers or ()) == tiers) else made


def _take_tags(found: Mapping[str, str], wanted: Tags, i: int, into: _Columns) -> None:
    """Read the account and the tier of these tags; what lacks one that is wanted is unresolved."""
    if any(name is not None and not found.get(name) for name in (wanted.account, wanted.tier)):
        into.accounts[i] = Untold.TAG
        return
    if wanted.account is not None:
        into.accounts[i] = found[wanted.account]
    if wanted.tier is not None:
        into.tiers[i] = found[wanted.tier]
