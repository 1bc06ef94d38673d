"""Where the records of a table are kept that are archived before they are deleted: the configuration, and the contract.

A store that archives knows no kind of sink, and a sink no kind of store: the composition root gives one to the other.
What is written for a batch is two objects that are named after it: the records, and a manifest, which comes last. An
object without a manifest is no archive; and one whose batch is in no outcome of the ledger is of records that were
never deleted, since the manifest is written before the COMMIT that deletes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import ValidationInfo, field_validator

from retentiond.errors import Refused, RetentiondError
from retentiond.stores.access import AWS, BucketAccess, service_of
from retentiond.stores.config import RegionGroup, Unfit, group_of
from retentiond.stores.values import Archived, Finding

_CLEAR_SECONDS: Final = 5.0


class ArchivePlace(BucketAccess):
    """The bucket that archives go to; `region` and `region_group` as of a target.

    Names of regions mean something at AWS alone: what lies elsewhere has to say its `region_group`.
    """

    region: str | None = None
    region_group: RegionGroup | None = None

    @field_validator("region_group")
    @classmethod
    def _as_aws_says(cls, group: str | None, info: ValidationInfo) -> str | None:
        named = group_of(info.data.get("region"))
        at_aws = "endpoint_url" in info.data and service_of(info.data["endpoint_url"]) == AWS
        if at_aws and None not in {group, named} and named != group:
            raise Unfit(
                f"the region {info.data['region']} is one of {named}, not of {group}",
                "take region_group out: at AWS the region alone tells",
            )
        return group

    def group(self) -> str | None:
        """The regions that what is written there lies in; None: unknown."""
        if self.region_group is not None:
            return self.region_group
        return group_of(self.region) if service_of(self.endpoint_url) == AWS else None

    def require_within(self, group: str | None) -> None:
        """Raise Unfit unless it lies in the regions that the target's data may lie in (2-semantics, "Actions")."""
        mine = self.group()
        if group is None:
            raise Unfit(
                "in which regions the target's data may lie is not known, so nothing of it may be copied",
                "set the target's region, such as eu-central-1, or its region_group, such as eu",
            )
        if mine is None:
            remedy = "set archive.region to the bucket's region"
            if service_of(self.endpoint_url) != AWS:
                remedy = f"set archive.region_group ({group} if it lies there): names of regions mean something at AWS"
            raise Unfit("in which regions the archive lies is not known, so nothing may be copied there", remedy)
        if mine != group:
            raise Unfit(
                f"the archive lies in {mine}, and the target's data may lie in {group} alone",
                f"name a bucket that lies in {group}",
            )


@dataclass(frozen=True, slots=True)
class Label:
    """What the objects of one batch are named after: its target, its id, and when its permit was issued."""

    target: str
    batch: str
    issued_at: datetime

    @property
    def stem(self) -> str:
        """What their names begin with, below the archive's prefix."""
        return f"{self.target}/{self.issued_at.astimezone(UTC):%Y/%m/%d}/{self.batch}"


@dataclass(frozen=True, slots=True)
class Kept:
    """An object that a sink has of a batch: its key, and how many bytes it has."""

    batch: str
    key: str
    size: int


class Sink(Protocol):
    """Keeps what is archived."""

    async def write(self, label: Label, about: Mapping[str, Any], lines: AsyncIterator[bytes]) -> Archived:
        """Write the records (whole lines, in chunks) and what the manifest says `about` them; read both back, compare.

        Raises NotArchived where that fails, Blind where it is not allowed; what was written by then may be there.
        """

    async def remove(self, label: Label) -> None:
        """Remove what there is of that batch; raises Blind, Refused, Unreachable."""

    def kept(self, target: str) -> AsyncIterator[Kept]:
        """All that there is of the target's batches, whatever became of them; raises Blind, Refused, Unreachable."""

    async def findings(self, target: str) -> list[Finding]:
        """What `check` says of it."""

    async def close(self) -> None:
        """Give up all connections."""


class Attempt:
    """What one batch writes: removed again by `clear` unless the batch's COMMIT was sent."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written: Label | None = None

    async def write(self, label: Label, about: Mapping[str, Any], lines: AsyncIterator[bytes]) -> Archived:
        """As `Sink.write`."""
        self._written = label
        return await self._sink.write(label, about, lines)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """While COMMIT is sent: from then on only who knows that it surely was rolled back may remove anything."""
        written, self._written = self._written, None
        try:
            yield
        except Refused:
            self._written = written
            raise

    async def clear(self) -> None:
        """Remove what is not to stay; what can't be removed now is harmless, and is told by `retentiond tidy`."""
        if self._written is not None:
            await clear(self._sink, self._written)


async def clear(sink: Sink, label: Label) -> bool:
    """Remove what a batch that took no effect has left, if that can be done at once; whether it was."""
    with suppress(RetentiondError, TimeoutError):
        async with asyncio.timeout(_CLEAR_SECONDS):
            await sink.remove(label)
            return True
    return False
