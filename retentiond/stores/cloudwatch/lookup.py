"""Single streams and groups, and the streams of a hold: what `explain` and `hold place` ask for."""

from __future__ import annotations

import time

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import NotFound
from retentiond.stores.base import Matches
from retentiond.stores.cloudwatch import api
from retentiond.stores.cloudwatch.batch import MOST, Ground
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.reading import page_of
from retentiond.stores.cloudwatch.rows import Stream, group_of
from retentiond.stores.cloudwatch.walk import Owned, Row
from retentiond.stores.covering import covered
from retentiond.stores.rulings import Rulings, Untold


async def record(ground: Ground, plan: TargetPlan, text: str) -> tuple[RecordFacts, AccountFacts]:
    """The stream of the id `GROUP:STREAM` and what is known of its account; raises NotFound.

    The name of a group alone stands for its stream that has the newest event: nothing of the group goes later.
    """
    endpoint = await ground.place.endpoint()
    name, stream = group_of(text)
    owned = await ground.groups.now(endpoint, name)
    found = None if owned is None else await _stream(endpoint, owned, stream)
    if owned is None or found is None:
        raise NotFound(
            f"target {ground.name} has no record {text}",
            remedy="give GROUP:STREAM, or GROUP for its newest stream, as CloudWatch Logs has them; or it is erased",
        )
    page = page_of(ground.config, [Row(found, owned)])
    account = page.accounts[0]
    rulings = Rulings(plan)
    await rulings.ask([account], ground.directory)
    canonical, facts = rulings.facts(account)
    fault = account.value if isinstance(account, Untold) else None
    tier = page.tiers[0] if page.tiers is not None else plan.tier
    return RecordFacts(found.id, page.anchors[0], canonical, tier, fault=fault), facts


async def _stream(endpoint: Endpoint, owned: Owned, name: str | None) -> Stream | None:
    if name is not None:
        return await api.stream(endpoint, owned.group.name, name)
    token: str | None = None
    newest: Stream | None = None
    while True:
        streams, token = await api.streams(endpoint, owned.group.name, token=token)
        told = [each for each in [*streams, *([newest] if newest else [])] if each.anchor is not None]
        newest = max(told, key=lambda each: (each.anchor or 0, each.name), default=newest)
        if token is None:
            return newest


async def matches(ground: Ground, hold: TargetHold, seconds: float) -> Matches:
    """How many streams the hold covers, whatever their verdict; those met by then where there is no time for all."""
    found, until = 0, time.monotonic() + seconds
    endpoint = await ground.place.endpoint()
    after: tuple[str, ...] | None = None
    while True:
        async with ground.walks.at(endpoint, after, None) as listing:
            taken = await listing.take(MOST)
        found += sum(await covered([hold], page_of(ground.config, taken.rows), ground.directory))
        after = taken.after
        if after is None:
            return Matches(found, exact=True)
        if time.monotonic() > until:
            return Matches(found, exact=False)
