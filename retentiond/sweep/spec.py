"""What a sweep needs to know of the configuration, as frozen values: this layer reads no settings itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from retentiond.domain.accounts import TierRules
from retentiond.domain.plan import TierSource
from retentiond.domain.policy import DataClass, Policy


class Opening(Protocol):
    """When a target may erase; instants in UTC."""

    def open_at(self, instant: datetime) -> bool:
        """Whether it may erase at that instant."""

    def next_opening(self, instant: datetime) -> datetime:
        """The next instant at which it may."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard a target may be worked: records a second (0: unlimited), share of time, seconds and size of a batch.

    All of it is for the target as a whole, however many shards it is cut into (0: by its size).
    """

    records_per_second: float = 0
    duty: float = 0.5
    batch_seconds: float = 0.25
    min_batch: int = 1
    max_batch: int = 50_000
    shards: int = 0

    def share(self, shards: int) -> Pace:
        """The pace of one of so many shards that are worked on at the same time.

        Each rests for all of them: where batches are to have half of the time, all shards together are never more than
        one connection's work, however many they are. Without rest (1.0) each goes on without rest.
        """
        rest = shards * (1 / self.duty - 1)
        return replace(self, records_per_second=self.records_per_second / shards, duty=1 / (1 + rest))


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and above what any of its samples means that a sweep yields."""

    url: str
    expression: str
    threshold: float
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Health:
    """When a sweep yields: signals by name with their thresholds, those that must be readable, and a query.

    A rest of more than `patience` seconds ends the sweep; the next one goes on where it stopped.
    """

    limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    configured: frozenset[str] = frozenset()
    patience: float = 3600.0
    query: Query | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The guards' limits (4-safety, "Guards")."""

    max_fraction: float = 0.25
    min_records: int = 500
    max_records: int | None = None
    max_accounts_shortened: float = 0.05
    min_accounts_shortened: int = 20
    max_clock_skew: timedelta = timedelta(seconds=60)
    max_clock_jump: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Target:
    """One target as the sweeper sees it."""

    name: str
    store: str
    data_class: DataClass
    action: str
    tier_source: TierSource
    tier: str | None = None
    knows_account: bool = True
    pace: Pace = field(default_factory=Pace)
    health: Health = field(default_factory=Health)
    vacuum: bool = False
    window: Opening | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """The configuration of all sweeps; `digest` names everything that enters a verdict.

    `missing_means_deleted`: an account that the directory has lost counts as deleted (`accounts.missing`).
    `late_effect_grace`: how long a server may take to carry out a request that it accepted in time.
    """

    enforce: bool
    policy: Policy
    rules: TierRules
    targets: tuple[Target, ...]
    digest: str
    has_directory: bool
    missing_means_deleted: bool = False
    limits: Limits = field(default_factory=Limits)
    release_grace: timedelta = timedelta(days=7)
    late_effect_grace: timedelta = timedelta(seconds=120)
    min_interval: timedelta = timedelta(minutes=1)
    max_interval: timedelta = timedelta(hours=6)

    def target(self, name: str) -> Target:
        """A target by name; raises KeyError."""
        return next(target for target in self.targets if target.name == name)
