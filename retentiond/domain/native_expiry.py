"""Where a store erases by itself (lifecycle rules of a bucket), and whether that is against a hold or the policy.

Our permits and holds don't bind such a rule, so any hold that it may reach is a conflict: an alert, not ready, a
finding of `check` (2-semantics, "Holds"). So is one that is sooner than a legal minimum allows. A rule that is merely
sooner or later than the promise is somebody's choice, and is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

from retentiond.domain.duration import FOREVER, Duration, Term, expires_at, nominal
from retentiond.domain.holds import Hold, covers_target
from retentiond.domain.policy import DataClass

Severity = Literal["conflict", "later", "sooner"]
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_SOME_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NativeRule:
    """A rule by which a store erases a target's records by itself: those whose keys begin with `prefix`.

    `days` after each record's anchor, or all at the instant `at`; `narrowed`: by something that we don't see (a tag, a
    size), so that it may reach fewer. `account` is whose they all are, and `tier` that of all of
    them, as the store has it (None: anybody's, any). `name` tells it to people.
    """

    name: str
    prefix: str = ""
    days: int | None = None
    at: datetime | None = None
    narrowed: bool = False
    account: str | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class NativeFinding:
    """What is to be said of a rule; only a `conflict` can destroy what must stay. `hold` is the id of one that it is
    against.
    """

    severity: Severity
    rule: NativeRule
    why: str
    hold: str | None = None


def judge_rules(
    rules: Sequence[NativeRule],
    *,
    target: str,
    data_class: DataClass,
    holds: Iterable[Hold],
    tier_map: Mapping[str, str] = _NO_NAMES,
) -> tuple[NativeFinding, ...]:
    """What is to be said of a target's rules; `holds` are all that there are, in any state.

    `tier_map` has other names of tiers.
    """
    bearing = [
        hold for hold in holds if hold.holds and covers_target(hold.scope, target=target, class_name=data_class.name)
    ]
    found: list[NativeFinding] = []
    for rule in rules:
        found += [_against(rule, hold) for hold in bearing if _may_reach(rule, hold, target)]
        if told := _policy(rule, data_class, tier_map):
            found.append(told)
    return tuple(found)


def _against(rule: NativeRule, hold: Hold) -> NativeFinding:
    return NativeFinding("conflict", rule, f"it erases what hold {hold.id} (matter {hold.matter}) covers", hold.id)


def _may_reach(rule: NativeRule, hold: Hold, target: str) -> bool:
    """Whether a record that the hold covers may come under the rule: time does not part them, since all grow old."""
    accounts = {_loosely(each) for each in hold.scope.accounts}
    if accounts and rule.account is not None and _loosely(rule.account) not in accounts:
        return False
    keys, prefixes = hold.scope.records.get(target, ()), hold.scope.prefixes.get(target, ())
    if not keys and not prefixes:
        return True
    return any(key.startswith(rule.prefix) or rule.prefix.startswith(f"{key}:") for key in keys) or any(
        prefix.startswith(rule.prefix) or rule.prefix.startswith(prefix) for prefix in prefixes
    )


def _loosely(account: str) -> str:
    """A text that is the same for all that any type of ids may call equal: a conflict too many is no harm."""
    return "".join(each for each in account.casefold() if each.isalnum()).lstrip("0")


def _policy(rule: NativeRule, data_class: DataClass, tier_map: Mapping[str, str]) -> NativeFinding | None:
    """What is to be said of a rule by the class's terms."""
    if data_class.after == "account_deleted":
        why = f"the term of {data_class.name} counts from the account's deletion, which the store knows nothing of"
        return NativeFinding("conflict" if data_class.minimum else "sooner", rule, why)
    if rule.days is None:
        why = f"it erases on {rule.at:%Y-%m-%d}, whatever is there then" if rule.at else "it erases at once"
        return NativeFinding("conflict" if data_class.minimum else "sooner", rule, why)
    terms = _terms(rule, data_class, tier_map)
    longer = [term for term in terms if _ends_before(rule.days, term)]
    if longer:
        term = max(longer, key=nominal)
        what = "the legal minimum" if data_class.minimum else "a term"
        why = f"it erases after {rule.days} days, and {what} of {data_class.name} is {term}"
        return NativeFinding("conflict" if data_class.minimum else "sooner", rule, why)
    finite = [term for term in terms if isinstance(term, Duration)]
    if any(timedelta(days=rule.days) > longest(term) for term in finite):
        why = f"it erases after {rule.days} days, later than promised; our sweeps go before it"
        return NativeFinding("later", rule, why)
    return None


def _terms(rule: NativeRule, data_class: DataClass, tier_map: Mapping[str, str]) -> tuple[Term, ...]:
    """Those that records which the rule may reach can have: of one tier its own, and what its accounts may set."""
    tier = tier_map.get(rule.tier, rule.tier) if rule.tier is not None else None
    if tier is None or tier not in data_class.terms:
        return data_class.candidates()
    bound = data_class.bounds.get(tier)
    if bound is None or rule.account is None:
        return (data_class.terms[tier],)
    return (data_class.terms[tier], FOREVER if bound.maximum is None else bound.maximum)


def _ends_before(days: int, term: Term) -> bool:
    """Whether so many days may be over before the term is."""
    return not isinstance(term, Duration) or timedelta(days=days) < longest(term)


@lru_cache
def longest(term: Duration) -> timedelta:
    """The longest that the term takes, whenever it begins within four years: months and years differ in days."""
    starts = (_SOME_DAY + timedelta(days=days) for days in range(4 * 366))
    return max(
        (end or datetime.max.replace(tzinfo=UTC)) - start for start in starts for end in [expires_at(start, term)]
    )
