"""A hold on a log group removes the group's retention, since the service would erase by itself what the hold covers.

This only ever removes, which erases nothing, so any process may do it at any time and several at once. Setting a
retention again is erasing, and goes under a permit (`ceilings`). What a group had is remembered before it is removed.

A batch from before a hold may still set a retention; so a hold is in force here when no such batch can take effect any
more, and *after* that was seen no group that it bears on has a retention.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from retentiond.domain.holds import Hold, HoldState, covers_target
from retentiond.errors import Blind, Refused, RetentiondError, quoted
from retentiond.stores.base import AccountDirectory, Finding
from retentiond.stores.clock import Expiry
from retentiond.stores.cloudwatch import api
from retentiond.stores.cloudwatch.ceilings import Memory, Remembered
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.errors import error_of
from retentiond.stores.cloudwatch.retention import held
from retentiond.stores.cloudwatch.rows import DELIVERY, Group
from retentiond.stores.cloudwatch.store import CloudwatchStore
from retentiond.stores.rulings import Account

_MOST_SECONDS: Final = 30.0
_EXPIRY: Final = timedelta(seconds=60)
"""A request of a process that was stopped must not remove what has been set again after a release."""
_EARLIER = "a batch from before the hold may still let a log group erase by itself"


@dataclass(slots=True)
class LogRetentionHolds:
    """The retention of one target's groups under holds. `mended`: what somebody had set in spite of one."""

    store: CloudwatchStore
    class_name: str
    memory: Memory
    directory: AccountDirectory | None
    mended: tuple[str, ...] = ()
    always: bool = False
    """It keeps no delete of others from destroying a record, so nothing is said of it where a hold is placed."""
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def concerned(self, known: Sequence[Hold]) -> list[str]:
        """The holds that bear on the target."""
        return [hold.id for hold in self._bearing(known)]

    async def settle(self, known: Sequence[Hold]) -> dict[str, str]:
        """Remove retention where a hold bears; see `control.natives.NativeStep`. Nothing that it answers raises."""
        bearing = self._bearing(known)
        try:
            async with asyncio.timeout(_MOST_SECONDS), self._settling:
                return await self._settle(bearing)
        except (RetentiondError, OSError, TimeoutError) as error:
            return dict.fromkeys((hold.id for hold in bearing), _told(error))

    async def leave(self) -> None:
        """Nothing is under way."""

    async def findings(self, known: Sequence[Hold]) -> list[Finding]:
        """What `check` says: groups under a hold that erase by themselves, and what waits for being set again.

        Raises Blind, Unreachable.
        """
        name, endpoint = self.store.name, await self.store.place.endpoint()
        remembered, bearing = await self._remembered(), self._bearing(known)
        told: list[Finding] = []
        groups = await api.all_groups(endpoint, self.store.groups_of.head) if bearing or remembered else []
        of_interest = [
            each for each in groups if (each.days is not None and each.kind != DELIVERY) or each.name in remembered
        ]
        under = {each.name for each in await self._under(endpoint, of_interest, bearing)}
        if erasing := [each for each in of_interest if each.name in under and each.days is not None]:
            message = f"{len(erasing)} log groups under a hold have a retention, and erase by themselves"
            told.append(Finding("error", name, message, "retentiond run   # removes it, and remembers what it was"))
        if waiting := [each for each in of_interest if each.name not in under and each.days is None]:
            message = (
                f"the retention of {len(waiting)} log groups was removed for holds that are over, and is not set again"
            )
            told.append(Finding("info", name, message, "retentiond sweep   # in enforce mode, sets it again"))
        return told

    def _bearing(self, known: Sequence[Hold]) -> list[Hold]:
        return [
            hold
            for hold in known
            if hold.holds and covers_target(hold.scope, target=self.store.name, class_name=self.class_name)
        ]

    async def _settle(self, bearing: Sequence[Hold]) -> dict[str, str]:
        remembered = await self._remembered()
        if not bearing and not remembered:
            return {}
        # Before the look: what is seen afterwards no such batch can change.
        waiting = await self.memory.waits([hold.id for hold in bearing if hold.state is HoldState.PENDING])
        endpoint = await self.store.place.endpoint()
        groups = await api.all_groups(endpoint, self.store.groups_of.head)
        # A group of class DELIVERY erases after a day or two, and nothing can keep it from that: `native_rules` say so.
        erasing = [each for each in groups if each.days is not None and each.kind != DELIVERY]
        under = await self._under(endpoint, erasing, bearing)
        for group in under:
            await self._remove(endpoint, group)
        if under and all(hold.state is not HoldState.PENDING for hold in bearing):
            self.mended = (*self.mended, f"the retention of {len(under)} log groups, which a hold bears on")
        # Set again by a batch, whose end nobody heard of, or by somebody else; or gone.
        there, of_holds = {each.name for each in groups}, {group.name for group in under}
        again = {each.name for each in erasing} - of_holds
        for name, was in remembered.items():
            if name in again or name not in there:
                await self.memory.forget(name, was.removed_at)
        return dict.fromkeys(waiting, _EARLIER)

    async def _remembered(self) -> dict[str, Remembered]:
        """What is remembered of groups of this target."""
        found = await self.memory.remembered()
        return {name: each for name, each in found.items() if self.store.groups_of.fits(name)}

    async def _under(self, endpoint: Endpoint, groups: Sequence[Group], bearing: Sequence[Hold]) -> list[Group]:
        """Those of the groups that any of the holds bears on."""
        if not bearing or not groups:
            return []
        of = [await self.store.hold_by(hold, self.directory) for hold in bearing]
        made = [await self.store.groups_of.owned(endpoint, each) for each in groups]
        owned = [each for each in made if each is not None]
        asked = {each.account for each in owned if isinstance(each.account, str)}
        by_account = any(hold.accounts is not None for hold in of)
        texts = await self.directory.canonical(asked) if self.directory is not None and asked and by_account else {}

        def text(account: Account) -> Account:
            return texts.get(account, account) if isinstance(account, str) else account

        return [each.group for each in owned if held(of, text(each.account), each.group.name)]

    async def _remove(self, endpoint: Endpoint, group: Group) -> None:
        """Remove its retention and see that it is gone; raises whatever keeps that from being sure."""
        assert group.days is not None, "only groups that erase are asked about"
        await self.memory.remember(group.name, group.days)
        begins = endpoint.clock.earliest()
        window = await self._window()
        answer = await endpoint.destroy(
            "DeleteRetentionPolicy", {"logGroupName": group.name}, Expiry(begins, begins + _EXPIRY), window
        )
        if answer.trouble is not None and not answer.trouble.absent:
            raise error_of(answer.trouble, "removing the retention of a log group", "logs:DeleteRetentionPolicy")
        now = await api.group(endpoint, group.name)
        if now is not None and now.days is not None:
            raise Refused("the retention of a log group is there again", remedy="see who sets it")

    async def _window(self) -> timedelta | None:
        """For how long a signature is good; where that can't be told the request is signed as any other is."""
        try:
            return await self.store.place.window()
        except Blind:
            return None


def _told(error: RetentiondError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, RetentiondError) and error.remedy:
        return f"{error.message}; remedy: {error.remedy}"
    return quoted(error)
