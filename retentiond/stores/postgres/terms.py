"""The terms of a plan in SQL: each pair of tier and override becomes a number, each number a cutoff.

SQL parses no duration: the domain resolves every pair once, and statements look the answer up. Number 0 is a term that
can't be told (a faulty override, a pair that nobody has resolved): it has no cutoff, so nothing under it expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import orjson

from retentiond.domain.accounts import Resolution
from retentiond.domain.plan import Group, TargetPlan
from retentiond.stores.postgres.catalog import Column
from retentiond.stores.postgres.shape import Context, DirectorySource, Looked, Params, Shape

UNTOLD = 0
_FEW = 12
_NEVER = datetime.min  # noqa: DTZ901 - asyncpg's spelling of '-infinity', before which no anchor is


@dataclass(frozen=True, slots=True)
class Terms:
    """Each pair's number; what the numbers from 1 on stand for; the numbers of no account and of an unknown one."""

    numbers: tuple[tuple[Group, int], ...]
    resolutions: tuple[Resolution, ...]
    nobody: int
    absent: int

    def cutoff(self, number: str, params: Params) -> str:
        """The cutoff of a number as SQL; null for 0, before every anchor for a term that never ends."""
        edges = [found.cutoff or _NEVER for found in self.resolutions]
        return f"({params.add(edges, 'timestamptz[]')})[{number}]"

    def label(self, number: str, params: Params) -> str:
        """The tier's name as SQL."""
        return f"COALESCE(({params.add([found.tier for found in self.resolutions], 'text[]')})[{number}], 'unknown')"

    def ends(self, number: int) -> bool:
        """Whether anything can expire under the number."""
        return number != UNTOLD and self.resolutions[number - 1].cutoff is not None

    def labels(self) -> dict[str, list[int]]:
        """The numbers under which each tier's records can be due."""
        found: dict[str, list[int]] = {}
        for number, resolution in enumerate(self.resolutions, 1):
            found.setdefault(resolution.tier, []).append(number)
        # An account whose term can't be told is erased all the same once it is deleted: it counts as unknown.
        found.setdefault("unknown", []).append(UNTOLD)
        return found


@lru_cache(maxsize=32)
def number_terms(plan: TargetPlan) -> Terms:
    """The terms of a plan, numbered from 1; what has a fault is 0."""
    resolutions: dict[Resolution, int] = {}

    def number(found: Resolution) -> int:
        return UNTOLD if found.fault is not None else resolutions.setdefault(found, len(resolutions) + 1)

    pairs = tuple((group, number(found)) for group, found in plan.resolutions().items())
    nobody, absent = number(plan.of_nobody()), number(plan.of_unknown())
    return Terms(pairs, tuple(resolutions), nobody, absent)


def number_sql(terms: Terms, plan: TargetPlan, params: Params, *, tier: str, override: str) -> str:
    """The number of a raw tier (for a plan of one tier: whatever) and an override's text."""
    if plan.tier_source == "constant":
        tier = "NULL::text"
    elif plan.tier_source == "record":
        # A tier of the record's own that nothing maps is an unknown one.
        tier = f"CASE WHEN {tier} = ANY({params.add(list(plan.raw_tiers()), 'text[]')}) THEN {tier} END"
    if len(terms.numbers) > _FEW:
        table = {_key(group): number for group, number in terms.numbers}
        looked = f"({params.add(orjson.dumps(table).decode(), 'text')}::jsonb ->> {_key_sql(tier, override)})"
        return f"COALESCE({looked}::int, {UNTOLD})"
    match = " ".join(
        f"WHEN {_is(tier, group.tier, params)} AND {_is(override, group.override, params)} THEN {number}"
        for group, number in terms.numbers
    )
    return f"CASE {match} ELSE {UNTOLD} END" if match else str(UNTOLD)


def _is(expression: str, value: str | None, params: Params) -> str:
    if expression == "NULL::text":
        return "true" if value is None else "false"
    return f"{expression} IS NULL" if value is None else f"{expression} = {params.add(value, 'text')}"


def _key(group: Group) -> str:
    tier = "" if group.tier is None else f"{len(group.tier)}:{group.tier}"
    return tier + ";" + ("" if group.override is None else f"={group.override}")


def _key_sql(tier: str, override: str) -> str:
    """As `_key`: the tier's length keeps texts that hold the separators apart."""
    return f"(COALESCE(length({tier})::text || ':' || {tier}, '') || ';' || COALESCE('=' || {override}, ''))"


def has_accounts(shape: Shape, plan: TargetPlan, context: Context) -> bool:
    """Whether accounts enter the verdicts and are known here: from a directory beside the table, or asked elsewhere."""
    return (
        shape.account is not None and plan.has_directory and (context.looked is not None or shape.directory is not None)
    )


def accounts_sql(shape: Shape, plan: TargetPlan, params: Params, context: Context) -> str | None:
    """The relation (id, tier, override, deleted_at, in_grace) of the accounts that are known; None: none are."""
    if not has_accounts(shape, plan, context):
        return None
    if context.looked is not None:
        assert shape.account is not None  # `has_accounts` saw to it
        return _looked(shape.account, params, context.looked)
    source = shape.directory
    assert source is not None
    deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
    return (
        f"SELECT d.{source.id} AS id, d.{source.tier}::text AS tier,"
        f" {override_expression(source, plan.data_class.name, params)} AS override, {deleted} AS deleted_at,"
        f" {_grace(source, plan, params, context)} AS in_grace FROM {source.relation} d"
    )


def _looked(account: Column, params: Params, looked: Looked) -> str:
    arrays = ", ".join(
        [
            f"{params.add(list(looked.ids), 'text[]')}::{account.type}[]",
            params.add(list(looked.tiers), "text[]"),
            params.add(list(looked.overrides), "text[]"),
            params.add(list(looked.deleted_at), "timestamptz[]"),
            params.add(list(looked.in_grace), "bool[]"),
        ]
    )
    return (
        "SELECT u.id, u.tier, u.override, u.deleted_at, u.in_grace"
        f" FROM unnest({arrays}) u(id, tier, override, deleted_at, in_grace)"
    )


def override_expression(source: DirectorySource, class_name: str, params: Params) -> str:
    """The override text of a class; what is no JSON object is text that no duration matches."""
    if source.overrides is None:
        return "NULL::text"
    column = f"d.{source.overrides}::jsonb"
    name = params.add(class_name, "text")
    return (
        f"CASE pg_catalog.jsonb_typeof({column}) WHEN 'object' THEN {column} ->> {name}"
        f" WHEN 'null' THEN NULL ELSE CASE WHEN {column} IS NOT NULL THEN '(no JSON object)' END END"
    )


def _grace(source: DirectorySource, plan: TargetPlan, params: Params, context: Context) -> str:
    edge = plan.grace_cutoff
    if edge is None or plan.tier_source != "directory":
        return "false"
    if source.changed_at:
        return f"COALESCE(d.{source.changed_at}::timestamptz > {params.moment(edge)}, false)"
    lately = f"d.{source.id}::text = ANY({params.add(list(context.recent), 'text[]')})"
    if context.since is None or not source.has_xmin:
        return lately
    # Both ages count back from the same number in one statement, whichever that is on this connection.
    survey = f"pg_catalog.age({params.add(context.since, 'text')}::xid)"
    return f"({lately} OR pg_catalog.age(d.xmin) <= {survey})"
