"""Documents in OpenSearch or Elasticsearch, as `DeferredStore` asks of them.

**The fence.** A deletion by query names, beside the target, an alias of an index of ours that was made before its
permit was asked for. A name that is not there makes the server refuse the whole request (`ignore_unavailable=false`).
So who takes that alias away, and hears that every node knows, can be sure that nothing more is taken on; what was taken
on before is a task, which is listed by the `X-Opaque-Id` that we gave it, and cancelled. No clock enters into it.

**Whole indices.** Where the name has a date that is past every term, and nothing is in it but what is due, an index is
deleted as such: it is blocked for writes first, then counted again, and goes in one step with an alias of the fence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from retentiond.domain.clock import ClockReading
from retentiond.domain.duration import instant
from retentiond.domain.native_expiry import NativeRule
from retentiond.errors import Blind, NotFound, Refused, RetentiondError, Unreachable
from retentiond.stores.base import Finding
from retentiond.stores.deferred.backend import Facet, Facets, Measured, Pending, Single, State
from retentiond.stores.deferred.clauses import Clause
from retentiond.stores.deferred.client import Client
from retentiond.stores.opensearch import inspect, lifecycle, queries
from retentiond.stores.opensearch.config import OpenSearchTarget
from retentiond.stores.opensearch.queries import Fields
from retentiond.stores.opensearch.server import Server

_ANSWER_SECONDS: Final = 30.0
_MOST_DROPPED: Final = 8
"""Whole indices that one batch may delete: each takes an alias of the fence with it."""
_MOST_INDICES: Final = 10_000
_MOST_SLICES: Final = 20
# A day anywhere in a name: logs-2026.01.31, logs-2026-01-31-000007, .ds-logs-2026.01.31-000001.
_DAY: Final = re.compile(r"(?<!\d)(\d{4})[.-](\d{2})[.-](\d{2})(?!\d)", re.ASCII)


class OpenSearchBackend:
    """See `stores.deferred.backend.Backend`; `space` tells this installation from others on the same server."""

    follow_seconds = 5.0
    most_subjects = 5_000
    hides = False
    reach = None
    settle_seconds = 0.0

    def __init__(self, name: str, config: OpenSearchTarget, space: str) -> None:
        self._name, self._config = name, config
        self._fields = Fields(config.anchor, config.account, config.tier_field)
        self._client = Client(config, f"the server of target {name}", headers={}, seconds=_ANSWER_SECONDS)
        self._server = Server(self._client, config.index)
        self._mark = f"retentiond/{space}/{name}/"

    @property
    def told_by(self) -> tuple[str, str | None]:
        """The anchor, and the name of the account."""
        return self._config.anchor, self._config.account

    async def open(self) -> None:
        """See that the fields are what the verdicts need; raises Blind, Unreachable."""
        await inspect.require_fields(self._server, self._fields, self._name)

    async def close(self) -> None:
        """Give up all connections."""
        await self._client.close()

    async def clock(self) -> ClockReading:
        """The clock by the Date of an answer."""
        return await self._client.clock("/")

    async def check(self) -> Sequence[Finding]:
        """What stands in the way, and what is unwise."""
        return await inspect.findings(self._server, self._config, self._fields, self._name, self._mark)

    async def native_rules(self) -> Sequence[NativeRule]:
        """Policies of ISM or ILM, and lifecycles of data streams, that delete indices of the target."""
        return await lifecycle.native_rules(self._server)

    # --- Looking ---

    async def facets(self, after: str | None, size: int, until: str | None) -> Facets:
        """The accounts and tiers that documents name, by a composite aggregation."""
        fields = self._fields
        if not fields.named:
            return Facets((Facet(None, None, (await self.total()).count),))
        found = await self._server.search(queries.composite(fields, size, json.loads(after) if after else None))
        subjects = found["aggregations"]["subjects"]
        buckets, last = subjects["buckets"], subjects.get("after_key")
        if until is not None:
            end = queries.order_of(fields, json.loads(until))
            inside = [each for each in buckets if queries.order_of(fields, each["key"]) <= end]
            if len(inside) < len(buckets):
                buckets, last = inside, None
        more = last is not None and len(buckets) == size
        facets = tuple(queries.facet_of(fields, each) for each in buckets)
        return Facets(facets, json.dumps(last, sort_keys=True) if more else None)

    async def measure(self, clauses: Sequence[Clause]) -> list[Measured]:
        """How many documents there are of each, by one search."""
        found = await self._server.search(queries.measuring(self._fields, clauses))
        each = (found["aggregations"][f"c{n}"] for n in range(len(clauses)))
        return [queries.measured(one, int(one["doc_count"])) for one in each]

    async def total(self) -> Measured:
        """All documents."""
        found = await self._server.search(queries.totals(self._fields))
        return queries.measured(found["aggregations"], int(found["hits"]["total"]["value"]))

    async def single(self, key: str) -> Single:
        """One document by INDEX/ID, or the oldest of an index by its name; raises NotFound."""
        index, slash, name = key.partition("/")
        found = await (self._server.document(index, name) if slash else self._oldest(key))
        if found is None:
            raise NotFound(
                f"target {self._name} has no document {key}",
                remedy="name an index, or a document as INDEX/ID by the index that it lies in",
            )
        source = found.get("_source") or {}
        fields = self._fields
        account = _at(source, fields.account) if fields.account else None
        tier = _at(source, fields.tier) if fields.tier else None
        return Single(key, _anchor(_at(source, fields.anchor)), account, tier)

    async def _oldest(self, index: str) -> dict[str, Any] | None:
        found = await self._server.search(queries.oldest_of(self._fields, index))
        hits: list[dict[str, Any]] = found["hits"]["hits"]
        return hits[0] if hits else None

    # --- Erasing ---

    def fit(self, clauses: Sequence[Clause]) -> Sequence[Clause]:
        """A query has room for as many accounts as a window has."""
        return clauses

    async def requests(self, clauses: Sequence[Clause]) -> Sequence[tuple[Mapping[str, Any], Sequence[Clause]]]:
        """One deletion by query of them all, and before it the whole indices that can go."""
        for clause in clauses:
            if clause.range.until is None or not clause.accounts:
                raise Refused("a deletion without a bound of time and a term is never asked for")
        query = queries.query_of_all(self._fields, clauses)
        drop = await self._whole(clauses) if self._config.whole_indices else []
        return [({"query": query, "drop": drop}, clauses)]

    async def fence(self) -> str:
        """Aliases of our own index: one for the deletion by query, and some for whole indices."""
        name = f"retentiond-fence-{uuid4().hex}"
        dropped = [f"{name}-{n}" for n in range(_MOST_DROPPED)] if self._config.whole_indices else []
        await self._server.make_fences([name, *dropped])
        return name

    async def unfence(self, fence: str) -> bool:
        """Take the aliases away."""
        return await self._server.drop_fences(fence)

    async def submit(self, permit: int, fence: str, what: Mapping[str, Any]) -> str:
        """Delete the whole indices, then ask for the deletion of the rest: the task.

        Once an index is gone nothing is merely refused: what went has to be counted.
        """
        dropped = 0
        try:
            for n, index in enumerate(what["drop"]):
                dropped += await self._drop(f"{fence}-{n}", index, what["query"])
            slices = self._config.slices or min(await self._server.shards(), _MOST_SLICES)
            rate = self._config.pace.records_per_second
            return await self._server.delete(fence, f"{self._mark}{permit}", what["query"], slices=slices, rate=rate)
        except Unreachable:
            raise
        except RetentiondError as error:
            if not dropped:
                raise
            raise Unreachable(
                f"{dropped} whole indices are deleted, and then: {error.message}", remedy=error.remedy
            ) from error

    async def pending(self) -> list[Pending]:
        """Our deletions on this target that run; those of others are theirs, and `check` tells of them."""
        found = []
        for task in await self._server.tasks():
            if task.mark.startswith(self._mark):
                number = task.mark.removeprefix(self._mark)
                found.append(Pending(task.id, int(number) if number.isdigit() else None, task.described))
        return found

    async def find(self, permit: int, what: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - one for each permit
        """The task of that permit; where there is none, searches are made to see what it did."""
        name = next((each.id for each in await self.pending() if each.permit == permit), None)
        if name is None:
            await self._server.refresh()
        return name

    async def cancel(self, id: str) -> str:
        """Ask the task to stop."""
        return await self._server.cancel(id)

    async def state(self, id: str, what: Mapping[str, Any], seconds: float, moved: float) -> State:  # noqa: ARG002 - tasks end when they end
        """What the task says; when it is over, searches are made to see what it did."""
        found = await self._server.task(id)
        if found is not None and not found["completed"]:
            status = found["task"].get("status") or {}
            return State("running", f"{status.get('deleted', 0)} of {status.get('total', 0)} documents are deleted")
        await self._server.refresh()
        if found is None:
            return State("unknown", "the server has lost the task, as when the node that had it was restarted")
        return State("done", _told(found))

    def lingers(self, seconds: float) -> bool:  # noqa: ARG002 - what is not in the list is over
        """One that is stopped does nothing more."""
        return False

    async def forget(self, id: str) -> None:
        """Remove the task's result."""
        with suppress(RetentiondError):  # it is of no harm where it is
            await self._server.forget(id)

    # --- Whole indices ---

    async def _whole(self, clauses: Sequence[Clause]) -> list[str]:
        """The indices whose name has a date that is past, that nothing writes to, and that have only what is due."""
        found = await self._server.search(queries.by_index(self._fields, clauses, _MOST_INDICES))
        edge = min(each.range.until for each in clauses if each.range.until is not None)
        full = [
            each["key"]
            for each in found["aggregations"]["indices"]["buckets"]
            if each["doc_count"] == each["due"]["doc_count"] > 0 and _past(each["key"], edge)
        ]
        return sorted(set(full) - await self._server.write_indices())[:_MOST_DROPPED] if full else []

    async def _drop(self, fence: str, index: str, query: Mapping[str, Any]) -> bool:
        """Delete the index, if nothing is in it but what is due now that nobody can write to it; whether it is gone."""
        if not await self._server.block(index):
            return False
        dropped = False
        try:
            await self._server.refresh(index)
            if not await self._server.count(index, {"bool": {"must_not": [dict(query)]}}):
                await self._server.drop(fence, index)
                dropped = True
        finally:
            if not dropped:
                with suppress(RetentiondError):  # it is gone after all; or it stays blocked, which `check` tells
                    await self._server.unblock(index)
        return dropped


def _past(index: str, edge: datetime) -> bool:
    """Whether the day in the name is over before the edge; a name without one, or with two, tells nothing."""
    days = _DAY.findall(index)
    if len(days) != 1:
        return False
    try:
        day = datetime(*map(int, days[0]), tzinfo=UTC)  # type: ignore[misc,arg-type]  # three numbers
    except ValueError:
        return False
    return day + timedelta(days=1) <= edge


def _told(found: Mapping[str, Any]) -> str:
    """What stood in the way of a task that is over; kinds of errors alone, for messages may quote documents."""
    error = found.get("error")
    if isinstance(error, Mapping):
        return f"it ended with {error.get('type', 'an error')}"
    response = found.get("response") or {}
    told = []
    if conflicts := int(response.get("version_conflicts", 0)):
        told.append(f"{conflicts} documents were changed meanwhile")
    if failures := response.get("failures") or ():
        kinds = {str((each.get("cause") or each.get("reason") or {}).get("type", "unknown")) for each in failures}
        told.append(f"{len(failures)} failures: {', '.join(sorted(kinds))}")
    if canceled := response.get("canceled"):
        told.append(f"it was cancelled: {str(canceled)[:80]}")
    if response.get("timed_out"):
        told.append("a part of it timed out")
    return "; ".join(told)


def _at(source: Mapping[str, Any], field: str) -> str | None:
    """The value of a field in a document, whose objects may be written with dots or without."""
    if field in source:
        value = source[field]
        return None if value is None else str(value)
    head, dot, rest = field.partition(".")
    below = source.get(head) if dot else None
    return _at(below, rest) if isinstance(below, Mapping) else None


def _anchor(text: str | None) -> datetime | None:
    if text is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(text))
    try:
        found = instant(text)
    except RetentiondError as error:
        raise Blind("the document's anchor is written in a format that is not read here") from error
    return found
