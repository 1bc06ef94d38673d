"""`pause`, `resume`, `sweeps`, `approvals`: an operator's word, as rows that the schedulers and workers read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from retentiond.api import asked, models
from retentiond.api.models import Answer
from retentiond.api.once import once
from retentiond.api.problems import Refusal
from retentiond.api.resources import PREFIX, Reply, Resource
from retentiond.api.site import Call, Site
from retentiond.control import approvals as table
from retentiond.control.idempotency import Done
from retentiond.desk import approving, state
from retentiond.desk.base import Also
from retentiond.desk.status import look_at_targets
from retentiond.desk.targets import chosen

A = TypeVar("A", bound=Answer)


async def sweeps(site: Site) -> models.Sweeps:
    """For each target the sweep that runs, and how the last one ended."""
    async with site.desk.database.transaction(read_only=True) as tx:
        found = await look_at_targets(site.desk, tx)
    return models.Sweeps.model_validate({"targets": {name: view.sweeps() for name, view in found.items()}})


async def approvals(site: Site) -> models.Approvals:
    """What waits for an operator, longest first."""
    async with site.desk.database.transaction(read_only=True) as tx:
        waiting = await table.waiting(tx)
    return models.Approvals.model_validate({"waiting": [approving.awaited_document(each) for each in waiting]})


async def pause(site: Site, call: Call) -> Reply:
    """Let no batch begin anywhere."""

    async def act(also: Also | None) -> models.Paused:
        return models.Paused(paused=True, changed=await state.pause(site.desk, call.name, call.body.reason, also))

    return Reply(await once(site, call, act, _as(models.Paused)))


async def resume(site: Site, call: Call) -> Reply:
    """Let erasing go on."""

    async def act(also: Also | None) -> models.Paused:
        return models.Paused(paused=False, changed=await state.resume(site.desk, call.name, also))

    found = await once(site, call, act, _as(models.Paused))
    site.nudge()
    return Reply(found)


async def request_sweeps(site: Site, call: Call) -> Reply:
    """Make targets due; whoever has room sweeps them."""
    wanted = chosen(site.desk, call.body.names)

    async def act(also: Also | None) -> models.SweepsRequested:
        await state.request_sweeps(site.desk, wanted, call.name, also)
        return models.SweepsRequested(targets=tuple(target.name for target in wanted))

    found = await once(site, call, act, _as(models.SweepsRequested))
    site.nudge()
    return Reply(found, 202, {"Location": f"{PREFIX}/sweeps"})


async def approve(site: Site, call: Call) -> Reply:
    """Answer a question that waits."""
    body: asked.Approve = call.body
    if (body.kind == "sweep") != (body.target is not None):
        wrong = "kind sweep takes a target" if body.kind == "sweep" else f"kind {body.kind} takes no target"
        raise Refusal(422, wrong, remedy="see GET /api/v1/approvals for what waits")
    if body.kind == "policy" and body.digest is None:
        raise Refusal(422, "kind policy takes a digest", remedy="see GET /api/v1/approvals for the one that waits")

    async def act(also: Also | None) -> models.Approved:
        granted = await approving.approve(
            site.desk, body.kind, body.target, call.name, bound=body.bound, digest=body.digest, also=also
        )
        return models.Approved.model_validate(approving.granted_document(granted))

    found = await once(site, call, act, _as(models.Approved))
    site.nudge()
    return Reply(found, 201)


def _as(model: type[A]) -> Callable[[Done], Awaitable[A]]:
    """What was answered the first time."""

    async def again(done: Done) -> A:
        return model.model_validate(done.answer)

    return again


async def _sweeps(site: Site, _: Call) -> Reply:
    return Reply(await sweeps(site))


async def _approvals(site: Site, _: Call) -> Reply:
    return Reply(await approvals(site))


RESOURCES = (
    Resource("GET", "/sweeps", _sweeps, "The sweeps that run, and how the last ones ended", {200: models.Sweeps}),
    Resource(
        "POST",
        "/sweeps",
        request_sweeps,
        "Have targets swept as soon as a worker has room",
        {202: models.SweepsRequested},
        needs="operator",
        body=asked.RequestSweeps,
    ),
    Resource(
        "POST",
        "/pause",
        pause,
        "Stop erasing everywhere, at once, across replicas",
        {200: models.Paused},
        needs="operator",
        body=asked.Pause,
    ),
    Resource(
        "POST",
        "/resume",
        resume,
        "Let erasing go on, everywhere",
        {200: models.Paused},
        needs="operator",
        body=asked.Nothing,
    ),
    Resource("GET", "/approvals", _approvals, "What waits for an operator", {200: models.Approvals}),
    Resource(
        "POST",
        "/approvals",
        approve,
        "Let what a guard has stopped go, once, for as many records as it asks for",
        {201: models.Approved},
        needs="operator",
        body=asked.Approve,
    ),
)
