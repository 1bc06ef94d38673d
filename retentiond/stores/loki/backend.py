"""Streams in Loki, as `DeferredStore` asks of them.

Sources: grafana.com/docs/loki (HTTP API of the compactor; log entry deletion) and the server's code (pkg/compactor/
deletion). `POST /loki/api/v1/delete` takes its parameters in the address alone, `end` is inclusive and not in the
future, and answers 204 without an id. The list has `received`, `NN% Complete` and `processed`; a request is picked up
`delete_request_cancel_period` and a minute after it was made, and `DELETE` removes it from the list also when it is
being worked on, which that does not stop. One of a range that is older than the tenant's retention is `processed`
without anything having been done. Queries leave out what is requested, and for a while after it is processed.

There is no fence, and none is needed: what comes late is seen long before it is picked up, and cancelled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml

from retentiond.domain.clock import ClockReading
from retentiond.domain.native_expiry import NativeRule
from retentiond.errors import Blind, NotFound, Refused, RetentiondError, Unreachable
from retentiond.stores.base import Finding
from retentiond.stores.deferred.backend import Facet, Facets, Measured, Pending, Single, State
from retentiond.stores.deferred.clauses import Clause, Range
from retentiond.stores.deferred.client import Answer, Client
from retentiond.stores.loki import queries
from retentiond.stores.loki.config import LokiTarget
from retentiond.stores.loki.queries import Labels

_ANSWER_SECONDS: Final = 60.0
_AT_ONCE: Final = 4
_API: Final = "/loki/api/v1"
_PROCESSED: Final = "processed"
_LINGER_SECONDS: Final = 6 * 3600.0
"""How long a compaction may still carry out what was cancelled when it may have been picked up: an assumption."""
_LATE_SECONDS: Final = 600.0
"""How much later than was written down a cancellation may have come there."""
_SHOWN_SECONDS: Final = 600.0
"""After that queries show again what a cancelled deletion had hidden: they keep the list for five minutes."""
_UNAVAILABLE: Final = "set deletion_mode: filter-and-delete for the tenant, and retention_enabled with a delete store"
_AGE: Final = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


class LokiBackend:
    """See `stores.deferred.backend.Backend`; `space` tells this installation from others on the same server."""

    follow_seconds = 0.0
    most_subjects = 1_000
    hides = True
    # Processed requests are minded by queries until index updates have got about.
    settle_seconds = 3600.0

    def __init__(self, name: str, config: LokiTarget, space: str) -> None:
        self._name, self._config = name, config
        self._labels = Labels(config.selector, config.account, config.tier_label)
        tenant = {"X-Scope-OrgID": config.tenant} if config.tenant is not None else {}
        self._client = Client(config, f"Loki of target {name}", headers=tenant, seconds=_ANSWER_SECONDS)
        self._mark = f"{space}/{name}/"

    @property
    def reach(self) -> timedelta:
        """As it is configured."""
        return timedelta(days=self._config.reach_days)

    @property
    def told_by(self) -> tuple[str, str | None]:
        """The anchor, and the name of the account."""
        return "the time of lines", self._config.account

    async def open(self) -> None:
        """See that the tenant may have deletions; raises Blind, Unreachable."""
        await self._list()

    async def close(self) -> None:
        """Give up all connections."""
        await self._client.close()

    async def clock(self) -> ClockReading:
        """The clock by the Date of an answer."""
        return await self._client.clock(f"{_API}/status/buildinfo")

    # --- What it is set to ---

    async def check(self) -> Sequence[Finding]:
        """Whether deletions are possible and carried out, and when."""
        try:
            await self._list()
            await self.total()
        except (Blind, Refused) as error:
            return [Finding("error", self._name, error.message, error.remedy or "")]
        config = await self._server_config()
        if config is None:
            why = "the server does not show its configuration (/config): cancel period and retention can't be seen"
            return [Finding("info", self._name, why, "")]
        compactor = config.get("compactor") or {}
        found = []
        if not compactor.get("retention_enabled"):
            why = "the compactor has no retention_enabled: deletions hide data, and never erase it"
            found.append(Finding("error", self._name, why, _UNAVAILABLE))
        seconds = _seconds(compactor.get("delete_request_cancel_period", "24h"))
        if seconds != self._config.cancel_period:
            why = f"delete_request_cancel_period is {seconds:.0f} s there, and cancel_period here is another"
            found.append(Finding("warning", self._name, why, f"targets.{self._name}.cancel_period: {seconds:.0f}"))
        if (config.get("limits_config") or {}).get("deletion_mode") == "filter-only":
            why = "deletion_mode is filter-only: deletions hide data, and never erase it"
            found.append(Finding("error", self._name, why, _UNAVAILABLE))
        return found

    async def native_rules(self) -> Sequence[NativeRule]:
        """The server's own retention by its configuration; overrides of tenants are not in it."""
        config = await self._server_config()
        if config is None:
            raise Blind(
                "the server does not show its configuration (/config), so its retention can't be seen",
                remedy="let the daemon read /config, or see that retention_period is longer than every term",
            )
        if not (config.get("compactor") or {}).get("retention_enabled"):
            return []
        limits = config.get("limits_config") or {}
        periods = [("retention_period", limits.get("retention_period"))]
        periods += [
            (f"retention_stream {s.get('selector')}", s.get("period")) for s in limits.get("retention_stream") or ()
        ]
        return [NativeRule(name, days=int(_seconds(p) // 86_400)) for name, p in periods if p and _seconds(p)]

    async def _server_config(self) -> dict[str, Any] | None:
        answer = await self._client.ask("GET", "/config")
        if not answer.ok or not isinstance(answer.body, str):
            return None
        try:
            found = yaml.safe_load(answer.body)
        except yaml.YAMLError:
            return None
        return found if isinstance(found, dict) else None

    # --- Looking ---

    async def facets(self, after: str | None, size: int, until: str | None) -> Facets:
        """The accounts and tiers that streams name: all series are asked for, and the next ones taken."""
        labels = self._labels
        if labels.account is None and labels.tier is None:
            return Facets((Facet(None, None, (await self.total()).count),))
        keys: set[tuple[str, str]] = set()
        for series in await self._each(self._all(), self._series):
            keys |= {(each.get(labels.account or "", ""), each.get(labels.tier or "", "")) for each in series}
        ordered = sorted((f"{account}\x00{tier}", account, tier) for account, tier in keys)
        inside = [k for k in ordered if (after is None or k[0] > after) and (until is None or k[0] <= until)]
        page = inside[:size]
        found = tuple(Facet(account or None, tier or None) for _, account, tier in page)
        return Facets(found, page[-1][0] if len(page) < len(inside) else None)

    async def measure(self, clauses: Sequence[Clause]) -> list[Measured]:
        """How many lines there are of each, as queries see them."""
        return [await self._measured(clause) for clause in clauses]

    async def total(self) -> Measured:
        """All lines of the target that are not older than is counted."""
        return await self._counted(self._labels.selector, self._all())

    async def single(self, key: str) -> Single:
        """The oldest line that a selector matches within the target."""
        if not key.startswith("{"):
            raise NotFound(f"{key} is not a stream selector", remedy='name a stream as a selector: {app="api"}')
        first, last = self._all()
        for start, end in queries.stretches(first, last):
            for stream in await self._lines(key, start, end):
                mine = await self._lines(self._labels.selector, start, end)
                labels = stream["stream"]
                if mine and queries.may_meet(_as_selector(labels), self._labels.selector):
                    account = labels.get(self._labels.account or "") or None
                    tier = labels.get(self._labels.tier or "") or None
                    return Single(key, queries.moment(stream["values"][0][0]), account, tier)
        raise NotFound(f"target {self._name} has no line in a stream {key}")

    async def _measured(self, clause: Clause) -> Measured:
        now = datetime.now(UTC)
        edges = queries.bounds(clause.range, self._earliest(now), now)
        if edges is None:
            return Measured()
        return await self._counted(queries.selector_of(self._labels, clause, clause.accounts), edges)

    async def _counted(self, selector: str, edges: tuple[datetime, datetime]) -> Measured:
        """How many lines, and the oldest: by the first stretch that has any."""

        async def count(start: datetime, end: datetime) -> tuple[int, datetime, datetime]:
            params = {"query": queries.counting(selector, start, end), "time": queries.nanoseconds(end)}
            answer = await self._client.ask("GET", f"{_API}/query", params=params)
            return queries.count_in(self._done(answer, "a query").document), start, end

        counts = await self._each(edges, count)
        some = [(start, end) for number, start, end in counts if number]
        lines = await self._lines(selector, *some[0]) if some else []
        oldest = min((queries.moment(each["values"][0][0]) for each in lines if each["values"]), default=None)
        return Measured(sum(number for number, _, _ in counts), oldest)

    async def _series(self, start: datetime, end: datetime) -> list[dict[str, str]]:
        params = {
            "match[]": self._labels.selector,
            "start": queries.nanoseconds(start),
            "end": queries.nanoseconds(end),
        }
        answer = await self._client.ask("GET", f"{_API}/series", params=params)
        return list(self._done(answer, "a list of series").document.get("data") or ())

    async def _lines(self, selector: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """The oldest line of a stretch, with its stream."""
        params = {
            "query": selector,
            "start": queries.nanoseconds(start),
            "end": queries.nanoseconds(end + timedelta(milliseconds=1)),
            "limit": "1",
            "direction": "forward",
        }
        answer = await self._client.ask("GET", f"{_API}/query_range", params=params)
        return list(self._done(answer, "a query").document["data"]["result"])

    async def _each(self, edges: tuple[datetime, datetime], ask: Any) -> list[Any]:
        """Ask about each stretch, some at a time, and keep their order."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(start: datetime, end: datetime) -> Any:
            async with gate:
                return await ask(start, end)

        return list(await asyncio.gather(*(one(*each) for each in queries.stretches(*edges))))

    def _earliest(self, now: datetime) -> datetime:
        return now - timedelta(days=self._config.reach_days)

    def _all(self) -> tuple[datetime, datetime]:
        now = datetime.now(UTC)
        edges = queries.bounds(Range(None, None), self._earliest(now), now)
        assert edges is not None
        return edges

    # --- Erasing ---

    def fit(self, clauses: Sequence[Clause]) -> list[Clause]:
        """The same clauses, with no more accounts in one than fit into an address."""
        return [part for clause in clauses for part in queries.parts(self._labels, clause)]

    async def requests(self, clauses: Sequence[Clause]) -> Sequence[tuple[Mapping[str, Any], Sequence[Clause]]]:
        """One deletion for each clause."""
        found: list[tuple[Mapping[str, Any], Sequence[Clause]]] = []
        for clause in clauses:
            # Not counted that far back, but deleted: from the beginning of time, which must not be 0.
            edges = queries.bounds(clause.range, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), datetime.now(UTC))
            if edges is None or clause.range.until is None or not clause.accounts:
                raise Refused("a deletion without a bound of time and a term is never asked for")
            selector = queries.selector_of(self._labels, clause, clause.accounts)
            found.append(({"selector": selector, "start": _shown(edges[0]), "end": _shown(edges[1])}, [clause]))
        return found

    async def fence(self) -> str:
        """None: nothing makes the server refuse what is late."""
        return ""

    async def unfence(self, fence: str) -> bool:  # noqa: ARG002 - there is none
        """As there is no fence, nothing is certain."""
        return False

    async def submit(self, permit: int, fence: str, what: Mapping[str, Any]) -> str:  # noqa: ARG002 - there is no fence
        """Ask for the deletion, and find it in the list: its answer has no id."""
        params = {"query": self._query(permit, what), "start": what["start"], "end": what["end"]}
        answer = await self._client.once("POST", f"{_API}/delete", params=params)
        answer.require_time_for_it(f"Loki of target {self._name}")
        if answer.status >= 500 or answer.status == 408:
            raise Unreachable(f"whether Loki took on a deletion is not known: it answers {answer.status}")
        self._done(answer, "a deletion")
        try:
            name = await self.find(permit, what)
        except RetentiondError as error:
            raise Unreachable(f"Loki took on a deletion, and then: {error.message}", remedy=error.remedy) from error
        if name is None:
            raise Unreachable("Loki says that it took on a deletion, and does not list it")
        return name

    async def pending(self) -> list[Pending]:
        """All deletions of the tenant that may reach the target and are not processed, whosever they are."""
        return [
            Pending(str(each["request_id"]), self._permit(each), str(each["query"]))
            for each in await self._list()
            if each["status"] != _PROCESSED and queries.may_meet(str(each["query"]), self._labels.selector)
        ]

    async def find(self, permit: int, what: Mapping[str, Any]) -> str | None:
        """The deletion of that permit with that selector and range, also one that is processed."""
        said = self._query(permit, what)
        end = datetime.fromisoformat(what["end"]).timestamp()
        return next(
            (
                str(each["request_id"])
                for each in await self._list()
                if each["query"] == said and abs(float(each["end_time"]) - end) < 0.01
            ),
            None,
        )

    async def cancel(self, id: str) -> str:
        """Cancel it, also one of which a part is done."""
        answer = await self._client.ask("DELETE", f"{_API}/delete", params={"request_id": id, "force": "true"})
        if answer.status == 404:
            return ""
        try:
            self._done(answer, "to cancel a deletion")
        except RetentiondError as error:
            return error.message
        return ""

    async def state(self, id: str, what: Mapping[str, Any], seconds: float, moved: float) -> State:  # noqa: ARG002 - its id tells
        """What the list says of it.

        One that is not in it any more was cancelled, by us or others: after the cancel period that may have come too
        late, so that for a while it counts as under way.
        """
        there = next((each for each in await self._list() if str(each["request_id"]) == id), None)
        if there is not None:
            status = str(there["status"])
            return State("done" if status == _PROCESSED else "running", f"Loki says {status}")
        if self.lingers(seconds - moved) and moved < _LINGER_SECONDS:
            return State("running", "it was cancelled after the cancel period, and may be carried out still")
        if moved < _SHOWN_SECONDS:
            return State("running", "it was cancelled, and queries may still leave out what it was about")
        return State("unknown", "it was cancelled")

    def lingers(self, seconds: float) -> bool:
        """Whether it may have been picked up by then."""
        return seconds > self._config.cancel_period - _LATE_SECONDS

    async def forget(self, id: str) -> None:
        """The server keeps its own list."""

    def _query(self, permit: int, what: Mapping[str, Any]) -> str:
        return queries.marked(what["selector"], f"{self._mark}{permit}")

    def _permit(self, request: Mapping[str, Any]) -> int | None:
        mark = queries.mark_in(str(request["query"])) or ""
        number = mark.removeprefix(self._mark)
        return int(number) if mark.startswith(self._mark) and number.isdigit() else None

    async def _list(self) -> list[dict[str, Any]]:
        answer = self._done(await self._client.ask("GET", f"{_API}/delete"), "the list of deletions")
        if answer.body is None:
            return []
        if not isinstance(answer.body, list):
            raise Unreachable("Loki answers no list of deletions")
        return answer.body

    def _done(self, answer: Answer, what: str) -> Answer:
        if answer.ok:
            return answer
        told = f"Loki refuses {what} of target {self._name}: it answers {answer.status}"
        if answer.status == 403:
            raise Blind(f"{told}; deletions may be switched off for the tenant", remedy=_UNAVAILABLE)
        if answer.status in (401, 404):
            raise Blind(told, remedy="see the address, the tenant, and what a gateway lets the daemon do")
        if answer.status >= 500:
            raise Unreachable(told)
        raise Refused(told, remedy="see its log; `selector` may be none, or `reach_days` more than it answers for")


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_selector(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _seconds(period: object) -> float:
    """A duration as Loki writes it (`24h`, `2w`, `1d0h0m0s`); 0 where it is none."""
    match = _AGE.fullmatch(str(period))
    if match is None or not str(period):
        return 0.0
    return float(
        sum(int(n or 0) * each for n, each in zip(match.groups(), (604_800, 86_400, 3600, 60, 1), strict=True))
    )
