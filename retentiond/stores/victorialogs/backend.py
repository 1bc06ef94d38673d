"""Lines in VictoriaLogs, as `DeferredStore` asks of them.

Sources: docs.victoriametrics.com/victorialogs (How to delete logs; HTTP querying API; LogsQL) and the server's code
(app/vlselect, lib/logstorage/delete_task.go). `POST /delete/run_task` takes a `filter` alone, and answers a task. Tasks
are kept on disk and worked off one by one; one that fails is tried again; one that is done leaves the list of active
tasks, and nothing is kept of it: so what it did is counted. A task that is stopped has deleted a part.

There is no fence: the server can't be told to refuse what is late. So a permit without an outcome is waited out, and
the server is asked for its tasks for as long as a hold lives (see the known gaps in docs/architecture.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from retentiond.domain.clock import ClockReading
from retentiond.domain.native_expiry import NativeRule
from retentiond.errors import Blind, NotFound, Refused, RetentiondError, Unreachable
from retentiond.stores.base import Finding
from retentiond.stores.deferred.backend import Facet, Facets, Measured, Pending, Single, State
from retentiond.stores.deferred.clauses import Clause
from retentiond.stores.deferred.client import Answer, Client
from retentiond.stores.victorialogs import queries
from retentiond.stores.victorialogs.config import VictoriaLogsTarget
from retentiond.stores.victorialogs.queries import Fields

_ANSWER_SECONDS: Final = 60.0
_DISABLED: Final = "requests to /delete/* are disabled"
_ENABLE: Final = "start it with -delete.enable; in a cluster vlselect so, and vlstorage with -internaldelete.enable"
_RETENTION: Final = re.compile(r'^flag\{name="retentionPeriod", value="([^"]*)"', re.ASCII | re.MULTILINE)
_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdwy]?)", re.ASCII)
# Without a unit it counts months of 31 days, as the flag's description says.
_DAYS: Final = {"s": 1 / 86400, "m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.0, "": 31.0}


class VictoriaLogsBackend:
    """See `stores.deferred.backend.Backend`; `space` tells this installation from others on the same server."""

    follow_seconds = 5.0
    # A task rewrites what it deletes from, so few of them are better than many.
    most_subjects = 5_000
    hides = False
    reach = None
    settle_seconds = 0.0

    def __init__(self, name: str, config: VictoriaLogsTarget, space: str) -> None:
        self._name, self._config = name, config
        self._fields = Fields(config.filter, config.account, config.tier_field)
        tenant = {"AccountID": str(config.account_id), "ProjectID": str(config.project_id)}
        self._client = Client(config, f"VictoriaLogs of target {name}", headers=tenant, seconds=_ANSWER_SECONDS)
        self._mark = f"{space}/{name}/"
        self._key = {"authKey": config.auth_key.get_secret_value()} if config.auth_key is not None else {}

    @property
    def told_by(self) -> tuple[str, str | None]:
        """The anchor, and the name of the account."""
        return "_time", self._config.account

    async def open(self) -> None:
        """See that deletions are possible; raises Blind, Unreachable."""
        await self._tasks()

    async def close(self) -> None:
        """Give up all connections."""
        await self._client.close()

    async def clock(self) -> ClockReading:
        """The clock by the Date of an answer."""
        return await self._client.clock("/health")

    async def check(self) -> Sequence[Finding]:
        """Whether it can be asked, and deletions that are not ours."""
        try:
            others = [each for each in await self._tasks() if not self._ours(each)]
            await self.total()
        except (Blind, Refused) as error:
            return [Finding("error", self._name, error.message, error.remedy or "")]
        found = [
            Finding(
                "info",
                self._name,
                "a deletion has no fence at VictoriaLogs: a hold waits until a permit without an outcome is over, and "
                "what comes later still is stopped when the server is next asked",
                "",
            )
        ]
        if others:
            why = f"{len(others)} deletions of the tenant are not ours; a hold on the target has them stopped"
            found.append(Finding("info", self._name, why, "GET /delete/active_tasks"))
        return found

    async def native_rules(self) -> Sequence[NativeRule]:
        """The server's own retention, by its flags in /metrics."""
        answer = await self._client.ask("GET", "/metrics")
        match = _RETENTION.search(str(answer.body)) if answer.ok else None
        if match is None:
            raise Blind(
                "the server does not tell its -retentionPeriod in /metrics, as vlselect of a cluster does not",
                remedy="let the daemon read /metrics, or see that -retentionPeriod is longer than every term",
            )
        age = _AGE.fullmatch(match[1])
        days = int(float(age[1]) * _DAYS[age[2]]) if age else 0
        return [NativeRule(f"-retentionPeriod={match[1]}", days=days)]

    # --- Looking ---

    async def facets(self, after: str | None, size: int, until: str | None) -> Facets:
        """The accounts and tiers that lines name: all are asked for, and the next ones taken."""
        if not self._fields.named:
            return Facets((Facet(None, None, (await self.total()).count),))
        found = queries.facets(self._fields, await self._rows(queries.subjects(self._fields)))
        low, high = (json.loads(edge) if edge else None for edge in (after, until))
        inside = [(at, each) for at, each in found if (low is None or at > low) and (high is None or at <= high)]
        page = inside[:size]
        last = json.dumps(page[-1][0]) if len(page) < len(inside) else None
        return Facets(tuple(each for _, each in page), last)

    async def measure(self, clauses: Sequence[Clause]) -> list[Measured]:
        """How many lines there are of each; every line has a time."""
        found = []
        for clause in clauses:
            nothing = clause.range.since is not None and clause.range.since == clause.range.until
            rows = [] if nothing else await self._rows(queries.measuring(queries.filter_of(self._fields, [clause])))
            found.append(queries.measured(rows))
        return found

    async def total(self) -> Measured:
        """All lines."""
        return queries.measured(await self._rows(queries.measuring(f"({self._fields.selector})")))

    async def single(self, key: str) -> Single:
        """The oldest line of a stream, by the stream's id."""
        fields = self._fields
        if not re.fullmatch(r"[0-9a-f]{48}", key):
            raise NotFound(
                f"{key} is not the id of a stream", remedy="name a stream by its _stream_id, as a query shows"
            )
        query = f"({fields.selector}) _stream_id:{key} | sort by (_time) limit 1"
        rows = await self._rows(query)
        if not rows:
            raise NotFound(f"target {self._name} has no stream {key}")
        account = rows[0].get(fields.account) if fields.account else None
        tier = rows[0].get(fields.tier) if fields.tier else None
        return Single(key, queries.moment(rows[0].get("_time")), account or None, tier or None)

    # --- Erasing ---

    def fit(self, clauses: Sequence[Clause]) -> Sequence[Clause]:
        """A query has room for as many accounts as a window has."""
        return clauses

    async def requests(self, clauses: Sequence[Clause]) -> Sequence[tuple[Mapping[str, Any], Sequence[Clause]]]:
        """One deletion of them all."""
        for clause in clauses:
            if clause.range.until is None or not clause.accounts:
                raise Refused("a deletion without a bound of time and a term is never asked for")
        return [({"filter": queries.filter_of(self._fields, clauses)}, clauses)]

    async def fence(self) -> str:
        """None: nothing makes the server refuse what is late."""
        return ""

    async def unfence(self, fence: str) -> bool:  # noqa: ARG002 - there is none
        """As there is no fence, nothing is certain."""
        return False

    async def submit(self, permit: int, fence: str, what: Mapping[str, Any]) -> str:  # noqa: ARG002 - there is no fence
        """Ask for the deletion: the task."""
        said = queries.marked(what["filter"], f"{self._mark}{permit}")
        answer = await self._client.once("POST", "/delete/run_task", params=self._key, form={"filter": said})
        answer.require_time_for_it(f"VictoriaLogs of target {self._name}")
        if answer.status >= 500 or answer.status == 408:
            raise Unreachable(f"whether VictoriaLogs took on a deletion is not known: it answers {answer.status}")
        return str(self._done(answer, "a deletion").document["task_id"])

    async def pending(self) -> list[Pending]:
        """All deletions of the tenant that are not done, whosever they are."""
        return [Pending(str(each["task_id"]), self._permit(each), str(each["filter"])) for each in await self._tasks()]

    async def find(self, permit: int, what: Mapping[str, Any]) -> str | None:  # noqa: ARG002 - one for each permit
        """The task of that permit."""
        found = [str(each["task_id"]) for each in await self._tasks() if self._permit(each) == permit]
        return found[0] if found else None

    async def cancel(self, id: str) -> str:
        """Stop the task."""
        answer = await self._client.ask("POST", "/delete/stop_task", params=self._key, form={"task_id": id})
        try:
            self._done(answer, "to stop a deletion")
        except RetentiondError as error:
            return error.message
        return ""

    async def state(self, id: str, what: Mapping[str, Any], seconds: float, moved: float) -> State:  # noqa: ARG002 - the list tells
        """Whether it is in the list of tasks; nothing tells how one ended that is not."""
        running = any(str(each["task_id"]) == id for each in await self._tasks())
        return State("running" if running else "done")

    def lingers(self, seconds: float) -> bool:  # noqa: ARG002 - what is not in the list is over
        """One that is stopped does nothing more."""
        return False

    async def forget(self, id: str) -> None:
        """The server keeps nothing."""

    # --- Answers ---

    async def _rows(self, query: str) -> list[dict[str, Any]]:
        answer = await self._client.ask("POST", "/select/logsql/query", form={"query": query})
        return queries.rows(self._done(answer, "a query").body)

    async def _tasks(self) -> list[dict[str, Any]]:
        """The tasks of our tenant; a task may be of several."""
        answer = await self._client.ask("GET", "/delete/active_tasks", params=self._key)
        body = self._done(answer, "the list of deletions").body
        if body is None:
            return []
        if not isinstance(body, list):
            raise Unreachable("VictoriaLogs answers no list of deletions")
        mine = {"account_id": self._config.account_id, "project_id": self._config.project_id}
        return [each for each in body if mine in each.get("tenant_ids", ())]

    def _ours(self, task: Mapping[str, Any]) -> bool:
        return (queries.mark_in(str(task["filter"])) or "").startswith(self._mark)

    def _permit(self, task: Mapping[str, Any]) -> int | None:
        if not self._ours(task):
            return None
        number = (queries.mark_in(str(task["filter"])) or "").removeprefix(self._mark)
        return int(number) if number.isdigit() else None

    def _done(self, answer: Answer, what: str) -> Answer:
        if answer.ok:
            return answer
        if _DISABLED in str(answer.body):
            raise Blind(f"VictoriaLogs of target {self._name} has deletions switched off", remedy=_ENABLE)
        told = f"VictoriaLogs refuses {what} of target {self._name}: it answers {answer.status}"
        if answer.status in (401, 403):
            raise Blind(told, remedy="see what the proxy in front of it, or vmauth, lets the daemon do")
        if answer.status >= 500:
            raise Unreachable(told)
        raise Refused(told, remedy="see its log; `filter` may be no LogsQL filter")
