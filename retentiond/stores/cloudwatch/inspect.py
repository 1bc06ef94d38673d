"""What `check` says of log groups: what the endpoint can, which rights are missing, and how the groups are set.

Rights are found out by asking, and by nothing that would change anything: those to delete a stream and to set a
retention on a group that there is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from retentiond.domain.policy import DataClass
from retentiond.errors import RetentiondError, Unreachable
from retentiond.stores.base import Finding
from retentiond.stores.cloudwatch import abilities, api
from retentiond.stores.cloudwatch.batch import Ground
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.place import UNFENCED, unfenced_remedy
from retentiond.stores.cloudwatch.retention import PERMITTED
from retentiond.stores.cloudwatch.rows import STANDARD, milliseconds_of
from retentiond.stores.cloudwatch.walk import Owned
from retentiond.stores.rulings import Untold

_LATE: Final = timedelta(hours=72)
"""How long the service may take to delete what is past the retention, by its documentation (API_PutRetentionPolicy)."""
_SAMPLE: Final = 20


async def findings(ground: Ground, data_class: DataClass) -> list[Finding]:
    """All that is to be said of a target; what can't be looked at is an error among it."""
    del data_class  # its terms are judged against native expiry by whoever asks for the rules
    name = ground.name
    try:
        endpoint = await ground.place.endpoint()
        groups, others = await _groups(ground, endpoint)
    except RetentiondError as error:
        return [_broken(name, error)]
    told = _of_groups(ground, groups, others)
    looks: Sequence[Callable[[], Awaitable[list[Finding]]]] = (
        lambda: _fence(ground, endpoint),
        lambda: _rights(ground, endpoint, groups),
        lambda: _still_there(ground, endpoint, groups),
    )
    for look in looks:
        try:
            told += await look()
        except RetentiondError as error:
            told.append(_broken(name, error))
    return list(dict.fromkeys(told))


async def _groups(ground: Ground, endpoint: Endpoint) -> tuple[list[Owned], int]:
    """The target's groups, and how many begin as they do and are none of them."""
    found, others, token = [], 0, None
    while True:
        page, token = await api.groups(endpoint, ground.groups.head, token=token)
        for each in page:
            owned = await ground.groups.owned(endpoint, each)
            others += owned is None
            found += [owned] if owned is not None else []
        if token is None:
            return found, others


def _of_groups(ground: Ground, groups: Sequence[Owned], others: int) -> list[Finding]:
    """What the groups' names, tags and classes are."""
    name, told = ground.name, list[Finding]()
    if not groups:
        message = f"no log group fits {ground.config.groups}" + (f", though {others} begin so" if others else "")
        told.append(Finding("warning", name, message, f"set targets.{name}.groups to how the groups are called"))
    elif others:
        message = f"{others} log groups begin as the target's and don't fit {ground.config.groups}: they are not swept"
        told.append(Finding("info", name, message, f"make another target for them, or widen targets.{name}.groups"))
    if untagged := sum(isinstance(each.account, Untold) for each in groups):
        message = f"{untagged} log groups lack the tag for the account: they are kept, and under every hold on one"
        told.append(Finding("warning", name, message, "tag them"))
    if unread := sum(each.group.kind != STANDARD for each in groups):
        message = (
            f"{unread} log groups are not of the class STANDARD: the events of their streams can't be read before they "
            "would go, so that they are kept; only their retention erases"
        )
        told.append(Finding("warning", name, message, "rely on their retention, or use the class STANDARD"))
    if odd := sum(each.group.days is not None and each.group.days not in PERMITTED for each in groups):
        message = f"{odd} log groups have a retention that AWS does not permit: this is not AWS"
        told.append(Finding("info", name, message))
    return told


async def _fence(ground: Ground, endpoint: Endpoint) -> list[Finding]:
    window = await abilities.window_of(endpoint, ground.groups.head)
    if window is not None:
        return []
    accepted = ground.config.unfenced
    return [Finding("warning" if accepted else "error", ground.name, UNFENCED, unfenced_remedy(ground.name))]


async def _rights(ground: Ground, endpoint: Endpoint, groups: Sequence[Owned]) -> list[Finding]:
    """What is not even allowed for a stream, or a group, that is not there."""
    scratch = f".retentiond-check-{uuid.uuid4().hex}"
    absent = f"{ground.groups.head}{scratch}"[:512]
    there = groups[0].group.name if groups else absent
    asked: list[tuple[str, dict[str, Any]]] = [
        ("DescribeLogStreams", {"logGroupName": there, "limit": 1}),
        ("GetLogEvents", {"logGroupName": there, "logStreamName": scratch, "limit": 1}),
        ("DeleteLogStream", {"logGroupName": there, "logStreamName": scratch}),
    ]
    # A right may well be granted on the one group alone that a target names, and there it must not be tried.
    if ground.config.names().template is not None:
        asked.append(("DeleteRetentionPolicy", {"logGroupName": absent}))
        if ground.config.retention == "manage":
            asked.append(("PutRetentionPolicy", {"logGroupName": absent, "retentionInDays": PERMITTED[-1]}))
    told = []
    for action, body in asked:
        try:
            answer = await endpoint.try_to(action, body)
        except Unreachable as error:
            told.append(_broken(ground.name, error))
            continue
        if answer.trouble is not None and answer.trouble.denied:
            right = f"logs:{action}"
            message = f"{right} is not granted: {_NEEDED[action]}"
            told.append(Finding("error", ground.name, message, f"grant {right} on the log groups of the target"))
    return told


async def _still_there(ground: Ground, endpoint: Endpoint, groups: Sequence[Owned]) -> list[Finding]:
    """Whether the service has erased by itself what is past a retention for longer than it says that it takes."""
    late = unread = 0
    now = endpoint.now()
    looked = [each.group for each in groups if each.group.days is not None and each.group.kind == STANDARD][:_SAMPLE]
    for group in looked:
        assert group.days is not None
        until = now - timedelta(days=group.days) - _LATE
        left = await api.oldest_left(endpoint, group.name, milliseconds_of(until))
        late += left is True
        unread += left is None
    told = []
    if late:
        message = f"of {len(looked)} log groups {late} still have events that are past their retention by over 72 hours"
        remedy = "wait, if the retention was set or changed of late; else ask AWS' support"
        told.append(Finding("warning", ground.name, message, remedy))
    if unread:
        message = f"whether {unread} log groups have erased what is past their retention could not be read to the end"
        told.append(Finding("info", ground.name, message))
    return told


def _broken(name: str, error: RetentiondError) -> Finding:
    return Finding("error", name, error.message, error.remedy or "")


_NEEDED: Final = {
    "DescribeLogStreams": "streams can't be listed",
    "GetLogEvents": "no stream goes whose newest event can't be read right before",
    "DeleteLogStream": "streams can't be deleted",
    "DeleteRetentionPolicy": "a hold can't remove the retention of a log group",
    "PutRetentionPolicy": "the retention of log groups can't be set",
}
