"""The statement that counts, partition by partition, how many records there are and how many of them are due.

It is made of the same conditions as the one that erases. `r` stands for records, or for what all records of an account
come to (`Measures`): whether one is due is then asked of the youngest of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.stores.postgres.erase import Erasing
from retentiond.stores.postgres.rows import instant_sql
from retentiond.stores.postgres.shape import Shape, anchor_expression, stored_bytes

PART = '"retentiond part"'
"""The column that says of which partition a row of `r` is. The table has its own columns there: none is called so."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What a row of `r` adds: how many records, their bytes, and their oldest and newest anchor."""

    records: str
    bytes: str
    oldest: str
    newest: str


def of_records(shape: Shape) -> Measures:
    """Where a row is a record."""
    anchor = anchor_expression(shape)
    return Measures("1", stored_bytes(shape.table), anchor, anchor)


class Counting(Erasing):
    """The statement over the relation that stands in the place of the table, which has a column `PART`."""

    def whole_sql(self, measures: Measures, *, evidence: bool) -> str:
        """Rows of a part and a term's number: how many records of it there are, and how many of those are due.

        It is one statement, so that no account is of two kinds in it. `records` add up to all that a part has where
        no account is in the directory twice. With `evidence` by term, with size and anchors; else the number is null.
        """
        known = next((branch for branch in self._kinds if branch.name == "known"), None)
        count, sizes = _count(measures), self._sizes(measures) if evidence else ""
        if known is not None and len(self._kinds) == 1:
            due = f"a.id IS NOT NULL AND {self._where(known, matched=True)}"
            return (
                f"SELECT r.{PART} AS part, {known.number if evidence else 'NULL::int'} AS n, {count} AS records,"
                f" {_count(measures, due)} AS due{sizes}"
                f" FROM {self.shape.table.sql} r LEFT JOIN {known.accounts} ON {known.match} GROUP BY 1, 2"
            )
        found = [
            f"SELECT r.{PART} AS part, {branch.number if evidence else 'NULL::int'} AS n, 0::int8 AS records,"
            f" {count} AS due{sizes} FROM {self._from(branch)} WHERE {self._where(branch)} GROUP BY 1, 2"
            for branch in self._kinds
        ]
        if known is not None:
            found.append(
                f"SELECT r.{PART} AS part, NULL::int, {count}, 0{', 0, NULL, NULL' if evidence else ''}"
                f" FROM {self.shape.table.sql} r LEFT JOIN {known.accounts} ON {known.match} GROUP BY 1"
            )
        return " UNION ALL ".join(found)

    def each_once(self) -> str:
        """Whether the directory has no account twice, by the statement's snapshot."""
        accounts = next(branch.accounts for branch in self._kinds if branch.name == "known")
        return f"(SELECT count(*) = count(DISTINCT a.id) FROM {accounts})"

    def _sizes(self, measures: Measures) -> str:
        return (
            f", COALESCE(sum({measures.bytes}), 0)::bigint AS bytes,"
            f" {instant_sql(f'min({measures.oldest})')} AS oldest, {instant_sql(f'max({measures.newest})')} AS newest"
        )


def _count(measures: Measures, which: str = "") -> str:
    only = f" FILTER (WHERE {which})" if which else ""
    return f"count(*){only}" if measures.records == "1" else f"COALESCE(sum({measures.records}){only}, 0)::int8"
