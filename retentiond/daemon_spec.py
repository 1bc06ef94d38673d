"""The settings as the sweep layer takes them: targets, their stores, the policy's digest.

The one place that knows each kind of store; from here on there are only targets and the contract (`stores.base`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retentiond.domain.accounts import TierRules
from retentiond.domain.evidence import canonical
from retentiond.domain.plan import TierSource
from retentiond.settings import Settings
from retentiond.stores.base import AnyStore
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.store import CloudwatchStore
from retentiond.stores.config import TargetConfig
from retentiond.stores.deferred.backend import Backend
from retentiond.stores.deferred.store import DeferredStore, Identity
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.store import FilesStore
from retentiond.stores.health import Health as HealthConfig
from retentiond.stores.loki.backend import LokiBackend
from retentiond.stores.loki.config import LokiTarget
from retentiond.stores.opensearch.backend import OpenSearchBackend
from retentiond.stores.opensearch.config import OpenSearchTarget
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.paired import Pair, PairedRows
from retentiond.stores.postgres.pools import Pools
from retentiond.stores.postgres.store import PostgresStore
from retentiond.stores.s3.archive import S3Archive
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.store import S3Store
from retentiond.stores.victorialogs.backend import VictoriaLogsBackend
from retentiond.stores.victorialogs.config import VictoriaLogsTarget
from retentiond.sweep.spec import Health, Limits, Pace, Query, Spec, Target


def make_spec(settings: Settings, document: dict[str, object]) -> Spec:
    """The settings as the sweep layer takes them."""
    guards = settings.guards
    return Spec(
        enforce=settings.mode == "enforce",
        policy=settings.policy,
        rules=TierRules(settings.accounts.tier_map if settings.accounts else {}),
        targets=tuple(make_target(settings, name, config) for name, config in sorted(settings.targets.items())),
        digest=digest_of(document),
        has_directory=settings.accounts is not None,
        missing_means_deleted=settings.accounts is not None and settings.accounts.missing == "deleted",
        limits=Limits(
            max_fraction=guards.max_fraction,
            min_records=guards.min_records,
            max_records=guards.max_records,
            max_accounts_shortened=guards.max_accounts_shortened,
            min_accounts_shortened=guards.min_accounts_shortened,
            max_clock_skew=timedelta(seconds=guards.max_clock_skew),
            max_clock_jump=timedelta(microseconds=guards.max_clock_jump.nominal()),
        ),
        release_grace=timedelta(microseconds=settings.holds.release_grace.nominal()),
        late_effect_grace=timedelta(seconds=settings.holds.late_effect_grace),
        min_interval=timedelta(seconds=settings.sweep.min_interval),
        max_interval=timedelta(seconds=settings.sweep.max_interval),
    )


def make_target(settings: Settings, name: str, config: TargetConfig) -> Target:
    """One target as the sweep layer takes it."""
    data_class = settings.policy.classes[config.class_name]
    facts = _kind(config).facts(config, settings.targets)
    source: TierSource = "directory"
    if config.tier is not None:
        source = "constant"
    elif facts.has_tier:
        source = "record"
    elif settings.accounts is None or not facts.has_account:
        source = "none"
    return Target(
        name=name,
        store=config.store,
        data_class=data_class,
        action=config.action or data_class.action or "delete",
        tier_source=source,
        tier=config.tier,
        knows_account=facts.has_account,
        pace=Pace(**config.pace.model_dump(exclude={"health"})),
        health=facts.health,
        vacuum=facts.vacuum,
        window=config.window,
    )


def make_store(config: TargetConfig, target: Target, shared: Shared) -> AnyStore:
    """The store of a target."""
    return _kind(config).store(config, target, shared)


def make_health(config: HealthConfig) -> Health:
    """When the sweeps of a target yield, as the sweep layer takes it."""
    query = config.promql
    token = query.token.get_secret_value() if query is not None and query.token is not None else None
    return Health(
        limits=config.limits(),
        configured=config.configured(),
        patience=config.patience,
        query=Query(query.url, query.expression, query.threshold, token) if query is not None else None,
    )


def digest_of(document: dict[str, object]) -> str:
    """The digest of all that enters a verdict."""
    return hashlib.sha256(canonical(document)).hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """What differs between kinds of stores of what the sweep layer knows of a target.

    `has_account`, `has_tier`: whether the records themselves say whose they are, and of which tier.
    """

    has_account: bool
    has_tier: bool
    health: Health = field(default_factory=Health)
    vacuum: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """What the stores of one process have in common.

    `space` and `secret` are of the control database, `pools` of this process; `scratch` is the folder for files that go
    with it (None: the system's own).
    """

    space: str
    secret: bytes
    pools: Pools
    scratch: Path | None = None


def _table_facts(config: PostgresTarget, others: Mapping[str, TargetConfig]) -> Facts:
    del others  # a row says for itself what it is
    return Facts(
        has_account=config.account is not None,
        has_tier=config.tier_column is not None,
        health=make_health(config.pace.health),
        vacuum=config.vacuum,
    )


def _table(config: PostgresTarget, target: Target, shared: Shared) -> AnyStore:
    space, secret, pools = shared.space, shared.secret, shared.pools
    sink = S3Archive(config.archive) if config.archive is not None else None
    return PostgresStore(target.name, config, action=target.action, space=space, secret=secret, pools=pools, sink=sink)


def _object_facts(config: S3Target, others: Mapping[str, TargetConfig]) -> Facts:
    rows = others.get(config.pairs_with or "")
    by_row = isinstance(rows, PostgresTarget) and rows.tier_column is not None and config.tier is None
    return Facts(has_account=config.knows_account, has_tier=config.has_tier or by_row)


def _objects(config: S3Target, target: Target, shared: Shared) -> AnyStore:
    scratch = shared.scratch
    return S3Store(target.name, config, action=target.action, data_class=target.data_class, scratch=scratch)


def _line_facts(config: FilesTarget, others: Mapping[str, TargetConfig]) -> Facts:
    del others  # a line says for itself what it is
    return Facts(has_account=config.account is not None, has_tier=config.tier_field is not None)


def _lines(config: FilesTarget, target: Target, shared: Shared) -> AnyStore:
    return FilesStore(target.name, config, action=target.action, secret=shared.secret)


def _log_group_facts(config: CloudwatchTarget, others: Mapping[str, TargetConfig]) -> Facts:
    del others  # a group says for itself what it is
    return Facts(has_account=config.knows_account, has_tier=config.has_tier)


def _log_groups(config: CloudwatchTarget, target: Target, shared: Shared) -> AnyStore:
    del shared  # what is remembered of groups is given to it by whoever opens the control database
    return CloudwatchStore(target.name, config, action=target.action, data_class=target.data_class)


def _query_facts(config: OpenSearchTarget | VictoriaLogsTarget, others: Mapping[str, TargetConfig]) -> Facts:
    del others  # a record says for itself what it is
    return Facts(has_account=config.account is not None, has_tier=config.tier_field is not None)


def _stream_facts(config: LokiTarget, others: Mapping[str, TargetConfig]) -> Facts:
    del others  # a stream says for itself what it is
    return Facts(has_account=config.account is not None, has_tier=config.tier_label is not None)


def _by_query(
    config: OpenSearchTarget | VictoriaLogsTarget | LokiTarget,
    target: Target,
    described: str,
    backend: Backend,
    *,
    by_tier: bool,
) -> DeferredStore:
    """A store whose server erases by query."""
    identity = Identity(
        name=target.name,
        kind=config.store,
        action=target.action,
        records=config.records(),
        described=described,
        address=":".join([*config.records()[:2], config.username or ""]),
        knows_account=config.account is not None,
        by_tier=by_tier,
    )
    return DeferredStore(identity, backend)


def _documents(config: OpenSearchTarget, target: Target, shared: Shared) -> AnyStore:
    backend = OpenSearchBackend(target.name, config, shared.space)
    return _by_query(config, target, f"documents of {config.index}", backend, by_tier=config.tier_field is not None)


def _stored_lines(config: VictoriaLogsTarget, target: Target, shared: Shared) -> AnyStore:
    backend = VictoriaLogsBackend(target.name, config, shared.space)
    return _by_query(config, target, f"lines of {config.filter}", backend, by_tier=config.tier_field is not None)


def _streams(config: LokiTarget, target: Target, shared: Shared) -> AnyStore:
    backend = LokiBackend(target.name, config, shared.space)
    return _by_query(config, target, f"streams of {config.selector}", backend, by_tier=config.tier_label is not None)


def make_stores(targets: Sequence[Target], given: Mapping[str, TargetConfig], shared: Shared) -> dict[str, AnyStore]:
    """The stores of all targets, those that are paired put together."""
    made = {each.name: make_store(given[each.name], each, shared) for each in targets}
    for name, objects in made.items():
        if not isinstance(objects, S3Store) or objects.config.pairs_with is None:
            continue
        rows = made[objects.config.pairs_with]
        assert isinstance(rows, PostgresStore)
        assert objects.config.pair_key is not None
        pair = Pair(objects.config.pair_key, f"targets.{name}.pair_key", objects)
        rows.pair(pair)
        objects.pair(PairedRows(rows, pair))
    return made


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of store is composed; each is given the configuration model that it is listed under."""

    facts: Callable[[Any, Mapping[str, TargetConfig]], Facts]
    store: Callable[[Any, Target, Shared], AnyStore]


KINDS: Mapping[type[TargetConfig], Kind] = MappingProxyType(
    {
        FilesTarget: Kind(_line_facts, _lines),
        PostgresTarget: Kind(_table_facts, _table),
        S3Target: Kind(_object_facts, _objects),
        CloudwatchTarget: Kind(_log_group_facts, _log_groups),
        OpenSearchTarget: Kind(_query_facts, _documents),
        VictoriaLogsTarget: Kind(_query_facts, _stored_lines),
        LokiTarget: Kind(_stream_facts, _streams),
    }
)
"""Every kind of store by its configuration model: a new one is one line here, and one in `stores.registry`."""


def _kind(config: TargetConfig) -> Kind:
    return KINDS[type(config)]
