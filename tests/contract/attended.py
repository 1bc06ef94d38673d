"""The smallest store whose fence is its worker's presence: the keepsake's objects, at a server that enforces nothing.

Who works at it signs a book, and crosses its name out when it leaves or dies; one that is only stopped stays in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from retentiond.domain.permit import Outstanding, Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Unreachable
from retentiond.stores.base import Tally, Window
from tests.contract.keepsake import Keepsake, KeepsakeBatch

FAR = timedelta(days=1000)
BOOKS: dict[str, set[str]] = {}
"""By server, who is there."""


class Attended(Keepsake):
    """One target; see `stores.base.Present` for what each method promises."""

    fence: Literal["presence"] = "presence"
    reachable = True

    @property
    def book(self) -> set[str]:
        return BOOKS.setdefault(self.config.server, set())

    async def fence_passed(self, permit: Outstanding) -> bool:
        if not self.reachable:
            raise Unreachable("the book can't be read from here")
        return permit.attended["name"] not in self.book

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[AttendedBatch]:
        batch = AttendedBatch(self, plan)
        try:
            yield batch
        finally:
            self.book.discard(batch.name)


class AttendedBatch(KeepsakeBatch):
    """One window of it."""

    def __init__(self, store: Attended, plan: TargetPlan) -> None:
        super().__init__(store, plan)
        self.name = uuid4().hex

    async def attend(self) -> Mapping[str, Any]:
        if self._store.book:
            raise Unreachable("another worker is there")
        self._store.book.add(self.name)
        return {"name": self.name}

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        assert self.name in self._store.book
        items = [(each["key"], each["etag"]) for each in self._due]
        said = await self._store.server.delete(items, expires=datetime.now(UTC) + FAR)
        assert said is not None
        return self.told(said)
