"""What lock a version is under, asked of the server; never told from the absence of headers that need a right."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal, TypeVar

from retentiond.errors import Blind, Refused
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import Lock
from retentiond.stores.s3.objects import head, legal_hold, retention

_T = TypeVar("_T")


class LocksNotTold(Blind):
    """Whether Object Lock keeps a version may not be seen."""


async def lock_of(bucket: Bucket, key: str, version_id: str | None) -> Lock | Literal["absent"] | None:
    """The lock of a version, None for none; raises LocksNotTold, Unreachable.

    Who may not read the object may still be allowed to read its lock, which then costs up to two requests more.
    """
    found = await head(bucket, key, version_id)
    if found.state == "absent":
        return "absent"
    if found.state != "denied":
        return found.lock
    if await _told(legal_hold(bucket, key, version_id)):
        return Lock(legal_hold=True)
    until = await _told(retention(bucket, key, version_id))
    return Lock(until=until) if until is not None else None


async def _told(asked: Awaitable[_T]) -> _T | None:
    """The answer; None where the server knows of no lock there."""
    try:
        return await asked
    except Refused:
        return None
    except Blind as error:
        raise LocksNotTold(error.message, remedy=error.remedy) from error
