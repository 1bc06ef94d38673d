"""Deleting log streams one by one, each read to the last token right before: nothing newer than was judged is in it.

DeleteLogStream "permanently deletes all the archived log events associated with the log stream" and takes no condition
(API_DeleteLogStream), so an event that comes within the moments between the two goes with the stream. What has no
answer, or one of status 500 and above, may have been done or be done yet: the batch sends nothing more after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from retentiond.errors import Blind, Refused, Unreachable
from retentiond.stores.clock import Expiry
from retentiond.stores.cloudwatch import api
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.errors import Absent, Trouble, Unanswered, Unsent
from retentiond.stores.cloudwatch.pace import Pacer
from retentiond.stores.cloudwatch.rows import Stream

Outcome = Literal["erased", "gone", "changed", "passed over", "denied", "unread", "failed", "unknown"]
"""`changed`: it has a newer event and is not due any more. `passed over`: surely not done, and may go later. `unread`:
its newest event can't be read, so it stays."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """How what destroys is sent: until when it is good, and for how long a signature is (None: for ever)."""

    endpoint: Endpoint
    expiry: Expiry
    window: timedelta | None
    pacer: Pacer

    @property
    def over(self) -> bool:
        """Whether the time is over, as far as the service's clock is known."""
        return self.endpoint.clock.latest() >= self.expiry.expires_at


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one; `code` is the service's, where it said no."""

    outcome: Outcome
    code: str = ""


async def delete(sent: Sent, streams: Sequence[Stream], still_due: Callable[[int, Stream], bool]) -> list[Done]:
    """Delete the streams, each as long as `still_due` says so of it as it is then; raises nothing that is foreseen."""
    done: list[Done] = []
    for index, stream in enumerate(streams):
        await sent.pacer.take()
        if sent.over:
            break
        found = await _delete(sent, index, stream, still_due)
        done.append(found)
        if found.outcome == "unknown" or (found.outcome == "passed over" and found.code == NO_TIME):
            break
    return done + [Done("passed over", "NotAsked")] * (len(streams) - len(done))


async def absent(endpoint: Endpoint, streams: Sequence[Stream]) -> bool:
    """Whether none of the streams is listed any more; raises Blind, Unreachable."""
    return all(now is None or now.created != was.created for was, now in await as_now(endpoint, streams))


async def as_now(endpoint: Endpoint, streams: Sequence[Stream]) -> list[tuple[Stream, Stream | None]]:
    """Each stream, and what is there under its name now."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Stream) -> tuple[Stream, Stream | None]:
        async with gate:
            return each, await api.stream(endpoint, each.group, each.name)

    asked = [asyncio.ensure_future(one(each)) for each in streams]
    try:
        return await asyncio.gather(*asked)
    finally:
        for each in asked:
            each.cancel()


async def destroy(sent: Sent, action: str, body: dict[str, object]) -> Done:
    """One request that destroys, sent once; a ThrottlingException makes those that follow slower."""
    try:
        answer = await sent.endpoint.destroy(action, body, sent.expiry, sent.window)
    except Unsent:
        return Done("passed over", NO_TIME)
    except Unanswered:
        return Done("unknown")
    if answer.trouble is None:
        sent.pacer.passed()
        return Done("erased")
    return _refused(sent.pacer, answer.trouble)


def _refused(pacer: Pacer, trouble: Trouble) -> Done:
    if trouble.may_follow:
        return Done("unknown", trouble.code)
    if trouble.throttled:
        pacer.slowed()
        return Done("passed over", trouble.code)
    if trouble.busy or trouble.late:
        return Done("passed over", trouble.code)
    if trouble.absent:
        return Done("gone", trouble.code)
    return Done("denied" if trouble.denied else "failed", trouble.code)


async def _delete(sent: Sent, index: int, stream: Stream, still_due: Callable[[int, Stream], bool]) -> Done:
    try:
        newest = await api.newest_event(sent.endpoint, stream)
    except Absent:
        return Done("gone")
    except Unreachable:
        return Done("passed over", "NotRead")
    except (Blind, Refused):
        return Done("unread")
    if newest is not None:
        at, ingested = newest
        now = replace(stream, newest=at, ingested=max(ingested, stream.ingested or 0))
        if not still_due(index, now):
            return Done("changed")
    return await destroy(sent, "DeleteLogStream", {"logGroupName": stream.group, "logStreamName": stream.name})


NO_TIME = "NotSent"
