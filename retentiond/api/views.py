"""What is only read: `status`, `targets`, `plan`, `promises`, `explain`, `policy`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

from retentiond import __version__
from retentiond.api import asked, models
from retentiond.api.resources import Reply, Resource, encode
from retentiond.api.site import Call, Site
from retentiond.desk import policy as of_policy
from retentiond.desk import status as of_status
from retentiond.desk.plans import Planned, horizon, judged, looked_ahead, plan_document
from retentiond.desk.promises import Promise, promised
from retentiond.desk.targets import Broken, chosen
from retentiond.sweep.spec import Target

A = TypeVar("A", bound=models.Answer)


@dataclass(frozen=True, slots=True)
class Rendered(Generic[A]):
    """An answer and its JSON, made once for all who ask: of a thousand targets it takes a moment."""

    answer: A
    body: bytes

    @classmethod
    def of(cls, answer: A) -> Rendered[A]:
        """The answer with its JSON."""
        return cls(answer, encode(answer))


async def status(site: Site) -> models.Status:
    """How all of it is; the checks as they were last found, asked again where that takes no more than a second."""
    async with site.desk.database.transaction(read_only=True) as tx:
        standing = await of_status.look(tx)
    states = await site.health.known()
    document = standing.document(site.desk)
    failing = {name: state.document() for name, state in states.items() if not state.ok}
    ready = bool(states) and not failing
    return models.Status.model_validate({"version": __version__, **document, "ready": ready, "checks": failing})


async def targets(site: Site) -> models.Targets:
    """All targets, with what each is, when it is due, and its check."""
    async with site.desk.database.transaction(read_only=True) as tx:
        found = await of_status.look_at_targets(site.desk, tx)
    states = await site.health.known()
    documents = {}
    for target in site.desk.spec.targets:
        view, state = found[target.name], states.get(f"target {target.name}")
        documents[target.name] = {
            "class": target.data_class.name,
            "store": target.store,
            "action": target.action,
            "tier_source": target.tier_source,
            "knows_account": target.knows_account,
            "next_due_at": view.next_due_at,
            "last_success_at": view.last_success_at,
            "outcome": view.last["outcome"] if view.last else None,
            "waiting": view.waiting,
            "check": state.document() if state is not None else None,
        }
    return models.Targets.model_validate({"targets": documents})


async def plan(site: Site, names: list[str], ahead: str | None = None) -> Rendered[models.Plan]:
    """What is due in these targets (all, where none is named), and by the horizon; raises NotFound, UsageError."""
    desk, wanted = site.desk, chosen(site.desk, names)
    until = horizon(ahead, "horizon") if ahead is not None else None

    async def look(target: Target) -> Planned | Broken:
        return await site.shared.get(("plan", target.name, until), lambda: looked_ahead(desk, target, until))

    found = await asyncio.gather(*map(look, wanted))

    def made() -> Rendered[models.Plan]:
        tiers, pairs = desk.spec.policy.tiers, zip(wanted, found, strict=True)
        documents = {target.name: plan_document(target, each, tiers) for target, each in pairs}
        head = {"mode": desk.rules.mode, "digest": desk.spec.digest, "horizon": ahead}
        return Rendered.of(models.Plan.model_validate({**head, "targets": documents}))

    return site.shared.derived(("plan", tuple(names), ahead), found, made)


async def promises(site: Site, names: list[str]) -> Rendered[models.Promises]:
    """How the promises of these targets stand, or all of them; raises NotFound."""
    desk, wanted = site.desk, chosen(site.desk, names)

    async def look(target: Target) -> Promise | Broken:
        return await site.shared.get(("promises", target.name), lambda: judged(desk, target))

    results = await asyncio.gather(*map(look, wanted))

    def made() -> Rendered[models.Promises]:
        found = {target.name: each for target, each in zip(wanted, results, strict=True)}
        classes = {target.data_class.name for target in wanted} if names else set(desk.spec.policy.classes)
        errors = {name: each.document() for name, each in found.items() if isinstance(each, Broken)}
        rows = promised(desk.spec.policy, classes, wanted, found)
        head = {"mode": desk.rules.mode, "digest": desk.spec.digest}
        return Rendered.of(models.Promises.model_validate({**head, "promises": rows, "errors": errors}))

    return site.shared.derived(("promises", tuple(names)), results, made)


async def explain(site: Site, name: str, record: str) -> models.Explanation:
    """The verdict on one record; raises NotFound, Blind, Unreachable."""
    target = chosen(site.desk, [name])[0]
    async with site.few:
        verdict = await site.desk.engine.explain(target, record)
    return models.Explanation.model_validate(verdict.document(target.data_class.name))


async def policy(site: Site) -> models.Policy:
    """The configuration here beside the policy in force."""
    async with site.desk.database.transaction(read_only=True) as tx:
        found = await of_policy.look(site.desk, tx)
    return models.Policy.model_validate({**found.shown(), **found.difference()})


async def _status(site: Site, _: Call) -> Reply:
    return Reply(await status(site))


async def _targets(site: Site, _: Call) -> Reply:
    return Reply(await targets(site))


async def _plan(site: Site, call: Call) -> Reply:
    query: asked.OfPlan = call.query
    found = await plan(site, query.target, query.horizon)
    return Reply(found.answer, body=found.body)


async def _promises(site: Site, call: Call) -> Reply:
    found = await promises(site, call.query.target)
    return Reply(found.answer, body=found.body)


async def _explain(site: Site, call: Call) -> Reply:
    return Reply(await explain(site, call.query.target, call.query.record))


async def _policy(site: Site, _: Call) -> Reply:
    return Reply(await policy(site))


RESOURCES = (
    Resource("GET", "/status", _status, "How retentiond is, as a whole", {200: models.Status}),
    Resource("GET", "/targets", _targets, "All targets", {200: models.Targets}),
    Resource(
        "GET",
        "/plan",
        _plan,
        "What a sweep would act on now, and what comes due within a horizon",
        {200: models.Plan},
        query=asked.OfPlan,
    ),
    Resource(
        "GET",
        "/promises",
        _promises,
        "Each class and tier: the term, the oldest record, and whether the promise is kept",
        {200: models.Promises},
        query=asked.OfTargets,
    ),
    Resource(
        "GET",
        "/explain",
        _explain,
        "The verdict on one record, and every rule and hold considered",
        {200: models.Explanation},
        query=asked.OfRecord,
    ),
    Resource("GET", "/policy", _policy, "The policy here and the one in force", {200: models.Policy}),
)
