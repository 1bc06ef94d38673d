"""Rotated log files as a store: read in windows of files, judged line by line, rewritten without what is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.duration import instant
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.permit import Outstanding
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import Blind, Unreachable
from retentiond.stores.base import (
    AccountDirectory,
    Fate,
    Finding,
    Matches,
    Tally,
    TierTally,
    Vitals,
    Window,
    earliest,
)
from retentiond.stores.files import inspect, lookup
from retentiond.stores.files.batch import FilesBatch
from retentiond.stores.files.changing import Changing
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.counting import counted
from retentiond.stores.files.folder import Folder
from retentiond.stores.files.ground import FILES, Ground, Walker, in_thread
from retentiond.stores.files.intent import fate
from retentiond.stores.files.presence import Presence
from retentiond.stores.files.texts import format_of
from retentiond.stores.holding import target_hold
from retentiond.stores.rulings import Rulings

_PLANS: Final = 4
_ACCOUNTS: Final = 200_000
_ALL: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class FilesExtent:
    """The files of a folder, by device and inode, whose names begin with a text."""

    folder: tuple[int, int]
    head: str

    def meets(self, other: object) -> bool:
        """Whether a file could be of both."""
        if not isinstance(other, FilesExtent) or self.folder != other.folder:
            return False
        return self.head.startswith(other.head) or other.head.startswith(self.head)


class FilesStore:
    """The log files of one folder; see `stores.base.Present` for what each method promises."""

    def __init__(self, name: str, config: FilesTarget, *, action: str, secret: bytes) -> None:
        """`secret` keys the hashes of fields that are anonymised so."""
        self.name, self.config, self.action = name, config, action
        self.records = config.records()
        self.described = f"lines of {config.path}"
        self._format = format_of(config)
        rules = config.anonymise.fields if action == "anonymise" and config.anonymise is not None else None
        self._changing = Changing(self._format, rules, secret) if rules is not None else None
        self._directory: AccountDirectory | None = None
        self._ground: Ground | None = None
        self._looking: list[Rulings] = []

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return self.config.store

    @property
    def fence(self) -> Literal["presence"]:
        """That its worker holds the lock file in the folder."""
        return "presence"

    @property
    def address(self) -> str:
        """The folder."""
        return f"files:{self.config.folder}"

    @property
    def anchor(self) -> None:
        """Positions name files."""
        return

    @property
    def rests(self) -> bool:
        """Looking at a folder costs nothing; files are remembered one by one."""
        return False

    @property
    def as_of(self) -> None:
        """Files are known as of now."""
        return

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """Nothing refers to a line."""
        return frozenset()

    @property
    def mark(self) -> str:
        """Lines have no schema."""
        return ""

    @property
    def partitions(self) -> None:
        """Records go one by one."""
        return

    async def open(self, accounts: AccountDirectory | None) -> None:
        """See that the folder is there; raises Blind, Unreachable."""
        self._directory = accounts
        if self._ground is not None and self._ground.folder.same:
            self._ground.directory = accounts
            return
        # A batch that is at work in the old one keeps it open.
        self._ground = await in_thread(self._opened)

    async def close(self) -> None:
        """Give up the folder."""
        self._ground = None

    async def extent(self) -> FilesExtent:
        """The folder, whatever its path is called."""
        folder = await in_thread(self._folder)
        try:
            return FilesExtent(folder.identity, self.config.head)
        finally:
            folder.close()

    async def clock(self) -> ClockReading:
        """A file system has no clock but this host's."""
        now = datetime.now(UTC)
        return ClockReading(now, now, same_machine=True)

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        try:
            ground = self._ground if self._ground is not None else await in_thread(self._opened)
        except (Blind, Unreachable) as error:
            return [Finding("error", self.name, error.message, error.remedy or "")]
        try:
            return await inspect.findings(ground)
        finally:
            if ground is not self._ground:
                ground.folder.close()

    async def native_rules(self) -> Sequence[NativeRule]:
        """What a rotation removes by itself is not known here; `check` speaks of it."""
        return ()

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of the directory."""
        return await self._directory.groups(class_name) if self._directory else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:  # noqa: ARG002 - rulings ask about each
        """None beforehand: whether an account is missing is told when its lines are read."""
        return ()

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold; one that names files or lines is on all lines that it does not leave out otherwise.

        A rotation gives files other names, and rewriting gives lines other numbers: what was named can't be told later.
        """
        knows_account = self.config.account is not None
        found = await target_hold(hold, target=self.name, knows_account=knows_account, directory=self._directory)
        return replace(found, records=None, prefixes=())

    async def total(self) -> int:
        """How many lines there are; those of files that are not remembered are counted."""
        return await self.counted(_ALL)

    async def counted(self, most: int) -> int:
        """How many lines there are, but at most `most`."""
        return await counted(self._there, most)

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:  # noqa: ARG002 - every rule needs every line
        """The one walk over the files."""
        return (FILES,)

    async def shards(self, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:  # noqa: ARG002
        """None: one disk, and one lock file."""
        return ()

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:  # noqa: ARG002 - of the names alone
        """What positions are of."""
        return ("file",)

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""
        return await Walker(self._there, plan, self._rulings(plan), erasing=False).walk(window)

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window."""
        return (await self.count(plan, window)).after

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many lines the hold covers."""
        knows_account = self.config.account is not None
        return await lookup.matches(self._there, hold, knows_account=knows_account, seconds=seconds)

    async def beyond(self, plan: TargetPlan) -> Tally | None:  # noqa: ARG002 - a walk has seen all, whatever the plan
        """The oldest anchor of each tier, where all files are remembered."""
        known = self._there.memory.all_of(await self._there.entries())
        if known is None:
            return None
        tiers: dict[str, TierTally] = {}
        for tally in known:
            for label, tier in tally.tiers.items():
                tiers[label] = tiers.get(label, TierTally()).plus(TierTally(first=tier.first))
        return Tally(tiers=tiers)

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """Which of the files have gone, or were replaced; what was begun with one is undone."""
        ground = self._there
        try:
            return await in_thread(lambda: fate(ground.folder, self.name, prepared))
        except OSError as error:
            raise Unreachable(
                f"what became of files of target {self.name} can't be seen: {error.strerror}",
                remedy="let this process read and write in their folder",
            ) from error
        finally:
            ground.stale()

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """A line by `FILE:NUMBER`, or a file by its name; raises NotFound, Blind."""
        return await lookup.record(self._there, plan, key)

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - it was reckoned by a plan
        """When lines that were read and kept are worth to be looked at again."""
        return self._there.memory.next_expiry(await self._there.entries())

    async def oldest(self, plan: TargetPlan) -> datetime | None:
        """The oldest anchor, where all files are remembered."""
        found = await self.beyond(plan)
        first = earliest(*(tier.first for tier in found.tiers.values())) if found is not None else None
        return None if first is None else instant(first)

    async def vitals(self, signals: Collection[str]) -> Vitals:  # noqa: ARG002 - a disk tells none
        """None are known."""
        return Vitals()

    async def upkeep(self) -> None:
        """Nothing is left behind."""
        return

    async def vacuum(self, seconds: float) -> None:
        """Nothing has to be."""

    async def require_unchanged(self) -> None:
        """Lines have no schema that could change."""

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the worker of that permit is gone: its lock is free, in just this folder."""

        def gone() -> bool:
            folder = self._folder()
            try:
                return Presence(folder, self.name).gone(permit.attended)
            finally:
                folder.close()

        return await in_thread(gone)

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[FilesBatch]:
        """One window under the plan."""
        batch = FilesBatch(self._there, plan, self._rulings)
        try:
            yield batch
        finally:
            await batch.close()

    @property
    def _there(self) -> Ground:
        assert self._ground is not None, "it is not open"
        return self._ground

    def _folder(self) -> Folder:
        return Folder(self.config.folder, self.config.names)

    def _opened(self) -> Ground:
        return Ground(self.name, self.config, self._folder(), self._format, self._changing, self._directory)

    def _rulings(self, plan: TargetPlan) -> Rulings:
        """The rulings that looks under the plan go by; what they know of accounts is as of when it was asked."""
        found = next((each for each in self._looking if each.plan is plan), None)
        if found is None or found.accounts > _ACCOUNTS:
            self._looking = [each for each in self._looking if each.plan is not plan][-_PLANS + 1 :]
            found = Rulings(plan)
            self._looking.append(found)
        return found
