"""A fake of VictoriaLogs, as far as the store of lines asks it, with the traps of its documentation and code.

Nothing can be had here to hold it against; each rule has its source (docs.victoriametrics.com/victorialogs unless said):
- `/delete/*` answers 400 "requests to /delete/* are disabled" without `-delete.enable` (app/vlselect/main.go);
- `/delete/run_task` is POST alone, takes `filter`, ignores `start` and `end`, and answers a task (ibid.);
- a task's filter is shown rewritten; a task that is done leaves `/delete/active_tasks`, and nothing tells how it ended;
  tasks outlive a restart (lib/logstorage/delete_task.go); one deletes nothing later than its start (storage.go);
- stopping a task does not restore what it deleted ("How to delete logs"), and of an unknown one says ok;
- a deletion may leave empty lines behind with `_time`, `_stream` and `_stream_id` alone (ibid.);
- a field that a line lacks is the empty text; values of an answer are texts (LogsQL, stats pipe).
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from tests.services.http_fakes import Fake

_TOKEN = re.compile(
    r'\s+|(?P<stream>\{[^}]*\})|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<word>[^\s(){}",:!|]+)|(?P<mark>[():,!|])', re.ASCII
)


@dataclass
class Task:
    id: str
    filter: str
    start: float
    tenant: tuple[int, int]


def parse(text: str):
    """A predicate over lines, for the part of LogsQL that we write."""
    tokens = [(m.lastgroup, m[0]) for m in _TOKEN.finditer(text) if m.lastgroup]
    ends = [0, *(m.end() for m in _TOKEN.finditer(text))]
    assert [m.start() for m in _TOKEN.finditer(text)] == ends[:-1], text
    assert ends[-1] == len(text), text
    at = 0

    def peek():
        return tokens[at] if at < len(tokens) else (None, "")

    def take():
        nonlocal at
        at += 1
        return tokens[at - 1]

    def alternatives():
        found = [together()]
        while peek()[1] == "or":
            take()
            found.append(together())
        return lambda line: any(each(line) for each in found)

    def together():
        found = [one()]
        while peek()[1] not in ("", ")", "or"):
            found.append(one())
        return lambda line: all(each(line) for each in found)

    def one():
        kind, text = take()
        if text == "!":
            inner = one()
            return lambda line: not inner(line)
        if text == "(":
            inner = alternatives()
            assert take()[1] == ")"
            return inner
        if kind == "stream":
            name, value = re.fullmatch(r'\{(\w+)="([^"]*)"\}', text).groups()
            return lambda line: line["_stream"].get(name, "") == value
        name = json.loads(text) if kind == "quoted" else text
        assert take()[1] == ":", (text, name)
        return of_field(name)

    def of_field(name):
        _, text = take()
        if text == "in":
            assert take()[1] == "("
            values = []
            while (each := take())[1] != ")":
                values += [json.loads(each[1])] if each[0] == "quoted" else []
            return lambda line: line.get(name, "") in values
        if name == "_time":
            moment = "".join([text, *(take()[1] for _ in range(4))])
            match = re.fullmatch(r"(<|>=)(.+)", moment)
            edge = datetime.fromisoformat(match[2])
            return (lambda line: line["_time"] < edge) if match[1] == "<" else (lambda line: line["_time"] >= edge)
        if text == "*":
            return lambda line: line.get(name, "") != ""
        if text == "=":
            value = json.loads(take()[1])
            return lambda line: line.get(name, "") == value
        return lambda line: line.get(name, "") == text

    found = alternatives()
    assert at == len(tokens), text
    return found


class VictoriaLogs(Fake):
    """`busy`: tasks run only when a test lets them `work`. `enabled`: -delete.enable."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, dict] = {}
        self.tasks: dict[str, Task] = {}
        self.busy, self.enabled = False, True
        self.retention = "100y"
        self.husks = 0
        self.submitted: list[str] = []

    def put(self, key: int, at: datetime, **fields: str) -> None:
        self.lines[key] = {"_time": at, "_stream": {"app": "api"}, "_msg": f"line {key}", **fields}

    def work(self) -> None:
        for task in list(self.tasks.values()):
            matches = parse(task.filter)
            start = datetime.fromtimestamp(task.start, UTC)
            gone = [key for key, line in self.lines.items() if line["_time"] <= start and matches(line)]
            for key in gone:
                line = self.lines.pop(key)
                self.husks += 1
                self.lines[-self.husks] = {"_time": line["_time"], "_stream": line["_stream"]}
            del self.tasks[task.id]

    def routes(self):
        return [
            web.get("/health", self._health),
            web.get("/metrics", self._metrics),
            web.post("/select/logsql/query", self._query),
            web.route("*", "/delete/run_task", self._run),
            web.route("*", "/delete/stop_task", self._stop),
            web.get("/delete/active_tasks", self._active),
        ]

    async def _health(self, request):
        return web.Response(text="OK")

    async def _metrics(self, request):
        return web.Response(text=f'flag{{name="retentionPeriod", value="{self.retention}", is_set="true"}} 1\n')

    async def _query(self, request):
        query = (await request.post())["query"]
        said, _, pipe = query.partition(" | ")
        found = [line for line in self.lines.values() if parse(said)(line)]
        if pipe.startswith("sort by (_time) limit 1"):
            found = sorted(found, key=lambda line: line["_time"])[:1]
            return self._rows([{**line, "_time": line["_time"].isoformat().replace("+00:00", "Z")} for line in found])
        by = re.fullmatch(r"stats by \((.*)\) count\(\) lines", pipe)
        if by:
            names = [json.loads(each) for each in by[1].split(", ")]
            counts: dict[tuple, int] = {}
            for line in found:
                key = tuple(line.get(name, "") for name in names)
                counts[key] = counts.get(key, 0) + 1
            return self._rows([{**dict(zip(names, key, strict=True)), "lines": str(n)} for key, n in counts.items()])
        assert pipe == "stats count() lines, min(_time) oldest, max(_time) newest", pipe
        times = [line["_time"].isoformat().replace("+00:00", "Z") for line in found]
        edges = {"oldest": min(times, default=""), "newest": max(times, default="")}
        return self._rows([{"lines": str(len(found)), **edges}])

    def _rows(self, rows):
        body = "".join(json.dumps(row) + "\n" for row in rows)
        return web.Response(text=body, content_type="application/stream+json")

    async def _run(self, request):
        if not self.enabled:
            return web.Response(status=400, text="requests to /delete/* are disabled")
        if request.method != "POST":
            return web.Response(status=405)
        said = (await request.post())["filter"]
        parse(said)
        assert "_time:<" in said, "a deletion without a bound of time"
        self.submitted.append(said)
        tenant = (int(request.headers["AccountID"]), int(request.headers["ProjectID"]))
        task = Task(str(time.time_ns()), said, time.time(), tenant)
        self.tasks[task.id] = task
        if not self.busy:
            self.work()
        return web.json_response({"task_id": task.id})

    async def _stop(self, request):
        self.tasks.pop((await request.post())["task_id"], None)
        return web.json_response({"status": "ok"})

    async def _active(self, request):
        if not self.enabled:
            return web.Response(status=400, text="requests to /delete/* are disabled")
        shown = [
            {
                "task_id": task.id,
                "tenant_ids": [{"account_id": task.tenant[0], "project_id": task.tenant[1]}],
                # It is parsed and written anew: quotes that are not needed are gone.
                "filter": re.sub(r':="(\w+)"', r":=\1", task.filter),
            }
            for task in self.tasks.values()
        ]
        return web.json_response(shown or None)
