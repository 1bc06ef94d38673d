"""A look at a database: which tables could be targets, and which the account directory. Reads the catalogue only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from retentiond.errors import UsageError
from retentiond.stores.drafts import Draft, Drafts
from retentiond.stores.postgres.connection import TargetDatabase

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, GREATEST(c.reltuples, 0)::bigint AS records,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped ORDER BY a.attnum)::text[] AS columns,
       ARRAY(SELECT COALESCE(b.typname, t.typname) FROM pg_catalog.pg_attribute a
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)::text[] AS types,
       ARRAY(SELECT a.attname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid
             AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisvalid)::text[] AS leading,
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
       ARRAY(SELECT a.attname || ' ' || f.confrelid::regclass::text FROM pg_catalog.pg_constraint f
             JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
             WHERE f.conrelid = c.oid AND f.contype = 'f' AND cardinality(f.conkey) = 1)::text[] AS refers,
       c.oid::regclass::text AS regclass
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^(pg_|retentiond)'
  AND n.nspname <> 'information_schema' ORDER BY 1, 2
"""
_TIMES = ("timestamptz", "timestamp", "date")
_ANCHORS = (
    "created_at", "inserted_at", "occurred_at", "logged_at", "recorded_at", "received_at", "issued_at", "created",
    "inserted", "timestamp", "ts", "time", "at", "date", "day",
)  # fmt: skip
_NO_ANCHORS = ("updated_at", "modified_at", "deleted_at", "expires_at", "valid_until", "closed_at", "tier_changed_at")
_DIRECTORIES = (
    "accounts", "account", "organizations", "organisations", "orgs", "tenants", "customers", "workspaces", "teams",
    "companies", "profiles", "users",
)  # fmt: skip
_TIERS = ("tier", "plan", "plan_name", "subscription_tier", "subscription_plan")
_DELETED = ("deleted_at", "closed_at", "cancelled_at", "canceled_at")
_CHANGED = ("tier_changed_at", "plan_changed_at")
_OVERRIDES = ("retention", "retention_overrides")


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as the catalogue has it: `columns` with their types, `refers` by column to the tables' names."""

    schema: str
    name: str
    records: int
    columns: dict[str, str]
    leading: frozenset[str]
    has_key: bool
    refers: dict[str, str]
    regclass: str

    @property
    def written(self) -> str:
        """As the configuration writes it."""
        return f"{_written(self.schema)}.{_written(self.name)}"

    def first(self, names: Sequence[str], types: Sequence[str] = ()) -> str | None:
        """The first of these columns that it has, of one of the types."""
        return next(
            (each for each in names if each in self.columns and (not types or self.columns[each] in types)), None
        )


async def discover(dsn: str) -> Drafts:
    """Drafts of targets and of the account directory; raises Blind, Unreachable, and UsageError where nothing fits."""
    database = TargetDatabase(dsn, what="database")
    try:
        async with database.transaction() as connection:
            tables = [_table(row) for row in await connection.fetch(_TABLES)]
    finally:
        await database.close()
    directory = _directory(tables)
    targets, left = [], []
    for table in tables:
        anchor = _anchor(table)
        if anchor is None or not table.has_key:
            left.append(f"{table.written} ({'no primary key' if anchor else 'no column that dates its rows'})")
        else:
            targets.append(_target(table, anchor, directory))
    if not targets:
        raise UsageError("no table has a primary key and a column that dates its rows", remedy="name another database")
    notes = [f"no targets: {', '.join(left)}"] if left else []
    if directory is None:
        notes.append("no table looks like an account directory (one of accounts with a tier or plan): see `accounts`")
    return Drafts(tuple(targets), None if directory is None else _accounts(directory), tuple(notes))


def _table(row: asyncpg.Record) -> _Table:
    columns = dict(zip(row["columns"], row["types"], strict=True))
    refers = dict(each.split(" ", 1) for each in row["refers"])
    return _Table(
        row["schema"], row["name"], row["records"], columns, frozenset(row["leading"]), row["has_key"], refers,
        row["regclass"],
    )  # fmt: skip


def _anchor(table: _Table) -> str | None:
    if known := table.first(_ANCHORS, _TIMES):
        return known
    others = [name for name, kind in table.columns.items() if kind in _TIMES and name not in _NO_ANCHORS]
    return others[0] if others else None


def _directory(tables: Sequence[_Table]) -> _Table | None:
    """The table of accounts: by its name, and because it has a tier."""
    named = {name: table for table in reversed(tables) for name in (table.name.lower(),) if table.first(_TIERS)}
    return next((named[name] for name in _DIRECTORIES if name in named), None)


def _accounts(table: _Table) -> Draft:
    key = table.first(("id", "uuid", "account_id"))
    settings: dict[str, object] = {"table": table.written, "id": key or "id", "tier": table.first(_TIERS)}
    optional = {
        "deleted_at": table.first(_DELETED, _TIMES),
        "overrides": table.first(_OVERRIDES, ("jsonb", "json")),
        "tier_changed_at": table.first(_CHANGED, _TIMES),
    }
    settings |= {name: found for name, found in optional.items() if found is not None}
    notes = ["map its names of tiers with tier_map where they are not free, pro and enterprise"]
    if "deleted_at" not in settings:
        notes.append("no column says when an account was deleted: no account is ever deleted without one")
    return Draft("accounts", settings, tuple(notes))


def _target(table: _Table, anchor: str, directory: _Table | None) -> Draft:
    account = _account(table, directory)
    settings: dict[str, object] = {"store": "postgres", "table": table.written, "anchor": anchor}
    notes = [f"about {table.records} records by the statistics"]
    if account is None:
        notes.append("no column looks like the account's: without one the longest term applies")
    else:
        settings["account"] = account
    if anchor not in table.leading:
        notes.append(f"no index begins with {anchor}: sweeps read the whole table")
    return Draft(table.name, settings, tuple(notes))


def _account(table: _Table, directory: _Table | None) -> str | None:
    """The column with the account: what refers to the directory, else one that is called after it or another one."""
    if directory is not None:
        if table is directory:
            return table.first(("id", "uuid", "account_id"))
        for column, other in table.refers.items():
            if other == directory.regclass:
                return column
        if found := table.first([f"{directory.name.removesuffix('s')}_id"]):
            return found
    return table.first([f"{each.removesuffix('s')}_id" for each in _DIRECTORIES])


def _written(name: str) -> str:
    plain = name.isidentifier() and name == name.lower() and name.isascii()
    return name if plain else '"' + name.replace('"', '""') + '"'
