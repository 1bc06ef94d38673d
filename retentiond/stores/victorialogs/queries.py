"""Clauses as LogsQL (docs.victoriametrics.com/victorialogs/logsql), and what its answers say. Pure.

`_time:<T` and `_time:>=T` bound the time inside of the filter: `start` and `end` of a deletion are ignored.
`field:in(…)` and `field:=…` compare to the letter; a field that is not there is the empty text. Each filter of a
deletion has one more term, that no line has a certain field: it changes nothing, and says in the list of tasks, whose
filters are rewritten, that the task is ours and under which permit. A deletion may leave empty lines behind that have
nothing but their stream and time: only lines with a message are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from retentiond.domain.duration import rfc3339
from retentiond.stores.deferred.backend import Facet, Measured
from retentiond.stores.deferred.clauses import Clause

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_THERE: Final = "_msg:*"
_MARK: Final = "retentiond_deletion"
_SECONDS: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fields:
    """What lines are of the target, and which fields tell what they are."""

    selector: str
    account: str | None
    tier: str | None

    @property
    def named(self) -> tuple[str, ...]:
        """Those by which lines are told apart."""
        return tuple(each for each in (self.account, self.tier) if each is not None)


def filter_of(fields: Fields, clauses: Sequence[Clause]) -> str:
    """The lines of any of the clauses, of which there is at least one, and each has a bound of time."""
    if not clauses:
        raise ValueError("a filter of nothing would be one of everything")
    terms = " or ".join(f"({_clause(fields, each)})" for each in clauses)
    return f"({fields.selector}) ({terms})"


def marked(filter: str, mark: str) -> str:
    """The same filter, that says whose it is."""
    return f"{filter} !{_MARK}:={quoted(mark)}"


def mark_in(filter: str) -> str | None:
    """The mark in a filter as the list of tasks has it."""
    found = re.search(rf'!{_MARK}:="?([A-Za-z0-9/_.-]+)"?', filter)
    return found[1] if found else None


def measuring(filter: str) -> str:
    """How many lines, their oldest and their newest."""
    return f"{filter} {_THERE} | stats count() lines, min(_time) oldest, max(_time) newest"


def subjects(fields: Fields) -> str:
    """Which accounts and tiers lines name, and how many lines each has."""
    by = ", ".join(map(quoted, fields.named))
    return f"({fields.selector}) {_THERE} | stats by ({by}) count() lines"


def measured(rows: Sequence[Mapping[str, Any]]) -> Measured:
    """What the one row of an answer says; no row: there is nothing."""
    if not rows:
        return Measured()
    count = int(rows[0]["lines"])
    return Measured(count, moment(rows[0].get("oldest")), moment(rows[0].get("newest"))) if count else Measured()


def facets(fields: Fields, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], Facet]]:
    """The accounts and tiers of an answer with their positions, in order."""
    found = []
    for row in rows:
        values = [str(row.get(name) or "") for name in fields.named]
        account = (row.get(fields.account) or None) if fields.account else None
        tier = (row.get(fields.tier) or None) if fields.tier else None
        found.append((values, Facet(account, tier, int(row["lines"]))))
    return sorted(found, key=lambda each: each[0])


def rows(body: object) -> list[dict[str, Any]]:
    """The lines of an answer, each a JSON object."""
    if isinstance(body, Mapping):
        return [dict(body)]
    return [json.loads(line) for line in str(body or "").splitlines() if line.strip()]


def quoted(text: str) -> str:
    """A text in quotes, as LogsQL reads it: escapes are those of Go, of which JSON's are a part."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _clause(fields: Fields, clause: Clause) -> str:
    return " ".join(_terms(fields, clause))


def _terms(fields: Fields, clause: Clause) -> Iterator[str]:
    span = clause.range
    if span.until is not None:
        yield f"_time:<{rfc3339(span.until)}"
    if span.since is not None:
        yield f"_time:>={rfc3339(span.since)}"
    if fields.account is not None:
        yield f"{quoted(fields.account)}:in({', '.join(quoted(each or '') for each in clause.accounts)})"
    if clause.by_tier and fields.tier is not None:
        yield f"{quoted(fields.tier)}:={quoted(clause.tier or '')}"


def moment(value: object) -> datetime | None:
    """An instant as text, or as nanoseconds since 1970; what is finer than microseconds is cut off."""
    if value in (None, ""):
        return None
    text = str(value)
    if re.fullmatch(r"-?\d+", text):
        return _EPOCH + timedelta(microseconds=int(text) // 1000)
    match = _SECONDS.fullmatch(text)
    if match is None:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}{(match[2] or '.0')[:7]}{zone}").astimezone(UTC)
