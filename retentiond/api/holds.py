"""`holds`: legal holds. Placing one answers when it is active, or after five seconds with where to look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from retentiond.api import asked, models
from retentiond.api.once import once
from retentiond.api.resources import PREFIX, Reply, Resource
from retentiond.api.site import Call, Site
from retentiond.beside import beside
from retentiond.control import holds as table
from retentiond.control.idempotency import Done
from retentiond.desk import holds as desk
from retentiond.desk.base import Also
from retentiond.desk.matched import count_into, covered, summed
from retentiond.domain.holds import Hold, HoldState
from retentiond.stores.base import Matches

WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.1
_COUNT_SECONDS = 4.0
_SCOPE = ("accounts", "classes", "targets", "since", "until", "prefixes", "records", "everything")


async def hold(site: Site, hold_id: str) -> models.Hold:
    """One hold; raises NotFound."""
    return as_model(await _get(site, hold_id))


async def page(
    site: Site, after: str | None = None, limit: int = 1_000, states: Sequence[HoldState] = ()
) -> models.Holds:
    """The holds that follow that one, as they were placed; raises NotFound for an `after` that there is not."""
    async with site.desk.database.transaction(read_only=True) as tx:
        found = await table.page(tx, after, limit + 1, states)
    shown = found[:limit]
    following = shown[-1].id if len(found) > limit else None
    return models.Holds(holds=tuple(map(as_model, shown)), next=following)


def as_model(found: Hold) -> models.Hold:
    """The hold as it is answered."""
    return models.Hold.model_validate(found.document())


async def place(site: Site, call: Call, body: asked.PlaceHold) -> Reply:
    """Place it, and wait until it is active, though not for long."""
    given = body.model_dump(exclude_none=True)
    scope = {name: given[name] for name in _SCOPE if name in given}
    drafted = desk.draft(
        scope,
        matter=body.matter,
        reason=body.reason,
        review_by=body.review_by,
        notice=body.notice,
        native=body.native,
    )

    async def act(also: Also | None) -> Hold:
        return await desk.place(site.desk, drafted, call.name, also)

    async def again(done: Done) -> Hold:
        return await _get(site, done.subject or "")

    placed = await once(site, call, act, again)
    site.nudge()
    return await _placed(site, placed)


async def _placed(site: Site, placed: Hold) -> Reply:
    """201 once it is active, with the records that it covers as far as they could be counted; else 202."""
    counted: dict[str, Matches | None] = {}
    until = asyncio.get_running_loop().time() + WAIT_SECONDS
    async with beside(_count(site, placed, counted)) as counting:
        found = placed
        while found.state is HoldState.PENDING and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_POLL_SECONDS)
            found = await _get(site, placed.id)
        left = until - asyncio.get_running_loop().time()
        await asyncio.wait({counting}, timeout=max(left, 0))
        if counting.done():
            counting.result()
    headers = {"Location": f"{PREFIX}/holds/{found.id}"}
    document = {**found.document(), **summed(counted)}
    status = 202 if found.state is HoldState.PENDING else 201
    return Reply(models.PlacedHold.model_validate(document), status, headers)


async def _count(site: Site, placed: Hold, counted: dict[str, Matches | None]) -> None:
    counted.update(dict.fromkeys(covered(site.desk, placed)))
    async with site.few:
        await count_into(counted, site.desk, placed, _COUNT_SECONDS)


async def release(site: Site, call: Call) -> Reply:
    """Release it: 200; 202 where that takes two people and this is the first one."""

    async def act(also: Also | None) -> Reply:
        found = await desk.release(site.desk, call.path["id"], call.name, call.body.reason, also)
        return Reply(as_model(found), 200 if found.state is HoldState.RELEASING else 202)

    async def again(done: Done) -> Reply:
        # None: somebody asked once more for what he had asked for already.
        asked_for = (done.answer or {}).get("event") in ("release_requested", None)
        return Reply(as_model(await _get(site, done.subject or "")), 202 if asked_for else 200)

    reply = await once(site, call, act, again)
    site.nudge()
    return reply


async def reinstate(site: Site, call: Call) -> Reply:
    """Let it hold on, whole."""

    async def act(also: Also | None) -> Hold:
        return await desk.reinstate(site.desk, call.path["id"], call.name, call.body.reason, also)

    async def again(done: Done) -> Hold:
        return await _get(site, done.subject or "")

    return Reply(as_model(await once(site, call, act, again)))


async def _get(site: Site, hold_id: str) -> Hold:
    async with site.desk.database.transaction(read_only=True) as tx:
        return await table.get(tx, hold_id)


async def _one(site: Site, call: Call) -> Reply:
    return Reply(await hold(site, call.path["id"]))


async def _page(site: Site, call: Call) -> Reply:
    query: asked.OfHolds = call.query
    return Reply(await page(site, query.after, query.limit, [HoldState(each) for each in query.state]))


async def _place(site: Site, call: Call) -> Reply:
    return await place(site, call, call.body)


RESOURCES = (
    Resource("GET", "/holds", _page, "Legal holds, as they were placed", {200: models.Holds}, query=asked.OfHolds),
    Resource(
        "POST",
        "/holds",
        _place,
        "Place a hold: 201 once it is active; 202 and its address when that takes more than 5 s",
        {201: models.PlacedHold, 202: models.PlacedHold},
        needs="counsel",
        body=asked.PlaceHold,
    ),
    Resource("GET", "/holds/{id}", _one, "One hold", {200: models.Hold}),
    Resource(
        "POST",
        "/holds/{id}/release",
        release,
        "Release a hold: it holds on for the release grace; 202 where a second person's release is still needed",
        {200: models.Hold, 202: models.Hold},
        needs="counsel",
        body=asked.Because,
    ),
    Resource(
        "POST",
        "/holds/{id}/reinstate",
        reinstate,
        "Let a hold in its release grace hold on, or take back that its release was asked for",
        {200: models.Hold},
        needs="counsel",
        body=asked.Because,
    ),
)
