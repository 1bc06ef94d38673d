"""Clauses as stream selectors with a range of time, and what Loki's answers say. Pure.

A deletion has one selector, and a start and an end that are both inclusive, in milliseconds: the end is the last one
before the bound. `count_over_time` is asked over stretches that `max_query_length` allows (721 h by default). Each
selector of a deletion has one more matcher, that a label which no stream has is not some text: it changes nothing, and
says in the list of deletions that it is ours and under which permit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from retentiond.stores.deferred.clauses import Clause, Range
from retentiond.stores.loki.config import equal_matchers

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_STRETCH: Final = timedelta(hours=720)
_LONGEST: Final = 4_000
"""Characters of a selector: it stands in the address of a request, which servers and proxies limit."""
_MARK: Final = "retentiond_deletion"
# What means something in a regular expression of RE2.
_SPECIAL: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")


@dataclass(frozen=True, slots=True)
class Labels:
    """Which streams are of the target, and which labels tell what they are."""

    selector: str
    account: str | None
    tier: str | None


def selector_of(labels: Labels, clause: Clause, accounts: Sequence[str | None]) -> str:
    """The streams of a clause, for some of its accounts."""
    return _with(labels.selector, [m for m in (_one_of(labels.account, accounts), _tier(labels, clause)) if m])


def parts(labels: Labels, clause: Clause) -> Iterator[Clause]:
    """The clause in parts whose accounts fit into an address."""
    if labels.account is None:
        yield clause
        return
    first, length = 0, 0
    for at, account in enumerate(clause.accounts):
        more = len(_quoted(_escaped(account or ""))) + 1
        if at > first and length + more > _LONGEST:
            yield replace(clause, accounts=clause.accounts[first:at], ids=clause.ids[first:at])
            first, length = at, 0
        length += more
    yield replace(clause, accounts=clause.accounts[first:], ids=clause.ids[first:])


def marked(selector: str, mark: str) -> str:
    """The same streams, by a selector that says whose the deletion is."""
    return _with(selector, [f"{_MARK}!={_quoted(mark)}"])


def mark_in(query: str) -> str | None:
    """The mark in a query of the list of deletions."""
    found = re.search(rf'{_MARK}!="([^"]*)"', query)
    return found[1] if found else None


def may_meet(query: str, selector: str) -> bool:
    """Whether a stream can be of both, as far as labels tell that are equal to a text."""
    one, other = equal_matchers(query), equal_matchers(selector)
    return all(one[label] == other[label] for label in one.keys() & other.keys())


def bounds(span: Range, earliest: datetime, now: datetime) -> tuple[datetime, datetime] | None:
    """The first and the last instant of a range in whole milliseconds, both inclusive; None: there is none.

    What has no start begins at `earliest`; nothing is after `now`.
    """
    start = max(span.since, earliest) if span.since is not None else earliest
    first = _EPOCH - ((_EPOCH - start) // _MS) * _MS
    end = min(span.until, now) if span.until is not None else now
    last = _EPOCH - ((_EPOCH - end) // _MS) * _MS - _MS
    return (first, last) if first <= last else None


def stretches(first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The range in stretches that may be asked for at once, the oldest first."""
    at = first
    while at < last:
        end = min(at + _STRETCH, last)
        yield at, end
        at = end


def counting(selector: str, start: datetime, end: datetime) -> str:
    """How many lines there are after the start, until the end, which is when it is to be evaluated."""
    return f"sum(count_over_time({selector}[{(end - start) // _MS}ms]))"


def nanoseconds(moment: datetime) -> str:
    """An instant as queries take it."""
    return str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def moment(text: str) -> datetime:
    """A line's instant in nanoseconds, of which microseconds are kept."""
    return _EPOCH + timedelta(microseconds=int(text) // 1000)


def count_in(body: Mapping[str, Any]) -> int:
    """The number in an answer; none is none."""
    return sum(int(float(each["value"][1])) for each in body["data"]["result"])


def _with(selector: str, more: Sequence[str]) -> str:
    inside = selector.strip()[1:-1].strip().rstrip(",")
    return "{" + ", ".join([inside, *more]) + "}"


def _one_of(label: str | None, values: Sequence[str | None]) -> str | None:
    if label is None:
        return None
    texts = [each or "" for each in values]
    if len(texts) == 1:
        return f"{label}={_quoted(texts[0])}"
    return f"{label}=~{_quoted('|'.join(map(_escaped, texts)))}"


def _tier(labels: Labels, clause: Clause) -> str | None:
    return _one_of(labels.tier, (clause.tier,)) if clause.by_tier else None


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _quoted(text: str) -> str:
    """A text in quotes with the escapes of Go, of which JSON's are a part."""
    return json.dumps(text, ensure_ascii=False)
