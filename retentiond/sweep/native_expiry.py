"""Where stores erase by themselves: their rules, asked of each store, against the holds and the terms of its class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retentiond.domain.accounts import TierRules
from retentiond.domain.holds import Hold
from retentiond.domain.native_expiry import NativeFinding, judge_rules
from retentiond.errors import RetentiondError, Unexpected
from retentiond.stores.base import Finding, Severity, Store
from retentiond.sweep.spec import Target

_REMEDY = "switch the rule off, or narrow it to what no hold covers; our sweeps keep the promise without it"
_SEVERITIES: Mapping[str, Severity] = {"conflict": "error", "sooner": "info", "later": "info"}


@dataclass(frozen=True, slots=True)
class Native:
    """What is to be said of one target's rules; `error`: they can't be seen."""

    target: str
    found: tuple[NativeFinding, ...] = ()
    error: RetentiondError | None = None

    @property
    def conflicts(self) -> tuple[NativeFinding, ...]:
        """What can destroy that must stay."""
        return tuple(each for each in self.found if each.severity == "conflict")

    def findings(self) -> list[Finding]:
        """The same as `check` says it."""
        if self.error is not None:
            message = f"whether the store erases by itself can't be seen: {self.error.message}"
            return [Finding("warning", self.target, message, self.error.remedy or "")]
        told = [
            Finding(_SEVERITIES[each.severity], self.target, f"{each.rule.name}: {each.why}", _REMEDY)
            for each in self.found
        ]
        # Rules may be many and alike: a log group has one each.
        return list(dict.fromkeys(told))


async def look(
    targets: Iterable[Target], stores: Mapping[str, Store], holds: Iterable[Hold], names: TierRules
) -> list[Native]:
    """What is to be said of each target; raises nothing for a store that can't be asked."""
    known = list(holds)
    seen = []
    for target in targets:
        try:
            rules = await stores[target.name].native_rules()
        except Exception as error:
            ours = error if isinstance(error, RetentiondError) else Unexpected.of(error)
            seen.append(Native(target.name, error=ours))
            continue
        found = judge_rules(
            rules, target=target.name, data_class=target.data_class, holds=known, tier_map=names.tier_map
        )
        seen.append(Native(target.name, found))
    return seen
