"""The account directory as stores and surveys see it, wherever it lies.

A store whose records lie in the directory's own database may join it there; any other asks by these questions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from retentiond.domain.accounts import AccountFacts, TierRules
from retentiond.domain.plan import Group
from retentiond.domain.policy import DataClass, Policy
from retentiond.stores.values import Finding


@dataclass(frozen=True, slots=True)
class Known:
    """An account that the directory has: its id in the canonical text of the directory's own type, and what it says.

    `written` is the id as the directory writes it, by which it is remembered, where that differs (`citext`); and
    `changed_at` is when its tier last changed, where the directory dates that (else `facts.in_grace` is all there is).
    """

    id: str
    facts: AccountFacts
    written: str | None = None
    changed_at: datetime | None = None


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
    """The account directory, for stores that can't join it: asked about the accounts of a page."""

    async def known(self, class_name: str, ids: Collection[str]) -> Mapping[str, Known]:
        """What it says now of these accounts, by the ids as given, the override being that of the class.

        Ids that it does not have, or that can't be of its type, are absent. Raises Blind, Unreachable.
        """

    async def canonical(self, ids: Collection[str]) -> Mapping[str, str]:
        """The ids in the canonical text of its type, by which holds compare them; those that can't be are absent."""

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct (tier, override) pairs of its accounts."""


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
