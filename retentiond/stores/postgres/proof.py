"""The proof that every record of a partition is due: it is counted by the condition that rows are deleted by.

Whole partitions go only where as many records as there are would be deleted one by one, holds, terms and accounts
included. The statement is `erase.Erasing`'s, over the partitions instead of the table, in a form that PostgreSQL can
give to parallel workers: what a sweep by rows does is never judged twice by different rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import asyncpg

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Part, earliest, latest
from retentiond.stores.postgres.catalog import Table, quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.parts import upper
from retentiond.stores.postgres.pieces import context_of
from retentiond.stores.postgres.shape import (
    Context,
    DirectorySource,
    Params,
    Shape,
    anchor_expression,
    stored_bytes,
)
from retentiond.stores.postgres.terms import number_terms
from retentiond.stores.postgres.walks import Walk
from retentiond.stores.postgres.whole import PART, Counting, Measures, of_records

_MOST_ACCOUNTS = 50_000
_ALL = Walk("true", ())
_SUMS = tuple(f'"retentiond {name}"' for name in ("records", "bytes", "oldest", "newest"))


@dataclass(frozen=True, slots=True)
class Parts(Table):
    """Partitions in the place of their table, with a column `PART`; of each the first `most` records, if given."""

    parts: tuple[Part, ...] = ()
    most: int | None = None

    @property
    def sql(self) -> str:
        """A relation for FROM."""
        names = ", ".join(quote(name) for name in self.columns)
        limit = "" if self.most is None else f" LIMIT {self.most}"
        each = (f"(SELECT {p.number}::int8 AS {PART}, {names} FROM {p.name}{limit})" for p in self.parts)
        return f"({' UNION ALL '.join(each)})"


@dataclass(frozen=True, slots=True)
class Accounts(Table):
    """In their place what the records of each account come to, with the youngest anchor for the anchor."""

    grouped: str = ""
    measures: ClassVar[Measures] = Measures(*(f"r.{name}" for name in _SUMS))

    @property
    def sql(self) -> str:
        """A relation for FROM."""
        return f"({self.grouped})"


def _grouped(shape: Shape, parts: Sequence[Part]) -> Accounts:
    assert shape.account is not None  # `settles_by_account` saw to it
    account, at = f"r.{quote(shape.account.name)}", anchor_expression(shape)
    # Partition by partition, since so few groups need little memory. No account with a record of no finite anchor has
    # a youngest one: such a record may be due to nobody.
    figures = ("count(*)", f"sum({stored_bytes(shape.table)})::int8", f"min({at})", f"max({at})")
    sums = ", ".join(f"{figure} AS {name}" for figure, name in zip(figures, _SUMS, strict=True))
    each = (
        f"(SELECT {part.number}::int8 AS {PART}, {account}, CASE WHEN count({at}) = count(*) THEN max({at}) END"
        f" AS {quote(shape.anchor.name)}, {sums} FROM {part.name} r GROUP BY {account})"
        for part in parts
    )
    return Accounts(**_as_it_is(shape.table), grouped=" UNION ALL ".join(each))


@dataclass(frozen=True, slots=True)
class Youngest(Table):
    """In the place of partitions a record of each account that the directory has, as young as one there can be."""

    parts: tuple[Part, ...] = ()
    anchor: str = ""
    account: str = ""
    directory: DirectorySource | None = None

    @property
    def sql(self) -> str:
        """A relation for FROM."""
        source, types = self.directory, {name: column.type for name, column in self.columns.items()}
        assert source is not None  # `settled_by_accounts` saw to it
        made = {self.anchor: "u.upper", self.account: f"d.{source.id}"}
        columns = ", ".join(f"{made.get(name, 'NULL')}::{type_} AS {quote(name)}" for name, type_ in types.items())
        ends = ", ".join(
            "({}::int8, '{}'::text)".format(part.number, (upper(part.bounds) or "").replace("'", "''"))
            for part in self.parts
        )
        return (
            f"(SELECT u.part AS {PART}, {columns} FROM {source.relation} d CROSS JOIN (VALUES {ends}) u (part, upper))"
        )


@dataclass(slots=True)
class Proved:
    """How many records a partition has and how many of them are due; of these the size, anchors and tiers."""

    records: int = 0
    due: int = 0
    bytes: int = 0
    oldest: str | None = None
    newest: str | None = None
    by_tier: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all of it may go; an empty one has nothing to erase, and is its owner's to drop."""
        return 0 < self.records == self.due


async def prove(
    connection: Connection,
    shape: Shape,
    directory: Directory | None,
    plan: TargetPlan,
    parts: Sequence[Part],
    *,
    most: int | None = None,
    evidence: bool = False,
) -> dict[int, Proved]:
    """What each partition has, by its number, or its first `most` records; `evidence` adds their size and anchors.

    It proves something only while nobody else can write to the partitions.
    """
    found = {part.number: Proved() for part in parts}
    if not parts:
        return found
    # Compiling takes longer than what it saves here, and statements of so many parameters look dear.
    await connection.execute("SET LOCAL jit = off")
    if most is None and settles_by_account(shape, plan):
        found = await _by_account(connection, shape, directory, plan, parts, evidence=evidence)
        # Another kind of account may settle these; all kinds are asked below.
        parts = [part for part in parts if not found[part.number].whole]
    return found | await _one_by_one(connection, shape, directory, plan, parts, most=most, evidence=evidence)


def settles_by_account(shape: Shape, plan: TargetPlan) -> bool:
    """Whether all records of an account are due where the youngest of them is: no rule is about a single record."""
    by_account = all(not hold.by_item and hold.until is None for hold in plan.holds)
    by_anchor = shape.anchor.base == "timestamptz" and not plan.counts_from_deletion
    return by_account and by_anchor and shape.account is not None and plan.tier_source != "record"


async def _by_account(
    connection: Connection,
    shape: Shape,
    directory: Directory | None,
    plan: TargetPlan,
    parts: Sequence[Part],
    *,
    evidence: bool,
) -> dict[int, Proved]:
    """As `prove`, for accounts that the directory has: each account is judged once, by its youngest record."""
    found = {part.number: Proved() for part in parts}
    there = replace(shape, table=Parts(**_as_it_is(shape.table), parts=tuple(parts)))
    context = await context_of(connection, there, directory, plan, lambda _: _ALL, most=_MOST_ACCOUNTS)
    params = Params()
    grouped = replace(shape, table=_grouped(shape, parts))
    counting = Counting(grouped, plan, params, _ALL, context, None, only="known")
    if counting.kinds:
        sql = counting.whole_sql(Accounts.measures, evidence=evidence)
        # A directory that has an account twice counts its records twice.
        rows = await connection.fetch(f"SELECT t.*, {counting.each_once()} AS once FROM ({sql}) t", *params.values)
        if all(row["once"] for row in rows):
            _add(found, plan, rows, evidence=evidence)
    return found


async def _one_by_one(
    connection: Connection,
    shape: Shape,
    directory: Directory | None,
    plan: TargetPlan,
    parts: Sequence[Part],
    *,
    most: int | None,
    evidence: bool,
) -> dict[int, Proved]:
    """As `prove`: each record is judged by itself."""
    found = {part.number: Proved() for part in parts}
    if not parts:
        return found
    shape = replace(shape, table=Parts(**_as_it_is(shape.table), parts=tuple(parts), most=most))
    context = await context_of(connection, shape, directory, plan, lambda _: _ALL, most=_MOST_ACCOUNTS)
    await _count(connection, shape, plan, context, found, "known", evidence=evidence)
    if all(each.whole for each in found.values()) and not evidence:
        return found
    records = f"SELECT r.{PART} AS part, count(*) AS records FROM {shape.table.sql} r GROUP BY 1"
    there = {row["part"]: row["records"] for row in await connection.fetch(records)}
    if any(each.due < there.get(number, 0) for number, each in found.items()):
        # What is due under another kind of account: all kinds by one statement, so that no record is of two of them.
        for number in found:
            found[number] = Proved()
        await _count(connection, shape, plan, context, found, None, evidence=evidence)
    for number, each in found.items():
        # A directory that has an account twice counts its records twice, and may so make up for one that is not due.
        if each.records and each.records != there.get(number, 0):
            each.due = 0
        each.records = there.get(number, 0)
    return found


async def settled_by_accounts(
    connection: Connection, shape: Shape, plan: TargetPlan, parts: Sequence[Part]
) -> set[int]:
    """Partitions so old that no account that there is could keep a record in them: a look at those takes no reading.

    It is a look and no proof: there may be records of accounts that the directory does not have.
    """
    account, source = shape.account, shape.directory
    by_account = all(
        not hold.by_item and hold.since is None and hold.until is None and hold.accounts is not None
        for hold in plan.holds
    )
    if not parts or account is None or source is None or plan.tier_source != "directory":
        return set()
    if not account.not_null or not by_account or plan.missing:
        return set()
    table = Youngest(
        **_as_it_is(shape.table), parts=tuple(parts), anchor=shape.anchor.name, account=account.name, directory=source
    )
    found = {part.number: Proved() for part in parts}
    shape = replace(shape, table=table)
    context = await context_of(connection, shape, None, plan, lambda _: _ALL)
    await _count(connection, shape, plan, context, found, "known", evidence=False)
    return {number for number, each in found.items() if each.whole}


def _as_it_is(table: Table) -> dict[str, Any]:
    return {each.name: getattr(table, each.name) for each in fields(Table)}


async def _count(
    connection: Connection,
    shape: Shape,
    plan: TargetPlan,
    context: Context,
    found: dict[int, Proved],
    only: str | None,
    *,
    evidence: bool,
) -> None:
    params = Params()
    counting = Counting(shape, plan, params, _ALL, context, None, only=only)
    if counting.kinds:
        sql = counting.whole_sql(of_records(shape), evidence=evidence)
        _add(found, plan, await connection.fetch(sql, *params.values), evidence=evidence)


def _add(found: dict[int, Proved], plan: TargetPlan, rows: Sequence[asyncpg.Record], *, evidence: bool) -> None:
    labels = {number: label for label, numbers in number_terms(plan).labels().items() for number in numbers}
    for row in rows:
        each = found[row["part"]]
        each.records += row["records"]
        each.due += row["due"]
        if evidence and row["due"]:
            label = labels[row["n"]]
            each.by_tier[label] = each.by_tier.get(label, 0) + row["due"]
            each.bytes += row["bytes"]
            each.oldest, each.newest = earliest(each.oldest, row["oldest"]), latest(each.newest, row["newest"])
