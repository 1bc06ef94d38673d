"""A fake of OpenSearch, as far as the store of documents asks it, with the traps that its documentation tells of.

Nothing can be had here to hold it against; each rule has its source:
- a search sees what was there at the last refresh (docs.opensearch.org …/index-apis/refresh);
- delete by query takes a snapshot, and a document that has changed since is a version conflict, which `conflicts=proceed`
  counts and passes over; failures of one bulk end it, and what was deleted stays so (…/document-apis/delete-by-query,
  elastic.co …/operation-delete-by-query);
- a name that is not there makes a request fail with 404 `index_not_found_exception` unless `ignore_unavailable=true`;
- `wait_for_completion=false` answers a task; a task carries `X-Opaque-Id` in its headers, is listed only while it runs, and
  its result is kept in `.tasks` until it is deleted there (…/api-reference/tasks);
- actions of `_aliases` are carried out together or not at all; `must_exist` (…/alias/aliases-api);
- an index with a block refuses with 403 `cluster_block_exception` (…/index-apis/blocks).
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product

from aiohttp import web

from tests.services.http_fakes import Fake


@dataclass
class Index:
    docs: dict[str, tuple[dict, int]] = field(default_factory=dict)
    seen: dict[str, tuple[dict, int]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=lambda: {"index.number_of_shards": "1"})
    aliases: dict[str, dict] = field(default_factory=dict)

    def blocked(self) -> bool:
        names = ("read_only", "read_only_allow_delete", "write")
        return any(self.settings.get(f"index.blocks.{name}") == "true" for name in names)


@dataclass
class Task:
    id: str
    mark: str
    described: str
    snapshot: list[tuple[str, str, int]]
    completed: bool = False
    deleted: int = 0
    response: dict = field(default_factory=dict)


class Problem(Exception):
    def __init__(self, status: int, kind: str) -> None:
        self.status, self.kind = status, kind


def at(source: dict, name: str):
    if name in source:
        return source[name]
    head, dot, rest = name.partition(".")
    return at(source[head], rest) if dot and isinstance(source.get(head), dict) else None


IGNORE_ABOVE = 256
"""Of keyword fields: longer texts are not indexed, and the field's name stands in `_ignored`."""


def indexed(source: dict, name: str) -> list:
    value = at(source, name)
    if name in ("account", "tier") and len(str(value)) > IGNORE_ABOVE:
        return [None]
    return value if isinstance(value, list) else [value]


def millis(value) -> float | None:
    if value is None:
        return None
    return datetime.fromisoformat(value).timestamp() * 1000 // 1


def matches(query: dict, source: dict, index: str = "") -> bool:
    ((kind, body),) = query.items()
    if kind == "match_none":
        return False
    if kind == "bool":
        unknown = set(body) - {"filter", "must_not", "should", "minimum_should_match"}
        assert not unknown, unknown
        if not all(matches(each, source, index) for each in body.get("filter", ())):
            return False
        if any(matches(each, source, index) for each in body.get("must_not", ())):
            return False
        return "should" not in body or any(matches(each, source, index) for each in body["should"])
    ((name, said),) = body.items()
    ignored = [field for field in ("account", "tier") if len(str(at(source, field))) > IGNORE_ABOVE]
    if kind == "script":
        assert "doc[f].size() > 1" in said["source"]
        return any(isinstance(v := at(source, each), list) and len(set(v)) > 1 for each in said["params"]["fields"])
    if name == "_ignored":
        return bool(set(ignored) & set(said))
    if kind == "exists":
        return at(source, said) is not None and said not in ignored
    if kind == "terms":
        value = at(source, name)
        values = value if isinstance(value, list) else [value]
        return name not in ignored and any(v is not None and str(v) in [str(each) for each in said] for v in values)
    assert kind == "range", query
    assert said["format"] == "epoch_millis"
    value = millis(at(source, name))
    return value is not None and value >= said.get("gte", float("-inf")) and value < said.get("lt", float("inf"))


class OpenSearch(Fake):
    """`busy`: tasks run only when a test lets them `work`."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: dict[str, Index] = {}
        self.streams: dict[str, list[str]] = {}
        self.tasks: dict[str, Task] = {}
        self.kept: set[str] = set()
        self.fields = {"@timestamp": "date", "account": "keyword", "tier": "keyword"}
        self.answers: dict[str, dict] = {}
        self.busy = False
        self.before_delete = self.after_delete = None
        self.refuses_cancel = False

    # --- What tests do ---

    def put(self, index: str, id: str, source: dict, *, refresh: bool = True) -> None:
        there = self.indices.setdefault(index, Index())
        version = there.docs.get(id, ({}, 0))[1] + 1
        there.docs[id] = (source, version)
        if refresh:
            there.seen = dict(there.docs)

    def ids(self) -> set[str]:
        return {each for index in self.indices.values() for each in index.docs}

    def work(self) -> None:
        for task in self.tasks.values():
            if not task.completed:
                self._carry_out(task)

    def restart(self) -> None:
        """The node that had the tasks is gone, and with it what they were doing."""
        self.tasks.clear()

    # --- Names ---

    def resolve(self, names: str, *, lenient: bool = False) -> list[str]:
        found: dict[str, None] = {}
        for name in names.split(","):
            streams = {each: [s] for s in self.streams for each in [s]}
            known = {
                **{i: [i] for i in self.indices},
                **{a: [i for i in self.indices if a in self.indices[i].aliases] for a in self._aliases()},
                **{s: list(self.streams[s]) for s in streams},
            }
            hits = [each for each in known if fnmatch.fnmatchcase(each, name)]
            if not hits and "*" not in name and not lenient:
                raise Problem(404, "index_not_found_exception")
            found.update({index: None for each in hits for index in known[each]})
        return list(found)

    def _aliases(self) -> set[str]:
        return {alias for index in self.indices.values() for alias in index.aliases}

    # --- HTTP ---

    def routes(self):
        routes = [
            ("GET", "/", self._about),
            ("POST", "/_aliases", self._change_aliases),
            ("GET", "/_tasks", self._list_tasks),
            ("GET", "/_tasks/{id}", self._task),
            ("POST", "/_tasks/{id}/_cancel", self._cancel),
            ("DELETE", "/.tasks/_doc/{id}", self._forget),
            ("GET", "/_data_stream/{names}", self._data_streams),
            ("GET", "/_plugins/{rest:.*}", self._plugin),
            ("GET", "/_ilm/{rest:.*}", self._plugin),
            ("GET", "/{names}/_ilm/explain", self._plugin),
            ("GET", "/_data_stream/{names}/_lifecycle", self._plugin),
            ("PUT", "/{index}", self._create),
            ("DELETE", "/{index}/_alias/{name}", self._remove_alias),
            ("POST", "/{names}/_search", self._search),
            ("POST", "/{names}/_count", self._count),
            ("POST", "/{names}/_refresh", self._refresh),
            ("GET", "/{names}/_field_caps", self._field_caps),
            ("GET", "/{names}/_settings", self._get_settings),
            ("PUT", "/{index}/_settings", self._put_settings),
            ("PUT", "/{index}/_block/write", self._block),
            ("GET", "/{names}/_alias", self._get_aliases),
            ("GET", "/{index}/_doc/{id}", self._doc),
            ("POST", "/{names}/_delete_by_query", self._delete_by_query),
        ]
        return [web.route(method, path, self._guarded(handler)) for method, path, handler in routes]

    def _guarded(self, handler):
        async def guarded(request):
            try:
                return web.json_response(await handler(request))
            except Problem as problem:
                return web.json_response(
                    {"error": {"type": problem.kind}, "status": problem.status}, status=problem.status
                )

        return guarded

    async def _about(self, request):
        return {"version": {"distribution": "opensearch", "number": "2.19.0"}}

    async def _create(self, request):
        name = request.match_info["index"]
        if name in self.indices:
            raise Problem(400, "resource_already_exists_exception")
        self.indices[name] = Index()
        return {"acknowledged": True, "shards_acknowledged": True}

    async def _change_aliases(self, request):
        actions = (await request.json())["actions"]
        for action in actions:
            ((kind, body),) = action.items()
            if body["index"] not in self.indices:
                raise Problem(404, "index_not_found_exception")
            there = body.get("alias") in self.indices[body["index"]].aliases
            if kind == "remove" and not there and body.get("must_exist"):
                raise Problem(404, "aliases_not_found_exception")
        for action in actions:
            ((kind, body),) = action.items()
            if kind == "add":
                self.indices[body["index"]].aliases[body["alias"]] = {}
            elif kind == "remove":
                del self.indices[body["index"]].aliases[body["alias"]]
            else:
                assert kind == "remove_index"
                del self.indices[body["index"]]
        return {"acknowledged": True}

    async def _remove_alias(self, request):
        index = self.indices.get(request.match_info["index"])
        gone = fnmatch.filter(index.aliases, request.match_info["name"]) if index else []
        if not gone:
            raise Problem(404, "aliases_not_found_exception")
        for name in gone:
            del index.aliases[name]
        return {"acknowledged": True}

    def _seen(self, names):
        for index in self.resolve(names):
            for name, (source, version) in self.indices[index].seen.items():
                yield index, name, source, version

    async def _search(self, request):
        body = await request.json()
        if "query" in body:
            wanted, (order,) = body["query"]["term"]["_index"], body["sort"]
            found = [source for index, _, source, _ in self._seen(request.match_info["names"]) if index == wanted]
            first = sorted(found, key=lambda source: at(source, next(iter(order))))[: body["size"]]
            hits = {"hits": [{"_source": source} for source in first]}
            return {"timed_out": False, "_shards": {"failed": 0}, "hits": hits}
        docs = [(index, source) for index, _, source, _ in self._seen(request.match_info["names"])]
        answer = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"total": {"value": len(docs)}}}
        return {**answer, "aggregations": self._aggregate(body["aggs"], docs)}

    def _aggregate(self, aggs, docs):
        return {name: self._one(agg, docs) for name, agg in aggs.items()}

    def _one(self, agg, docs):
        below = agg.get("aggs", {})
        if "filter" in agg:
            inside = [(index, source) for index, source in docs if matches(agg["filter"], source, index)]
            return {"doc_count": len(inside), **self._aggregate(below, inside)}
        if "terms" in agg:
            assert agg["terms"]["field"] == "_index"
            buckets = []
            for index in dict.fromkeys(index for index, _ in docs):
                inside = [each for each in docs if each[0] == index]
                buckets.append({"key": index, "doc_count": len(inside), **self._aggregate(below, inside)})
            return {"buckets": buckets}
        if "composite" in agg:
            return self._composite(agg["composite"], docs)
        ((kind, said),) = agg.items()
        values = [value for _, source in docs if (value := millis(at(source, said["field"]))) is not None]
        return {"value": {"min": min, "max": max}[kind](values, default=None)}

    def _composite(self, asked, docs):
        names = [name for each in asked["sources"] for name in each]
        counts: dict[tuple, int] = {}
        for _, source in docs:
            for key in product(*(indexed(source, name) for name in names)):
                counts[key] = counts.get(key, 0) + 1
        keys = sorted(counts, key=lambda key: [(each is not None, each) for each in key])
        if "after" in asked:
            last = tuple(asked["after"][name] for name in names)
            keys = keys[keys.index(last) + 1 :] if last in keys else keys
        page = keys[: asked["size"]]
        buckets = [{"key": dict(zip(names, key, strict=True)), "doc_count": counts[key]} for key in page]
        return {"buckets": buckets, **({"after_key": buckets[-1]["key"]} if buckets else {})}

    async def _count(self, request):
        query = (await request.json())["query"]
        found = [1 for index, _, source, _ in self._seen(request.match_info["names"]) if matches(query, source, index)]
        return {"count": len(found), "_shards": {"failed": 0}}

    async def _refresh(self, request):
        for index in self.resolve(request.match_info["names"]):
            self.indices[index].seen = dict(self.indices[index].docs)
        return {"_shards": {"failed": 0}}

    async def _field_caps(self, request):
        self.resolve(request.match_info["names"])
        wanted = request.query["fields"].split(",")
        told = {"searchable": True, "aggregatable": True}
        fields = {
            name: {self.fields[name]: {**told, "aggregatable": self.fields[name] != "text"}}
            for name in wanted
            if name in self.fields
        }
        return {"indices": [], "fields": fields}

    async def _get_settings(self, request):
        return {
            index: {"settings": self.indices[index].settings} for index in self.resolve(request.match_info["names"])
        }

    async def _put_settings(self, request):
        index = self.indices[request.match_info["index"]]
        for name, value in (await request.json()).items():
            if value is None:
                index.settings.pop(name, None)
            else:
                index.settings[name] = value
        return {"acknowledged": True}

    async def _block(self, request):
        self.indices[request.match_info["index"]].settings["index.blocks.write"] = "true"
        return {"acknowledged": True, "shards_acknowledged": True}

    async def _get_aliases(self, request):
        return {index: {"aliases": self.indices[index].aliases} for index in self.resolve(request.match_info["names"])}

    async def _data_streams(self, request):
        found = fnmatch.filter(self.streams, request.match_info["names"])
        if not found:
            raise Problem(404, "index_not_found_exception")
        return {"data_streams": [{"name": s, "indices": [{"index_name": i} for i in self.streams[s]]} for s in found]}

    async def _plugin(self, request):
        if request.path not in self.answers:
            raise Problem(400, "illegal_argument_exception")
        return self.answers[request.path]

    async def _doc(self, request):
        there = self.indices.get(request.match_info["index"], Index()).docs.get(request.match_info["id"])
        if there is None:
            raise Problem(404, "not_found")
        return {"found": True, "_source": there[0]}

    # --- Deleting ---

    async def _delete_by_query(self, request):
        if self.before_delete is not None:
            await self.before_delete()
        body = await request.json()
        assert body.get("query"), "an empty query deletes everything"
        names, given = request.match_info["names"], request.query
        assert given["wait_for_completion"] == "false"
        lenient = given.get("ignore_unavailable") == "true"
        self.resolve(names, lenient=lenient)
        snapshot = [
            (i, name, version) for i, name, source, version in self._seen(names) if matches(body["query"], source, i)
        ]
        task = Task(
            f"node:{len(self.tasks) + 1}",
            request.headers.get("X-Opaque-Id", ""),
            f"delete-by-query [{names}]",
            snapshot,
        )
        self.tasks[task.id] = task
        if not self.busy:
            self._carry_out(task)
        if self.after_delete is not None:
            await self.after_delete()
        return {"task": task.id}

    def _carry_out(self, task):
        conflicts, failures = 0, []
        for name, key, version in task.snapshot:
            index = self.indices.get(name)
            there = index.docs.get(key) if index else None
            if index is not None and index.blocked():
                failures.append({"index": name, "id": key, "cause": {"type": "cluster_block_exception"}})
                break
            if there is None or there[1] != version:
                conflicts += 1
            else:
                del index.docs[key]
                task.deleted += 1
        self._end(task, {"version_conflicts": conflicts, "failures": failures})

    def _end(self, task, response):
        task.completed = True
        task.response = {"total": len(task.snapshot), "deleted": task.deleted, **response}
        self.kept.add(task.id)

    async def _list_tasks(self, request):
        assert fnmatch.fnmatchcase("indices:data/write/delete/byquery", request.query["actions"])
        running = {task.id: self._shown(task) for task in self.tasks.values() if not task.completed}
        return {"nodes": {"node": {"tasks": running}}}

    def _shown(self, task):
        return {
            "node": "node",
            "action": "indices:data/write/delete/byquery",
            "description": task.described,
            "headers": {"X-Opaque-Id": task.mark},
            "cancellable": True,
            "status": {"total": len(task.snapshot), "deleted": task.deleted},
        }

    async def _task(self, request):
        task = self.tasks.get(request.match_info["id"])
        if task is None or (task.completed and task.id not in self.kept):
            raise Problem(404, "resource_not_found_exception")
        return {"completed": task.completed, "task": self._shown(task), "response": task.response}

    async def _cancel(self, request):
        task = self.tasks.get(request.match_info["id"])
        if task is None or task.completed:
            raise Problem(404, "resource_not_found_exception")
        if self.refuses_cancel:
            return {"node_failures": [{"type": "failed_node_exception"}]}
        self._end(task, {"version_conflicts": 0, "failures": [], "canceled": "by user request"})
        return {"nodes": {}}

    async def _forget(self, request):
        if request.match_info["id"] not in self.kept:
            raise Problem(404, "not_found")
        self.kept.discard(request.match_info["id"])
        return {"result": "deleted"}


def shown(server: OpenSearch) -> str:
    """What is there, for a test's message."""
    return json.dumps({name: sorted(index.docs) for name, index in server.indices.items()})
