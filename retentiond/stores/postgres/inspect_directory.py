"""What `check` says of the account directory: columns, ids, tiers that nothing maps, overrides that can't be applied.

Accounts are counted, and a few named by the hash that logs and the ledger know them by; never by their id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import orjson

from retentiond.domain.accounts import UNKNOWN, AccountFacts, resolve
from retentiond.domain.policy import DataClass
from retentiond.stores.accounts import Rules
from retentiond.stores.base import Finding
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.config import AccountsConfig
from retentiond.stores.postgres.connection import Connection, one
from retentiond.stores.postgres.shape import DirectorySource

_SUBJECT = "accounts"
_MOMENTS, _DOCUMENTS = ("timestamptz", "timestamp", "date"), ("jsonb", "json", "text", "varchar")
_INEXACT = ("float4", "float8")
_NAMED = 3
_UNIQUE = """
SELECT c.relkind IN ('r', 'p') AS table, EXISTS (
    SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
      AND i.indkey[0] = a.attnum) AS indexed
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)
"""


@dataclass(frozen=True, slots=True)
class _Kin:
    """The accounts with the same tier and overrides: how many, and a few of their ids."""

    tier: str | None
    overrides: str | None
    count: int
    ids: Sequence[str]


async def findings(
    connection: Connection, source: DirectorySource, config: AccountsConfig, rules: Rules
) -> list[Finding]:
    """All findings of the directory; the connection is in a transaction. Raises Blind and Unreachable as translated."""
    try:
        async with connection.transaction():
            statement = await connection.prepare(f"SELECT * FROM {source.relation} d LIMIT 0")
            types = {attribute.name: attribute.type.name for attribute in statement.get_attributes()}
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError) as error:
        return [_finds(f"the account directory can't be read: {error}", "correct accounts.table or accounts.query")]
    if found := _columns(config, types):
        return [*found, *_deletions(config, rules)]
    if found := await _grants(connection, source):
        return found
    found = [*_naive(config, types), *_deletions(config, rules)]
    found += await _ids(connection, source)
    found += await _index(connection, source, config)
    try:
        async with connection.transaction():
            kin = await _kin(connection, source)
    except asyncpg.DataError as error:
        remedy = f"SELECT count(*) FROM {source.relation} d WHERE {source.overrides} IS NOT JSON;  -- Postgres 16"
        return [*found, _finds(f"accounts.overrides can't be read as JSON: {type(error).__name__}", remedy)]
    return [*found, *_tiers(kin, source, rules), *_overrides(kin, source, rules)]


def _columns(config: AccountsConfig, types: Mapping[str, str]) -> list[Finding]:
    named = {key: getattr(config, key) for key in ("id", "tier", "deleted_at", "overrides", "tier_changed_at")}
    usable = {"deleted_at": _MOMENTS, "tier_changed_at": _MOMENTS, "overrides": _DOCUMENTS}
    found = []
    for key, column in named.items():
        if column is None:
            continue
        if column not in types:
            remedy = f"set accounts.{key} to one of: {', '.join(types)}"
            found.append(_finds(f"the account directory has no column {column!r}", remedy))
        elif key in usable and types[column] not in usable[key]:
            wanted = " or ".join(usable[key][:2])
            found.append(
                _finds(
                    f"accounts.{key}: column {column!r} is of type {types[column]}, not {wanted}",
                    f"set accounts.{key} to a {wanted} column, or cast it in accounts.query",
                )
            )
        elif key == "id" and types[column] in _INEXACT:
            found.append(_finds(f"accounts.id: column {column!r} is a {types[column]}", "use an exact type for ids"))
    return found


async def _grants(connection: Connection, source: DirectorySource) -> list[Finding]:
    """Preparing asks for no right; reading does, on the columns that are used."""
    columns = (source.id, source.tier, source.deleted_at, source.overrides, source.changed_at)
    shown = ", ".join(f"d.{column}" for column in columns if column)
    try:
        async with connection.transaction():
            await connection.fetch(f"SELECT {shown} FROM {source.relation} d LIMIT 0")
    except asyncpg.InsufficientPrivilegeError as error:
        role = quote(await connection.fetchval("SELECT current_user"))
        return [
            _finds(f"the account directory can't be read: {error}", f"GRANT SELECT ON {source.relation} TO {role};")
        ]
    return []


def _naive(config: AccountsConfig, types: Mapping[str, str]) -> list[Finding]:
    named = [column for column in (config.deleted_at, config.tier_changed_at) if column]
    return [
        Finding(
            "info",
            _SUBJECT,
            f"column {column!r} is a {types[column]} without a zone: it is read as UTC",
            f"accounts.query with {column} AT TIME ZONE 'Europe/Dublin' AS {column}, where it is another zone's",
        )
        for column in named
        if types[column] != "timestamptz"
    ]


def _deletions(config: AccountsConfig, rules: Rules) -> list[Finding]:
    waiting = sorted({each.name for each in rules.classes if each.after == "account_deleted"})
    if config.deleted_at is not None or not waiting:
        return []
    message = f"accounts.deleted_at is not set, so nothing of {', '.join(waiting)} is ever due"
    return [_warns(message, "RETENTIOND_ACCOUNTS__DELETED_AT=deleted_at")]


async def _ids(connection: Connection, source: DirectorySource) -> list[Finding]:
    row = await one(
        connection,
        f"SELECT count(*) AS total, count(d.{source.id}) AS named, count(DISTINCT d.{source.id}) AS distinct"
        f" FROM {source.relation} d",
    )
    found = []
    if not row["total"]:
        found.append(_warns("the account directory is empty: all accounts are unknown", f"TABLE {source.relation};"))
    if nameless := row["total"] - row["named"]:
        remedy = f"SELECT * FROM {source.relation} d WHERE {source.id} IS NULL;"
        found.append(_finds(f"{nameless} accounts have no id: nothing that depends on the directory is swept", remedy))
    if twice := row["named"] - row["distinct"]:
        remedy = f"SELECT {source.id}, count(*) FROM {source.relation} d GROUP BY 1 HAVING count(*) > 1;"
        found.append(_finds(f"{twice} ids stand more than once: nothing that depends on them is swept", remedy))
    return found


async def _index(connection: Connection, source: DirectorySource, config: AccountsConfig) -> list[Finding]:
    row = await connection.fetchrow(_UNIQUE, source.relation, config.id) if config.table else None
    if row is None or not row["table"]:
        message = "the directory is a query or view: whether its ids are indexed can't be known from here"
        remedy = f"EXPLAIN SELECT 1 FROM {source.relation} d WHERE {source.id} = 'ID';"
        return [Finding("info", _SUBJECT, message, remedy)]
    if row["indexed"]:
        return []
    remedy = f"CREATE UNIQUE INDEX CONCURRENTLY ON {source.relation} ({source.id});"
    return [_warns("no unique index keeps the directory's ids apart, or finds one of them", remedy)]


async def _kin(connection: Connection, source: DirectorySource) -> list[_Kin]:
    overrides = f"d.{source.overrides}::jsonb::text" if source.overrides else "NULL::text"
    rows = await connection.fetch(
        f"SELECT d.{source.tier}::text AS tier, {overrides} AS overrides, count(*) AS count,"
        f" (array_agg(d.{source.id}::text))[1:{_NAMED}] AS ids FROM {source.relation} d GROUP BY 1, 2"
    )
    return [_Kin(row["tier"], row["overrides"], row["count"], [i for i in row["ids"] if i is not None]) for row in rows]


def _tiers(kin: Iterable[_Kin], source: DirectorySource, rules: Rules) -> list[Finding]:
    unmapped: dict[str, int] = defaultdict(int)
    none = 0
    for each in kin:
        if each.tier is None:
            none += each.count
        elif rules.tiers.name(each.tier, rules.policy) == UNKNOWN:
            unmapped[each.tier] += each.count
    found = []
    if none:
        remedy = f"SELECT {source.id} FROM {source.relation} d WHERE {source.tier} IS NULL;"
        found.append(_warns(f"{none} accounts have no tier: their records are kept for the longest term", remedy))
    known = "|".join(rules.policy.tiers)
    for tier, count in sorted(unmapped.items()):
        message = f"{count} accounts have the tier {tier!r}, which is not mapped: their records get the longest term"
        mapped = orjson.dumps({tier: known}).decode()
        found.append(_warns(message, f"RETENTIOND_ACCOUNTS__TIER_MAP='{mapped}'   # one of them"))
    return found


def _overrides(kin: Iterable[_Kin], source: DirectorySource, rules: Rules) -> list[Finding]:
    listed = list(kin)
    found = []
    for data_class in rules.classes:
        faulty = [each for each in listed if _is_faulty(each, data_class, rules)]
        if not faulty:
            continue
        count = sum(each.count for each in faulty)
        some = ", ".join([rules.hashed(account) for each in faulty for account in each.ids][:_NAMED])
        name = data_class.name
        shown = f"{source.overrides}::jsonb ->> '{name}'"
        found.append(
            _warns(
                f"{count} accounts have an override for {name} that is malformed or out of bounds: their records of it "
                f"are unresolved and kept (by hash: {some})",
                f"SELECT {source.id}, {shown} FROM {source.relation} d WHERE {source.overrides} IS NOT NULL;",
            )
        )
    return found


def _is_faulty(kin: _Kin, data_class: DataClass, rules: Rules) -> bool:
    facts = AccountFacts(found=True, tier=kin.tier, override=_override(kin.overrides, data_class.name))
    found = resolve(rules.policy, data_class, rules.tiers, facts, rules.now)
    return found.fault is not None and found.rule == "override"


def _override(overrides: str | None, class_name: str) -> str | None:
    """The override's text, as the SQL of `queries.override_expression` gives it."""
    document = orjson.loads(overrides) if overrides is not None else None
    if document is None:
        return None
    if not isinstance(document, dict):
        return "(no JSON object)"
    value = document.get(class_name)
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _finds(message: str, remedy: str) -> Finding:
    return Finding("error", _SUBJECT, message, remedy)


def _warns(message: str, remedy: str) -> Finding:
    return Finding("warning", _SUBJECT, message, remedy)
