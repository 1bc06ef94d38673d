"""The calls of CloudWatch Logs that this store makes, as functions of ours.

Each needs the right of its own name (`logs:DescribeLogGroups`). Pages of events "might only be partially full, or even
empty": one is at the end only when a token comes back that was sent (API_GetLogEvents, API_FilterLogEvents).
"""

from __future__ import annotations

from typing import Any, Final

from retentiond.errors import Unreachable
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.errors import Absent
from retentiond.stores.cloudwatch.rows import Group, Stream

_PAGE: Final = 50
_MOST_PAGES: Final = 200
"""Pages of events without one in them: more, and nothing can be said of the stream."""


async def groups(
    endpoint: Endpoint, head: str, *, token: str | None = None, limit: int = _PAGE
) -> tuple[list[Group], str | None]:
    """A page of the groups whose names begin so, in the order of their names, and the token of the next; no tags."""
    asked: dict[str, Any] = {"limit": limit}
    if head:
        asked["logGroupNamePrefix"] = head
    if token:
        asked["nextToken"] = token
    page = await endpoint.ask("DescribeLogGroups", asked, "listing log groups")
    return [Group.of(told) for told in page.get("logGroups") or ()], page.get("nextToken") or None


async def all_groups(endpoint: Endpoint, head: str) -> list[Group]:
    """All groups whose names begin so; no tags are among it."""
    found, token = await groups(endpoint, head)
    while token is not None:
        more, token = await groups(endpoint, head, token=token)
        found += more
    return found


async def group(endpoint: Endpoint, name: str) -> Group | None:
    """That group as it is now; None where there is none."""
    found, _ = await groups(endpoint, name, limit=1)
    # It comes first of all that begin with its name.
    return found[0] if found and found[0].name == name else None


async def tags(endpoint: Endpoint, group: Group) -> dict[str, str]:
    """The tags of a group; none where it is gone."""
    found = await endpoint.ask_if_there(
        "ListTagsForResource", {"resourceArn": group.arn}, "reading the tags of a log group"
    )
    return dict((found or {}).get("tags") or {})


async def streams(
    endpoint: Endpoint, group: str, *, prefix: str = "", token: str | None = None, limit: int = _PAGE
) -> tuple[list[Stream], str | None]:
    """A page of a group's streams in the order of their names, and the token of the next; nothing of a group that is
    gone.
    """
    asked: dict[str, Any] = {"logGroupName": group, "orderBy": "LogStreamName", "limit": limit}
    if prefix:
        asked["logStreamNamePrefix"] = prefix
    if token:
        asked["nextToken"] = token
    page = await endpoint.ask_if_there("DescribeLogStreams", asked, "listing log streams") or {}
    return [Stream.of(group, told) for told in page.get("logStreams") or ()], page.get("nextToken") or None


async def stream(endpoint: Endpoint, group: str, name: str) -> Stream | None:
    """That stream as it is now; None where there is none."""
    found, _ = await streams(endpoint, group, prefix=name, limit=1)
    # It comes first of all that begin with its name.
    return found[0] if found and found[0].name == name else None


async def newest_event(endpoint: Endpoint, stream: Stream) -> tuple[int, int] | None:
    """The newest event at or after what is told of a stream's last one: its time and when it was ingested.

    None where there is none, read to the last token. Milliseconds. Raises Absent, as `Endpoint.ask` does, and
    Unreachable where the pages don't end.
    """
    asked: dict[str, Any] = {
        "logGroupName": stream.group,
        "logStreamName": stream.name,
        "startTime": stream.newest + 1 if stream.newest is not None else 0,
        "startFromHead": False,
        "limit": 1,
    }
    token: str | None = None
    for _ in range(_MOST_PAGES):
        page = await endpoint.ask_if_there(
            "GetLogEvents", asked | ({"nextToken": token} if token else {}), "reading the newest event of a log stream"
        )
        if page is None:
            raise Absent
        if events := page.get("events"):
            last = events[-1]
            return int(last["timestamp"]), int(last.get("ingestionTime") or 0)
        before, token = token, page.get("nextBackwardToken")
        if not token or token == before:
            return None
    raise Unreachable(
        "CloudWatch Logs: the pages of a log stream's events don't end", remedy="nothing to do: it is tried again"
    )


async def oldest_left(endpoint: Endpoint, group: str, until: int, *, pages: int = 20) -> bool | None:
    """Whether the group has any event up to an instant (milliseconds), read to the last token; None: not in so many
    pages.
    """
    asked: dict[str, Any] = {"logGroupName": group, "startTime": 0, "endTime": until, "limit": 1}
    token: str | None = None
    for _ in range(pages):
        page = await endpoint.ask(
            "FilterLogEvents", asked | ({"nextToken": token} if token else {}), "looking for old log events"
        )
        if page.get("events"):
            return True
        token = page.get("nextToken")
        if not token:
            return False
    return None
