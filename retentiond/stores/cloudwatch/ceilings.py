"""The walk over groups that sets what they erase by themselves: under a permit, as all erasing, and in enforce mode.

A group that a hold bears on is never touched here: what removes its retention is `native`, before the hold is active.
What was removed for a hold is put back here when none bears on the group any more: as the policy has it by then
(`retention: manage`), or as it was (`leave`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from retentiond.domain.plan import TargetPlan
from retentiond.errors import Refused
from retentiond.stores.base import AccountDirectory, Fate, Tally
from retentiond.stores.cloudwatch import api
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.deleting import NO_TIME, Done, Sent, destroy
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.retention import held, longest_term, rounded_up
from retentiond.stores.cloudwatch.rows import DELIVERY, Group
from retentiond.stores.cloudwatch.walk import Groups, Owned
from retentiond.stores.rulings import Rulings, Untold

NEVER = "never"


class Remembered(Protocol):
    """What a group had as its retention before a hold removed it, in days, and when it last was removed."""

    @property
    def days(self) -> int:
        """After how many days it erased by itself."""

    @property
    def removed_at(self) -> datetime:
        """When that was about to be removed."""


class Memory(Protocol):
    """What the control database remembers of the target's groups; see `control.log_retention`."""

    async def remembered(self) -> Mapping[str, Remembered]:
        """The retention that was removed for a hold, by group: of all groups of the service and region."""

    async def remember(self, group: str, days: int) -> None:
        """It is about to be removed; of what is remembered already the days stay."""

    async def forget(self, group: str, since: datetime) -> None:
        """It is set again, or the group is gone; unless it was removed again since it was seen to be remembered."""

    async def waits(self, holds: Sequence[str]) -> set[str]:
        """Those of the holds that a batch from before them may still take effect against."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the retention of a group is to be, in days; None: never. `shortens`: it erases what would stay else."""

    group: str
    days: int | None
    shortens: bool = False

    @property
    def text(self) -> str:
        """As it is counted."""
        return NEVER if self.days is None else str(self.days)


@dataclass(frozen=True, slots=True)
class Changes:
    """A page of changes, the name of the last group where more may follow, and how many groups it went by.

    Those are the groups whose retention is set here, changed or not: what shortening is a share of.
    """

    wanted: list[Ceiling]
    last: str | None
    groups: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What is to be changed of a page of groups."""

    config: CloudwatchTarget
    groups: Groups
    directory: AccountDirectory | None
    remembered: Mapping[str, Remembered]

    async def page(self, endpoint: Endpoint, plan: TargetPlan, after: str | None, most: int) -> Changes:
        """The next changes, at most so many."""
        if self.config.retention == "leave" and not self.remembered:
            return Changes([], None, 0)
        found: list[Ceiling] = []
        met: list[str] = []
        token: str | None = None
        while True:
            owned, token = await self.groups.page(endpoint, token, after)
            new = [each for each in owned if after is None or each.group.name > after]
            met += [each.group.name for each in new if _is_set_here(each)]
            found += await self.wanted(plan, new)
            if len(found) > most or (len(found) == most and token is not None):
                last = found[most - 1].group
                return Changes(found[:most], last, sum(name <= last for name in met))
            if token is None:
                return Changes(found, None, len(met))

    async def wanted(self, plan: TargetPlan, owned: Sequence[Owned]) -> list[Ceiling]:
        """What is to be changed of these groups as they are now."""
        rulings = Rulings(plan)
        await rulings.ask([each.account for each in owned], self.directory)
        return [found for each in owned if (found := self._of(plan, rulings, each)) is not None]

    def _of(self, plan: TargetPlan, rulings: Rulings, owned: Owned) -> Ceiling | None:
        group, account = owned.group, owned.account
        if not _is_set_here(owned) or isinstance(account, Untold):
            return None
        if held(plan.holds, rulings.facts(account)[0], group.name):
            return None
        days = rounded_up(longest_term(plan, account, owned.tier))
        if self.config.retention == "leave":
            # The law is no choice of whoever had set it.
            shorter = plan.data_class.minimum and days is not None
            was = self.remembered.get(group.name)
            if was is None or group.days is not None or (plan.data_class.minimum and days is None):
                return None
            return Ceiling(group.name, max(was.days, days or 0) if shorter else was.days)
        return Ceiling(group.name, days, self._shortens(group, days)) if group.days != days else None

    def _shortens(self, group: Group, days: int | None) -> bool:
        """Whether events go by it that would stay else; of a group that a hold had it taken from, else before that.

        Who released the hold has asked for what it had to be put back.
        """
        was = self.remembered.get(group.name)
        had = group.days if group.days is not None or was is None else was.days
        return days is not None and (had is None or days < had)


def _is_set_here(owned: Owned) -> bool:
    return owned.group.kind != DELIVERY and not isinstance(owned.account, Untold)


def document(ceilings: Sequence[Ceiling]) -> Mapping[str, Any]:
    """As it is written down before anything is sent."""
    return {"what": "ceilings", "groups": [each.group for each in ceilings], "days": [each.days for each in ceilings]}


def counted(ceilings: Sequence[Ceiling]) -> dict[str, int]:
    """How many groups get each retention."""
    return dict(Counter(each.text for each in ceilings))


async def set_all(
    sent: Sent, ceilings: Sequence[Ceiling], memory: Memory | None, remembered: Mapping[str, Remembered]
) -> tuple[list[Done], bool]:
    """Set them, each once; what became of each, and whether all that was done was read back."""
    done: list[Done] = []
    read_back = True
    for each in ceilings:
        await sent.pacer.take()
        found = await destroy(sent, *_request(each))
        done.append(found)
        if found.outcome == "erased":
            now = await api.group(sent.endpoint, each.group)
            read_back = read_back and now is not None and now.days == each.days
        was = remembered.get(each.group)
        if was is not None and memory is not None and found.outcome in ("erased", "gone"):
            await memory.forget(each.group, was.removed_at)
        if found.outcome == "unknown" or found.code == NO_TIME:
            break
    return done + [Done("passed over", "NotAsked")] * (len(ceilings) - len(done)), read_back


async def looked_for(endpoint: Endpoint, prepared: Mapping[str, Any]) -> Fate:
    """Which of the groups that were to get a retention have it."""
    wanted = [Ceiling(*each) for each in zip(prepared["groups"], prepared["days"], strict=True)]
    there = []
    for each in wanted:
        now = await api.group(endpoint, each.group)
        if now is not None and now.days == each.days:
            there.append(each)
    return Fate("looked", Tally(ceilings=counted(there)))


def refusal(name: str, done: Sequence[Done]) -> Refused:
    """Why some could not be set, by the first of them."""
    first = next(each for each in done if each.outcome in ("denied", "failed"))
    if first.outcome == "denied":
        return Refused(
            f"target {name}: the retention of log groups may not be set ({first.code})",
            remedy="grant logs:PutRetentionPolicy and logs:DeleteRetentionPolicy on the log groups of the target, or "
            f"set targets.{name}.retention to leave",
        )
    return Refused(
        f"target {name}: the retention of a log group is refused: {first.code}",
        remedy=f"see the documentation of PutRetentionPolicy for this code, or set targets.{name}.retention to leave",
    )


def _request(ceiling: Ceiling) -> tuple[str, dict[str, object]]:
    body: dict[str, object] = {"logGroupName": ceiling.group}
    if ceiling.days is None:
        return "DeleteRetentionPolicy", body
    return "PutRetentionPolicy", {**body, "retentionInDays": ceiling.days}
