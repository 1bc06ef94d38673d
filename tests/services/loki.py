"""A fake of Loki, as far as the store of streams asks it, with the traps of its documentation and code.

Nothing can be had here to hold it against; each rule has its source (pkg/compactor/deletion of grafana/loki unless said):
- parameters of `/loki/api/v1/delete` count in the address alone; `start` and `end` are RFC 3339 or 10 digits, the end not in
  the future; 204 without an id (request_handler.go);
- a tenant without deletions gets 403 "deletion is not available for this tenant" (tenant_request_handler.go, util.go);
- a request is picked up the cancel period and a minute after it was made (delete_requests_manager.go); one of a range older
  than the retention is marked as processed and nothing is done (ibid.); with `filter-only` it is never picked up;
- DELETE of one that is processed is 400, and removes any other from the list, also one that is being worked on;
- both ends of a range are inclusive, in milliseconds (delete_request.go);
- queries leave out what is requested (docs: "log lines matching the query are filtered out when querying");
- instants in the list are seconds since 1970 as numbers (model.Time of prometheus/common);
- an instant query counts after T minus the range, until T; a query longer than max_query_length is refused (docs, LogQL).
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime

import yaml
from aiohttp import web

from tests.services.http_fakes import Fake

_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"')
_MAX_QUERY_MS = 721 * 3600 * 1000


@dataclass
class Request:
    id: str
    query: str
    start: int
    end: int
    created: float
    status: str = "received"


def matches(selector: str, labels: dict[str, str]) -> bool:
    inside = selector.strip()[1:-1]
    found = list(_MATCHER.finditer(inside))
    assert re.sub(r"[\s,]", "", _MATCHER.sub("", inside)) == "", selector
    for name, sign, quoted in (m.groups() for m in found):
        value, there = json.loads(f'"{quoted}"'), labels.get(name, "")
        fits = re.fullmatch(value, there) is not None if "~" in sign else there == value
        if fits == sign.startswith("!"):
            return False
    return bool(found)


class Loki(Fake):
    """`instant`: deletions are carried out when they are asked for. `mode` is the tenant's deletion mode."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, tuple[dict[str, str], int]] = {}
        self.requests: dict[str, Request] = {}
        self.mode, self.instant = "filter-and-delete", False
        self.cancel_period, self.retention_ms = 86_400.0, 0
        self.config: dict | None = None
        self.tenants: set[str | None] = set()
        self.made = 0

    def put(self, key: int, at: datetime, **labels: str) -> None:
        self.lines[key] = ({"app": "api", **labels}, int(at.timestamp() * 1000) * 1_000_000)

    def let_pass(self, seconds: float) -> None:
        for each in self.requests.values():
            each.created -= seconds

    def compact(self) -> None:
        """What the compactor does when it runs."""
        if self.mode != "filter-and-delete":
            return
        now = time.time()
        for each in self.requests.values():
            if each.status != "received" or each.created + self.cancel_period + 60 > now:
                continue
            old = self.retention_ms and each.end < now * 1000 - self.retention_ms
            if not old:
                for key in self.of(each):
                    del self.lines[key]
            each.status = "processed"

    def of(self, request: Request) -> list[int]:
        return [
            key
            for key, (labels, at) in self.lines.items()
            if matches(request.query, labels) and request.start * 1_000_000 <= at <= request.end * 1_000_000
        ]

    def visible(self) -> dict[int, tuple[dict[str, str], int]]:
        hidden = {key for each in self.requests.values() if each.status != "processed" for key in self.of(each)}
        return {key: line for key, line in self.lines.items() if key not in hidden}

    def routes(self):
        api = "/loki/api/v1"
        return [
            web.get(f"{api}/status/buildinfo", self._health),
            web.get("/config", self._config),
            web.get(f"{api}/query", self._query),
            web.get(f"{api}/query_range", self._range),
            web.get(f"{api}/series", self._series),
            web.get(f"{api}/delete", self._list),
            web.post(f"{api}/delete", self._delete),
            web.delete(f"{api}/delete", self._cancel),
        ]

    async def _health(self, request):
        return web.json_response({"version": "3.5.0"})

    async def _config(self, request):
        if self.config is None:
            return web.Response(status=404)
        return web.Response(text=yaml.safe_dump(self.config))

    async def _query(self, request):
        said = re.fullmatch(r"sum\(count_over_time\((\{.*\})\[(\d+)ms\]\)\)", request.query["query"])
        end, length = int(request.query["time"]), int(said[2])
        if length > _MAX_QUERY_MS:
            return web.Response(status=400, text="the query time range exceeds the limit")
        count = sum(
            matches(said[1], labels) and end - length * 1_000_000 < at <= end for labels, at in self.visible().values()
        )
        result = [{"metric": {}, "value": [end / 1e9, str(count)]}] if count else []
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    async def _range(self, request):
        start, end = int(request.query["start"]), int(request.query["end"])
        found = sorted(
            (at, json.dumps(labels))
            for labels, at in self.visible().values()
            if matches(request.query["query"], labels) and start <= at < end
        )
        result = [{"stream": json.loads(labels), "values": [[str(at), "line"]]} for at, labels in found[:1]]
        return web.json_response({"status": "success", "data": {"resultType": "streams", "result": result}})

    async def _series(self, request):
        start, end = int(request.query["start"]), int(request.query["end"])
        found = {
            json.dumps(labels)
            for labels, at in self.lines.values()
            if matches(request.query["match[]"], labels) and start <= at <= end
        }
        return web.json_response({"status": "success", "data": [json.loads(each) for each in found]})

    def _allowed(self, request):
        self.tenants.add(request.headers.get("X-Scope-OrgID"))
        if self.mode == "disabled":
            return web.Response(status=403, text="deletion is not available for this tenant")
        return None

    async def _list(self, request):
        if (no := self._allowed(request)) is not None:
            return no
        return web.json_response(
            [
                {
                    "request_id": each.id,
                    "start_time": each.start / 1000,
                    "end_time": each.end / 1000,
                    "query": each.query,
                    "status": each.status,
                    "created_at": each.created,
                }
                for each in self.requests.values()
            ]
        )

    async def _delete(self, request):
        if (no := self._allowed(request)) is not None:
            return no
        assert not await request.read(), "parameters count in the address alone"
        start, end = (int(datetime.fromisoformat(request.query[name]).timestamp() * 1000) for name in ("start", "end"))
        assert start > 0
        if end > time.time() * 1000:
            return web.Response(status=400, text="deletes in the future are not allowed")
        assert matches(request.query["query"], {}) in (True, False)
        self.made += 1
        made = Request(f"r{self.made}", request.query["query"], start, end, time.time())
        self.requests[made.id] = made
        if self.instant:
            made.created -= self.cancel_period + 61
            self.compact()
        return web.Response(status=204)

    async def _cancel(self, request):
        if (no := self._allowed(request)) is not None:
            return no
        there = self.requests.get(request.query["request_id"])
        if there is None:
            return web.Response(status=404, text="could not find delete request with given id")
        if there.status == "processed":
            return web.Response(status=400, text="deletion of request which is in process or already processed")
        del self.requests[there.id]
        return web.Response(status=204)
