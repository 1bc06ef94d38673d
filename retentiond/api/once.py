"""A change under an Idempotency-Key: done once, and answered each time as it was the first time.

The key is claimed in the transaction of the change (`control.idempotency`), so that neither a crash nor a double click
leaves one without the other. Which answer is right while a hold is still pending, its row says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from retentiond.api.problems import Refusal
from retentiond.api.site import Call, Site
from retentiond.control import idempotency
from retentiond.control.database import Tx
from retentiond.control.idempotency import Done, Repeated
from retentiond.desk.base import Also, Did
from retentiond.errors import Otherwise

T = TypeVar("T")


async def once(
    site: Site, call: Call, act: Callable[[Also | None], Awaitable[T]], again: Callable[[Done], Awaitable[T]]
) -> T:
    """What `act` gives, or `again` of what was done under the same key; raises Refusal 422 for another's key."""
    claim = call.claim
    if claim is None:
        return await act(None)
    if (done := await _done(site, call)) is not None:
        return await again(done)

    async def also(tx: Tx, did: Did) -> None:
        await idempotency.claim(tx, claim, subject=did.subject, answer=did.answer)

    try:
        return await act(also)
    except (Repeated, Otherwise):
        # The other one of a double click was first; where it was not, what is wrong is as it is.
        if (done := await _done(site, call)) is None:
            raise
        return await again(done)


async def _done(site: Site, call: Call) -> Done | None:
    claim = call.claim
    assert claim is not None
    async with site.desk.database.transaction(read_only=True) as tx:
        done = await idempotency.find(tx, claim.principal, claim.key)
    if done is not None and done.digest != claim.digest:
        raise Refusal(
            422, "this Idempotency-Key came with another request before", remedy="take a new key for a new request"
        )
    return done
