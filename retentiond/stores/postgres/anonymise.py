"""Anonymising in place: the assignments of an UPDATE, and how a record that is done already is told.

Each record is changed once. The marker is the changed value itself, or a column named by the target: a null, the
constant, an address that is truncated already, a hash with its prefix (2-semantics, "Actions").
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import Column, Table, quote
from retentiond.stores.postgres.shape import Params

Method = Literal["null", "constant", "hash", "truncate_ip"]
_PREFIX = "hmac:"
_BLOCK = 64
_SEAL = 16
_VALIDATES_SINCE = 160_000
_V4 = r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)"


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one column."""

    method: Method
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The anonymisation of a table: a rule for each column, the marker column if one is named, the server's version."""

    columns: tuple[tuple[Column, Rule], ...]
    marker: Column | None
    key: bytes
    version: int = 0

    def assignments(self, params: Params) -> str:
        """The SET list over the alias `r`."""
        parts = [f"{quote(column.name)} = {self._value(column, rule, params)}" for column, rule in self.columns]
        if self.marker is not None:
            value = "now()" if self.marker.base.startswith("timestamp") else "true"
            parts.append(f"{quote(self.marker.name)} = {value}")
        return ", ".join(parts)

    def done(self, params: Params) -> str:
        """Whether the record `r` has been anonymised already."""
        if self.marker is not None:
            name = f"r.{quote(self.marker.name)}"
            return f"({name} IS NOT NULL)" if self.marker.base.startswith("timestamp") else f"COALESCE({name}, false)"
        return "(" + " AND ".join(self._is_done(column, rule, params) for column, rule in self.columns) + ")"

    def _is_done(self, column: Column, rule: Rule, params: Params) -> str:
        name = f"r.{quote(column.name)}"
        if rule.method == "hash":
            return f"COALESCE({self._is_hashed(name, params)}, true)"
        same = f"({name} IS NOT DISTINCT FROM {self._value(column, rule, params)})"
        if rule.method == "truncate_ip" and column.base not in ("inet", "cidr"):
            # A text that is no address can't be cut: it is not done, and is refused when it is to be.
            return f"CASE WHEN {name} IS NULL OR {_is_address(name, self.version)} THEN {same} ELSE false END"
        return same

    def _value(self, column: Column, rule: Rule, params: Params) -> str:
        name = f"r.{quote(column.name)}"
        if rule.method == "null":
            return f"NULL::{column.type}"
        if rule.method == "constant":
            return f"{params.add(rule.value, 'text')}::{column.type}"
        if rule.method == "truncate_ip":
            inet = f"({name}::text)::inet"
            cut = f"network(set_masklen({inet}, CASE family({inet}) WHEN 4 THEN 24 ELSE 48 END))"
            return f"(CASE WHEN {name} IS NOT NULL THEN host({cut}) END)::{column.type}"
        return self._hashed(name, column, params)

    def _hashed(self, name: str, column: Column, params: Params) -> str:
        digest = self._hmac(f"{name}::text", params)
        fresh = f"'{_PREFIX}' || {digest} || ':' || left({self._hmac(digest, params)}, {_SEAL})"
        kept = self._is_hashed(name, params)
        return f"(CASE WHEN {kept} THEN {name}::text WHEN {name} IS NOT NULL THEN {fresh} END)::{column.type}"

    def _is_hashed(self, name: str, params: Params) -> str:
        """Whether the value is a hash of ours: its seal is a hash of the hash, which nobody else can make."""
        digest = f"substr({name}::text, {len(_PREFIX) + 1}, 64)"
        seal = f"substr({name}::text, {len(_PREFIX) + 66})"
        looks = f"{name}::text ~ '^{_PREFIX}[0-9a-f]{{64}}:[0-9a-f]{{{_SEAL}}}$'"
        return f"CASE WHEN {looks} THEN {seal} = left({self._hmac(digest, params)}, {_SEAL}) ELSE {name} IS NULL END"

    def _hmac(self, text: str, params: Params) -> str:
        # HMAC-SHA-256 (RFC 2104) of built-in functions, so that no extension is needed.
        inner = params.add(bytes(b ^ 0x36 for b in self.key.ljust(_BLOCK, b"\0")), "bytea")
        outer = params.add(bytes(b ^ 0x5C for b in self.key.ljust(_BLOCK, b"\0")), "bytea")
        return f"encode(sha256({outer} || sha256({inner} || convert_to({text}, 'UTF8'))), 'hex')"


def make_change(
    table: Table,
    rules: Mapping[str, Rule],
    *,
    marker: str | None,
    account: str | None,
    verdict_columns: Collection[str],
    secret: bytes,
    version: int,
) -> Change:
    """The change of a target; without rules the account reference is removed (1-promise, `usage_metrics`).

    Raises Blind where a column is missing, is one of `verdict_columns` (anchor, tier) or of the key, or is followed by
    rows of other tables, which holds on those would not keep from being changed.
    """
    if not rules:
        if account is None:
            raise Blind(
                f"table {table.schema}.{table.name} is to be anonymised, but nothing says how",
                remedy="set `anonymise.columns`, or `account` so that the account reference can be removed",
            )
        rules = {account: Rule("null")}
    if fixed := sorted({*rules} & {*table.key, *verdict_columns}):
        raise Blind(
            f"column {fixed[0]!r} of table {table.schema}.{table.name} is to be anonymised, but key, anchor and tier "
            "are what a record's verdict and its evidence rest on",
            remedy="take it out of `anonymise.columns`; name another column, or `marker`",
        )
    _require_no_followers(table, {*rules, *([marker] if marker else [])})
    columns = tuple((table.column(name, "anonymise.columns"), rule) for name, rule in rules.items())
    named = table.column(marker, "anonymise.marker") if marker else None
    return Change(columns, named, hashlib.sha256(b"anonymise" + secret).digest(), version)


def _require_no_followers(table: Table, changed: Collection[str]) -> None:
    for child in table.children:
        touched = sorted({*changed} & {*child.parent_columns})
        if touched and child.on_update in "cnd":
            columns, parents = (", ".join(map(quote, each)) for each in (child.columns, child.parent_columns))
            name = quote(child.name)
            raise Blind(
                f"column {touched[0]!r} of table {table.schema}.{table.name} is to be anonymised, and by foreign key "
                f"{child.name} that would change rows of {child.table}, held ones as well",
                remedy=f"ALTER TABLE {child.table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name}"
                f" FOREIGN KEY ({columns}) REFERENCES {table.sql} ({parents});"
                f" or take {touched[0]} out of `anonymise.columns`",
            )


def _is_address(name: str, version: int) -> str:
    if version >= _VALIDATES_SINCE:
        return f"pg_input_is_valid({name}::text, 'inet')"
    return f"{name}::text ~ '^({_V4}|[0-9a-fA-F]*:[0-9a-fA-F:.]*)$'"
