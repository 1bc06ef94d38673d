"""Clauses as the query DSL, and what aggregations answer. Pure.

Anchors are compared in whole milliseconds, which is what a `date` field has: a bound is rounded so that less goes,
never more. Every query has a range over the anchor, or says that there is none, and a term: an empty one would be
everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from retentiond.stores.deferred.backend import Facet, Measured
from retentiond.stores.deferred.clauses import Clause, Range

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SEVERAL: Final = (
    "for (f in params.fields) { if (doc.containsKey(f) && doc[f].size() > 1) { return true; } } return false;"
)
Query = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fields:
    """The names of the fields that tell what a document is."""

    anchor: str
    account: str | None
    tier: str | None

    @property
    def named(self) -> tuple[str, ...]:
        """Those by which documents are told apart, in the order of the walk."""
        return tuple(each for each in (self.account, self.tier) if each is not None)


def query_of(fields: Fields, clause: Clause) -> Query:
    """The documents of one clause."""
    terms = [_dated(fields, clause.range)]
    if fields.account is not None:
        terms.append(_one_of(fields.account, clause.accounts))
    if clause.by_tier and fields.tier is not None:
        terms.append(_one_of(fields.tier, (clause.tier,)))
    if len(terms) == 1 and not clause.range.undated:
        terms.append({"exists": {"field": fields.anchor}})
    if clause.kind in ("due", "requested"):
        return {"bool": {"filter": terms, "must_not": ambiguous(fields)}}
    return {"bool": {"filter": terms}}


def ambiguous(fields: Fields) -> list[Query]:
    """The documents that can't be told by one value: those with several in a field of ours, or with one not indexed.

    A term is met by any of the values; one that is not indexed (`ignore_above`, `ignore_malformed`) is as if missing.
    """
    names = [fields.anchor, *fields.named]
    script = {"lang": "painless", "source": _SEVERAL, "params": {"fields": names}}
    return [{"terms": {"_ignored": names}}, {"script": {"script": script}}]


def query_of_all(fields: Fields, clauses: Sequence[Clause]) -> Query:
    """The documents of any of the clauses; there is at least one."""
    if not clauses:
        raise ValueError("a query of nothing would be one of everything")
    return {"bool": {"should": [query_of(fields, each) for each in clauses], "minimum_should_match": 1}}


def measuring(fields: Fields, clauses: Sequence[Clause]) -> dict[str, Any]:
    """The body of a search that measures each clause."""
    return {
        "size": 0,
        "track_total_hits": False,
        "aggs": {f"c{n}": {"filter": query_of(fields, each), **_edges(fields)} for n, each in enumerate(clauses)},
    }


def totals(fields: Fields) -> dict[str, Any]:
    """The body of a search that measures all documents."""
    return {"size": 0, "track_total_hits": True, **_edges(fields)}


def oldest_of(fields: Fields, index: str) -> dict[str, Any]:
    """The body of a search for the oldest document of one index of the target."""
    order = {fields.anchor: {"order": "asc", "unmapped_type": "date"}}
    return {"size": 1, "track_total_hits": False, "query": {"term": {"_index": index}}, "sort": [order]}


def measured(found: Mapping[str, Any], count: int) -> Measured:
    """What one aggregation, or a whole answer, says."""
    return Measured(count, _moment(found["oldest"]), _moment(found["newest"]))


def composite(fields: Fields, size: int, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body of a search for the next accounts and tiers that documents name."""
    sources = [{name: {"terms": {"field": name, "missing_bucket": True}}} for name in fields.named]
    asked: dict[str, Any] = {"size": size, "sources": sources}
    if after is not None:
        asked["after"] = after
    return {"size": 0, "track_total_hits": False, "aggs": {"subjects": {"composite": asked}}}


def facet_of(fields: Fields, bucket: Mapping[str, Any]) -> Facet:
    """An account and tier as a bucket names them; numbers as their texts."""
    key = bucket["key"]
    account = _text(key.get(fields.account)) if fields.account else None
    return Facet(account, _text(key.get(fields.tier)) if fields.tier else None, int(bucket["doc_count"]))


def order_of(fields: Fields, key: Mapping[str, Any]) -> list[tuple[bool, Any]]:
    """Keys of a composite aggregation in its order: those without a value first."""
    return [(key.get(name) is not None, key.get(name)) for name in fields.named]


def by_index(fields: Fields, clauses: Sequence[Clause], most: int) -> dict[str, Any]:
    """The body of a search that tells of each index how many documents it has, and how many of them are due."""
    due = {"due": {"filter": query_of_all(fields, clauses)}}
    terms = {"terms": {"field": "_index", "size": most}, "aggs": due}
    return {"size": 0, "track_total_hits": False, "aggs": {"indices": terms}}


def _dated(fields: Fields, span: Range) -> Query:
    undated: Query = {"bool": {"must_not": [{"exists": {"field": fields.anchor}}]}}
    if span.undated and span.since is not None and span.since == span.until:
        return undated
    bounds: dict[str, Any] = {}
    if span.since is not None:
        bounds["gte"] = -((_EPOCH - span.since) // _MS)
    if span.until is not None:
        bounds["lt"] = (span.until - _EPOCH) // _MS
    dated: Query = {"range": {fields.anchor: {**bounds, "format": "epoch_millis"}}}
    if not bounds:
        dated = {"exists": {"field": fields.anchor}}
    if not span.undated:
        return dated
    return {"bool": {"should": [dated, undated], "minimum_should_match": 1}}


def _one_of(field: str, values: Sequence[str | None]) -> Query:
    given = [each for each in values if each is not None]
    told: list[Query] = [{"terms": {field: given}}] if given else []
    if len(given) < len(values):
        told.append({"bool": {"must_not": [{"exists": {"field": field}}]}})
    return told[0] if len(told) == 1 else {"bool": {"should": told, "minimum_should_match": 1}}


def _edges(fields: Fields) -> dict[str, Any]:
    edge = {"field": fields.anchor}
    return {"aggs": {"oldest": {"min": edge}, "newest": {"max": edge}}}


def _moment(found: Mapping[str, Any]) -> datetime | None:
    value = found.get("value")
    return None if value is None else _EPOCH + timedelta(milliseconds=float(value))


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
