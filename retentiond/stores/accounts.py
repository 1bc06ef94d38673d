"""The account directory as stores and surveys see it, wherever it lies.

A store whose records lie in the directory's own database may join it there; any other asks by these questions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from retentiond.domain.accounts import AccountFacts, TierRules
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.policy import DataClass, Policy
from retentiond.stores.values import Finding


@dataclass(frozen=True, slots=True)
class Known:
    """An account that the directory has: its id in the canonical text of the directory's own type, and what is said."""

    id: str
    facts: AccountFacts


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as the directory has it; `overrides` is the whole JSON text, instants are aware."""

    id: str
    tier: str | None
    overrides: str | None
    deleted_at: datetime | None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the directory's contents are judged by; `hashed` gives the name of an account that may be shown."""

    policy: Policy
    tiers: TierRules
    classes: Sequence[DataClass]
    now: datetime
    hashed: Callable[[str], str]


class AccountDirectory(Protocol):
    """What stores ask of the account directory, whatever it is; each method raises Blind, Unreachable."""

    async def known(
        self, class_name: str, ids: Collection[str], *, grace: datetime | None = None
    ) -> Mapping[str, Known]:
        """What it says now of these accounts, by the ids as they are given, for records of that class.

        Left out are ids that it does not have, and those that can't be of its type. `grace`: a tier that changed after
        this instant is in its downgrade grace, where the directory itself dates changes.
        """

    async def canonical(self, ids: Collection[str]) -> Mapping[str, str]:
        """These ids in the canonical text of its type, whether it has them or not; not those that can't be of it."""

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of raw tier and override text of a class."""


class SurveyedDirectory(AccountDirectory, Protocol):
    """What a survey asks of the whole directory; each method raises Blind, Unreachable."""

    @property
    def dates_changes(self) -> bool:
        """Whether it says itself when an account's tier last changed."""

    async def reach(self) -> None:
        """See that it is there and may be read."""

    async def check(self, rules: Rules) -> Sequence[Finding]:
        """What is wrong or unwise about it; raises Blind where it can't be read at all."""

    async def survey_transaction(self) -> int:
        """The oldest transaction not over now: what it and later ones write is newer than a survey begun after this."""

    def survey(self) -> AsyncIterator[list[AccountRow]]:
        """Every account, in chunks; raises Blind where an id stands twice or is null."""


async def facts_of(directory: AccountDirectory | None, plan: TargetPlan, ids: Collection[str]) -> Mapping[str, Known]:
    """What is known of these accounts for verdicts by the plan, by the ids as they are given.

    What is remembered is applied: changes of tier of late, and since when an account is missing. Ids that can't be of
    the directory's type are left out: those accounts are unknown. Raises Blind, Unreachable.
    """
    if directory is None or not ids:
        return {}
    found = await directory.known(plan.data_class.name, ids, grace=plan.grace_cutoff)
    absent = await directory.canonical([each for each in ids if each not in found]) if len(found) < len(ids) else {}
    has_grace = plan.grace_cutoff is not None
    both = {**found, **{given: Known(text, AccountFacts()) for given, text in absent.items()}}
    return {
        given: Known(each.id, plan.surveyed.applied(each.id, each.facts, has_grace=has_grace))
        for given, each in both.items()
    }
