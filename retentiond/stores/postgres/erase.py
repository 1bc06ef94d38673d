"""The statement that destroys what is due in a window, with the evidence computed where the rows are.

It is one DELETE (or UPDATE) a kind of account, fused with the account directory: its WHERE has the whole verdict on
the row's own columns, so a row that was refreshed since the statement began is judged again by Postgres itself and
stays (4-safety, "Postgres, what bites" 2). Accounts are only ever joined inner: what READ COMMITTED evaluates again
for a changed row then holds for that row (the inside of an anti-join it would take for empty). But the account it is
judged by is still the snapshot's: `newer` tells that such a row was among them, and then nothing of it must stand.

Where a row may be locked, was changed meanwhile, or has foreign keys that refer to it, the rows are locked first and
the statement, with a later snapshot, is confined to those: whoever inserts a child has to lock its parent, so a
statement that finds none can rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import asyncpg

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.conditions import blocked, erasing, held
from retentiond.stores.postgres.missing import directory_has, missing_rows
from retentiond.stores.postgres.queries import own_tier
from retentiond.stores.postgres.rows import instant_sql
from retentiond.stores.postgres.shape import Context, Params, Shape, anchor_expression, before, stored_bytes
from retentiond.stores.postgres.spans import is_over, span_of
from retentiond.stores.postgres.terms import accounts_sql, has_accounts, number_sql, number_terms
from retentiond.stores.postgres.walks import Walk

# A version as old as a transaction that the snapshot may not have seen. Our own transaction has a number by now, and
# `age` counts back from that.
_OLDEST_NEWER = (
    "(SELECT pg_catalog.pg_current_xact_id()::text::bigint"
    " - pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint)"
)
_FIGURES = {
    "changed": "int8", "bytes": "int8", "oldest": "text", "newest": "text", "ids_digest": "text", "tiers": "int8[]",
    "newer": "bool",
}  # fmt: skip
"""What the statement that erases tells in its first row."""
_TEXTS = ("text", "varchar", "bpchar", "citext", "name")


@dataclass(frozen=True, slots=True)
class Places:
    """Rows locked by this transaction: their partitions and their places in them."""

    parts: tuple[int, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Branch:
    """One kind of account: its relation `a` (none: nothing to join), the records' match, their term's number."""

    name: str
    accounts: str
    match: str
    number: str
    due: str


class Erasing:
    """The statement for one window; `params` are the placeholders' values, those of the walk among them."""

    def __init__(
        self,
        shape: Shape,
        plan: TargetPlan,
        params: Params,
        walk: Walk,
        context: Context,
        change: Change | None,
        *,
        only: str | None = None,
        record: str | None = None,
    ) -> None:
        """`only` is one of `kinds`: the statements are about those records alone.

        With `record`, an expression over `r`, `erase_sql` gives what goes as well.
        """
        self.shape, self.plan, self.params, self.walk = shape, plan, params, walk
        self.context, self.change, self.record = context, change, record
        self.terms = number_terms(plan)
        self._kinds = [
            branch for name, make in self._makers() if only in (None, name) and (branch := make()) is not None
        ]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of accounts under which anything can be due; where there are none there is no statement."""
        return tuple(branch.name for branch in self._kinds)

    def erase_sql(self, salt: str, locked: Places | None) -> str:
        """One row: what was deleted or changed; `tiers` are counts by the terms' labels but the first, the rest's.

        With `record` a row for each record follows, in the order of anchors and keys, with nothing but the record.
        """
        chosen = self._chosen(locked)
        acts = ", ".join(f"{branch.name} AS ({self._act(branch, chosen)})" for branch in self._kinds)
        gone = " UNION ALL ".join(f"SELECT * FROM {branch.name}" for branch in self._kinds)
        # A trigger may have kept the old value: what is not done is not counted, and is still due.
        which = "" if self.change is None else " WHERE done"
        newer = f"COALESCE(min(age) <= {_OLDEST_NEWER}, false) AS newer"
        figures = f"SELECT {self._figures(salt)}, {newer}"
        if self.record is None:
            return f"WITH {acts} {figures} FROM ({gone}) g{which}"
        nothing = ", ".join(f"NULL::{kind}" for kind in _FIGURES.values())
        order = ", ".join(("anchor", *self.shape.keys))
        numbered = f"SELECT row_number() OVER (ORDER BY {order}) AS place, record FROM gone"
        return (
            f"WITH {acts}, gone AS MATERIALIZED ({gone}) SELECT {', '.join(_FIGURES)}, record FROM ("
            f"SELECT 0 AS place, f.*, NULL::text[] AS record FROM ({figures} FROM gone g) f"
            f" UNION ALL SELECT place, {nothing}, record FROM ({numbered}) n) told ORDER BY place"
        )

    def evidence_sql(self, salt: str) -> str:
        """One row as of `erase_sql`, of what a statement with the same snapshot deletes."""
        due = " UNION ALL ".join(
            f"SELECT {self._returned(branch)} FROM {self._from(branch)} WHERE {self._where(branch)}"
            for branch in self._kinds
        )
        # OFFSET 0 keeps the planner from copying what is returned into every figure that uses it.
        return f"SELECT {self._figures(salt)} FROM ({due} OFFSET 0) g"

    def delete_sql(self) -> str:
        """The deletion alone, of the one kind that this was made for; how many went is in the command's status."""
        (branch,) = self._kinds
        using = f" USING {branch.accounts}" if branch.accounts else ""
        return f"DELETE FROM {self.shape.table.sql} r{using} WHERE {self._where(branch)}"

    def _figures(self, salt: str) -> str:
        tiers = ", ".join(
            f"count(*) FILTER (WHERE {' OR '.join(f'n = {number}' for number in numbers)})"
            for numbers in list(self.terms.labels().values())[1:]
        )
        return (
            "count(*) AS changed, COALESCE(sum(size), 0)::bigint AS bytes,"
            f" {instant_sql('min(anchor)')} AS oldest, {instant_sql('max(anchor)')} AS newest,"
            f" {self._digest(salt)} AS ids_digest, ARRAY[{tiers}]::bigint[] AS tiers"
        )

    def lock_sql(self, *, skip_locked: bool) -> str:
        """One row: the places of the rows that are due, now locked; those that others hold are awaited or left out."""
        how = "FOR UPDATE OF r SKIP LOCKED" if skip_locked else "FOR UPDATE OF r"
        picks = ", ".join(
            f"{b.name} AS MATERIALIZED (SELECT r.tableoid AS part, r.ctid AS place FROM {self._from(b)}"
            f" WHERE {self._where(b)} {how})"
            for b in self._kinds
        )
        picked = " UNION ALL ".join(f"SELECT part, place FROM {branch.name}" for branch in self._kinds)
        return (
            f"WITH {picks} SELECT COALESCE(array_agg(part::int8), '{{}}') AS parts,"
            f" COALESCE(array_agg(place::text), '{{}}') AS places FROM ({picked}) p"
        )

    def tally(self, row: asyncpg.Record) -> Tally:
        """The row of `erase_sql` as a Tally."""
        counts = zip(self.terms.labels(), [row["changed"] - sum(row["tiers"]), *row["tiers"]], strict=True)
        return Tally(
            scanned=row["changed"],
            selected=row["changed"],
            changed=row["changed"],
            bytes=row["bytes"],
            oldest=row["oldest"],
            newest=row["newest"],
            ids_digest=row["ids_digest"],
            by_tier={label: count for label, count in counts if count},
        )

    def _act(self, branch: _Branch, chosen: str) -> str:
        table = self.shape.table.sql
        others = ", ".join(part for part in (branch.accounts, chosen) if part)
        if self.change is None:
            verb = f"DELETE FROM {table} r{' USING ' + others if others else ''}"
        else:
            verb = f"UPDATE {table} r SET {self.change.assignments(self.params)}{' FROM ' + others if others else ''}"
        done = "" if self.change is None else f", {self.change.done(self.params)} AS done"
        which = " AND r.ctid = l.place AND r.tableoid = l.part" if chosen else ""
        return (
            f"{verb} WHERE {self._where(branch)}{which}"
            f" RETURNING {self._returned(branch)}, pg_catalog.age(r.xmin) AS age{done}"
        )

    def _from(self, branch: _Branch) -> str:
        return f"{self.shape.table.sql} r{', ' + branch.accounts if branch.accounts else ''}"

    def _returned(self, branch: _Branch) -> str:
        keys = ", ".join(
            f"r.{quote(name)} AS {k}" for name, k in zip(self.shape.table.key, self.shape.keys, strict=True)
        )
        return (
            f"{keys}, {anchor_expression(self.shape)} AS anchor, {branch.number} AS n,"
            f" {stored_bytes(self.shape.table)} AS size"
            f"{f', {self.record} AS record' if self.record else ''}"
        )

    def _where(self, branch: _Branch, *, matched: bool = False) -> str:
        tests = [self.walk.condition, branch.due] if matched else [self.walk.condition, branch.match, branch.due]
        if self.plan.holds:
            tests.append(f"NOT {held(self.shape, self.plan, self.params)}")
        if self.change is not None:
            tests.append(f"NOT {self.change.done(self.params)}")
        elif self.shape.table.children:
            tests.append(f"NOT {blocked(self.shape)}")
        return " AND ".join(tests)

    def _chosen(self, locked: Places | None) -> str:
        if locked is None:
            return ""
        parts, places = self.params.add(list(locked.parts), "int8[]"), self.params.add(list(locked.places), "text[]")
        return f"(SELECT u.part::oid AS part, u.place::tid AS place FROM unnest({parts}, {places}) u(part, place)) l"

    def _digest(self, salt: str) -> str:
        columns = [self.shape.table.columns[name] for name in self.shape.table.key]
        # Texts bytewise: the order of a digest must not hang on a database's collation.
        order = ", ".join(
            f'{k} COLLATE "C"' if column.base in _TEXTS else k
            for k, column in zip(self.shape.keys, columns, strict=True)
        )
        ids = f"string_agg({self.shape.key_text}, E'\\n' ORDER BY {order})"
        return f"encode(sha256(convert_to({self.params.add(salt, 'text')} || {ids}, 'UTF8')), 'hex')"

    # --- The kinds of accounts ---

    def _makers(self) -> list[tuple[str, Callable[[], _Branch | None]]]:
        """By the names of the kinds, what makes the branch; None where nothing of the kind can be due."""
        account = self.shape.account
        if account is None or not has_accounts(self.shape, self.plan, self.context):
            return [("all_records", lambda: self._without_account("all_records", "", "true", self.terms.absent))]
        column = f"r.{quote(account.name)}"
        makers: list[tuple[str, Callable[[], _Branch | None]]] = [("known", lambda: self._known(f"{column} = a.id"))]
        if not account.not_null:
            nobody = f"{column} IS NULL"
            makers.append(("nobody", lambda: self._without_account("nobody", "", nobody, self.terms.nobody)))
        if self.plan.missing:
            makers.append(("missing", lambda: self._missing(f"{column} = a.id")))
        return [*makers, ("absent", lambda: self._absent(column))]

    def _known(self, match: str) -> _Branch:
        """Records whose account the directory has."""
        plan, params = self.plan, self.params
        accounts = f"({accounts_sql(self.shape, plan, params, self.context)}) a"
        tier = "a.tier" if plan.tier_source == "directory" else own_tier(self.shape)
        number = number_sql(self.terms, plan, params, tier=tier, override="a.override")
        due = self._over(number, (n for _, n in self.terms.numbers), grace=True)
        if not plan.data_class.minimum:
            due = f"({due} OR {erasing(plan, params)})"
        return _Branch("known", accounts, match, number, due)

    def _missing(self, match: str) -> _Branch:
        """Records whose account the directory lost so long ago that it counts as deleted, and still lacks now."""
        plan, params, shape = self.plan, self.params, self.shape
        assert shape.account is not None
        source, looked = shape.directory, self.context.looked
        lacks = f" WHERE NOT {directory_has(source, 'm.id')}" if source is not None else ""
        if looked is not None:
            # One that was not asked about may have come back.
            lacking = set(looked.asked) - set(looked.ids)
            plan = replace(plan, missing=tuple(each for each in plan.missing if each.id in lacking))
        lost = missing_rows(plan, shape.account, params)
        number, of = self._number_without(self.terms.absent)
        due = self._over(number, of)
        if not plan.data_class.minimum:
            due = f"({due} OR {erasing(plan, params)})"
        return _Branch("missing", f"(SELECT m.id, m.since AS deleted_at FROM {lost}{lacks}) a", match, number, due)

    def _without_account(self, name: str, accounts: str, match: str, number: int) -> _Branch | None:
        """Records of no account, or of one that is not known."""
        if not self._may_end(number):
            return None
        told, of = self._number_without(number)
        return _Branch(name, accounts, match, told, self._over(told, of))

    def _absent(self, account: str) -> _Branch | None:
        """Records of accounts that the directory does not have."""
        if not self._may_end(self.terms.absent) or not (accounts := self._absent_accounts(account)):
            return None
        return self._without_account("absent", accounts, f"{account} = a.id", self.terms.absent)

    def _over(self, number: str, of: Iterable[int], *, grace: bool = False) -> str:
        """Whether the term with this number, one of these, is over."""
        return is_over(
            self.shape, self.plan, self.terms, self.walk, self.params, number=number, of=frozenset(of), grace=grace
        )

    def _number_without(self, number: int) -> tuple[str, Iterable[int]]:
        """The number where the directory tells nothing, and which it can be: the given one, or the record's own."""
        if self.plan.tier_source in ("constant", "record"):
            own = number_sql(self.terms, self.plan, self.params, tier=own_tier(self.shape), override="NULL::text")
            return own, (n for _, n in self.terms.numbers)
        return str(number), (number,)

    def _may_end(self, number: int) -> bool:
        """Whether records without a known account can expire: by this number, or by a tier of their own."""
        if self.plan.counts_from_deletion:
            return False
        own = self.plan.tier_source in ("constant", "record")
        return any(self._may_be_over(n) for n in ((n for _, n in self.terms.numbers) if own else (number,)))

    def _may_be_over(self, number: int) -> bool:
        span = span_of(self.shape, self.walk)
        ends = self.terms.ends(number)
        return ends and (span is None or span.is_over(self.terms.resolutions[number - 1].cutoff) is not False)

    def _absent_accounts(self, account: str) -> str:
        """The relation of the window's accounts that the directory does not have; empty text: it can't matter."""
        shape, looked = self.shape, self.context.looked
        assert shape.account is not None
        if looked is not None:
            missing = sorted(set(looked.asked) - set(looked.ids) - {each.id for each in self.plan.missing})
            return (
                f"(SELECT u.id FROM unnest({self.params.add(missing, 'text[]')}::{shape.account.type}[]) u(id)) a"
                if missing
                else ""
            )
        source = shape.directory
        if source is None:
            return ""
        early = ""
        if self.plan.missing:
            lost = self.params.add([each.id for each in self.plan.missing], "text[]")
            early = f" AND {account} <> ALL({lost}::{shape.account.type}[])"
        if self.plan.tier_source == "directory":
            early += f" AND {before(shape, self.terms.cutoff(str(self.terms.absent), self.params))}"
        return (
            f"(SELECT DISTINCT {account} AS id FROM {shape.table.sql} r WHERE {self.walk.condition}{early}"
            f" AND {account} IS NOT NULL"
            f" AND NOT EXISTS (SELECT 1 FROM {source.relation} d WHERE d.{source.id} = {account})) a"
        )
