"""The retention of log groups, as the rules by which the store erases a target's records by itself."""

from __future__ import annotations

from retentiond.domain.native_expiry import NativeRule
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.rows import DELIVERY
from retentiond.stores.cloudwatch.walk import Groups

_DELIVERY_DAYS = 1


async def native_rules(endpoint: Endpoint, groups: Groups, config: CloudwatchTarget) -> tuple[NativeRule, ...]:
    """A rule for each group that erases by itself; raises Blind without the right to see them, Unreachable.

    A name that may hold an account is not told: what is said of rules goes into logs.
    """
    found = []
    for each in await groups.every(endpoint):
        days = _DELIVERY_DAYS if each.group.kind == DELIVERY else each.group.days
        if days is None:
            continue
        of = "of log groups" if config.knows_account else f"of log group {each.group.name}"
        tier = config.tier if config.tier is not None else each.tier
        account = each.account if isinstance(each.account, str) else None
        found.append(NativeRule(f"retention {of}", f"{each.group.name}:", days, account=account, tier=tier))
    return tuple(found)
