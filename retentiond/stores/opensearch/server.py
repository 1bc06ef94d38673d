"""What is asked of OpenSearch or Elasticsearch, and what its answers come to for us.

Sources: delete by query (docs.opensearch.org/latest/api-reference/document-apis/delete-by-query,
elastic.co/docs/api/doc/elasticsearch/operation/operation-delete-by-query): `wait_for_completion=false` gives a task; a
document that changed since the task's snapshot is a version conflict, counted with `conflicts=proceed`; what was
deleted before a failure stays deleted. Tasks (docs.opensearch.org/latest/api-reference/tasks): a task carries the
`X-Opaque-Id` of its request in `headers`, the result of one that is over is kept in `.tasks`. Aliases (…/api-reference/
alias/aliases-api): the actions of one request are carried out together or not at all; `must_exist` of `remove` makes it
fail where there is no such alias. Errors have `error.type`; messages are not passed on, for they may quote documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from retentiond.errors import Blind, Refused, RetentiondError, Unreachable
from retentiond.stores.deferred.client import Answer, Client
from retentiond.stores.opensearch.config import FENCE

DELETING: Final = "*/delete/byquery"
_DENIED: Final = frozenset({401, 403})
_UNKNOWN: Final = frozenset({408, 500, 502, 504})
_WRITES: Final = "index.blocks.write"


@dataclass(frozen=True, slots=True)
class Task:
    """A delete-by-query that runs; `mark` is the X-Opaque-Id that it was asked for with."""

    id: str
    mark: str
    described: str


class Server:
    """One server, and one index, data stream, alias or pattern there."""

    def __init__(self, client: Client, index: str) -> None:
        self._client, self._index = client, index
        self._path = quote(index, safe="*,")

    async def search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of a search over all shards; raises Blind, Refused, and Unreachable where a shard is missing."""
        answer = await self._client.ask(
            "POST", f"/{self._path}/_search", params={"allow_partial_search_results": "false"}, json=body
        )
        found = self._done(answer, "search")
        if found.get("timed_out") or found["_shards"]["failed"]:
            raise Unreachable(f"a search over {self._index} was not answered by all shards")
        return found

    async def count(self, index: str, query: Mapping[str, Any]) -> int:
        """How many documents of one index match."""
        answer = await self._client.ask("POST", f"/{quote(index)}/_count", json={"query": query})
        found = self._done(answer, "count")
        if found["_shards"]["failed"]:
            raise Unreachable(f"a count over {index} was not answered by all shards")
        return int(found["count"])

    async def refresh(self, index: str | None = None) -> None:
        """Let searches see what was deleted and written by now."""
        path = self._path if index is None else quote(index)
        self._done(await self._client.ask("POST", f"/{path}/_refresh"), "refresh")

    async def about(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._done(await self._client.ask("GET", "/"), "version")

    async def fields(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Of each field its types, and whether it can be searched and aggregated in all indices."""
        answer = await self._client.ask("GET", f"/{self._path}/_field_caps", params={"fields": ",".join(names)})
        return dict(self._done(answer, "mapping")["fields"])

    async def shards(self) -> int:
        """The least number of primary shards of the indices, by which `slices=auto` goes too; 1 where there is none."""
        answer = await self._client.ask(
            "GET", f"/{self._path}/_settings", params={"flat_settings": "true", "name": "index.number_of_shards"}
        )
        found = self._done(answer, "settings")
        return min((int(each["settings"]["index.number_of_shards"]) for each in found.values()), default=1)

    async def settings(self) -> dict[str, dict[str, str]]:
        """The settings of each index, by its name."""
        answer = await self._client.ask("GET", f"/{self._path}/_settings", params={"flat_settings": "true"})
        return {name: dict(each["settings"]) for name, each in self._done(answer, "settings").items()}

    async def write_indices(self) -> set[str]:
        """The indices that data streams and aliases write to now."""
        found: set[str] = set()
        answer = await self._client.ask("GET", f"/_data_stream/{self._path}", params={"expand_wildcards": "all"})
        if answer.ok:
            found |= {each["indices"][-1]["index_name"] for each in answer.document["data_streams"]}
        aliases = self._done(await self._client.ask("GET", f"/{self._path}/_alias"), "aliases")
        for name, each in aliases.items():
            if any(alias.get("is_write_index") for alias in each["aliases"].values()):
                found.add(name)
        return found

    async def document(self, index: str, id: str) -> dict[str, Any] | None:
        """One document's source and metadata; None where there is none."""
        answer = await self._client.ask("GET", f"/{quote(index)}/_doc/{quote(id, safe='')}")
        if answer.status == 404:
            return None
        return self._done(answer, "document")

    # --- Fences ---

    async def make_fences(self, names: list[str]) -> None:
        """Make these aliases of our own index; raises Blind, Refused, Unreachable."""
        settings = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "hidden": True}
        made = await self._client.ask("PUT", f"/{FENCE}", json={"settings": {"index": settings}})
        if not made.ok and _type(made) != "resource_already_exists_exception":
            self._done(made, "create an index")
        actions = [{"add": {"index": FENCE, "alias": name}} for name in names]
        self._done(await self._client.ask("POST", "/_aliases", json={"actions": actions}), "make an alias")

    async def drop_fences(self, name: str) -> bool:
        """Take away all aliases that begin so: whether every node knows that.

        Where they are gone already, not every node may have heard: another change that all have is later than that.
        """
        answer = await self._client.ask("DELETE", f"/{FENCE}/_alias/{quote(name)}*")
        if answer.status == 404:
            other = f"retentiond-fence-{uuid4().hex}"
            await self.make_fences([other])
            answer = await self._client.ask("DELETE", f"/{FENCE}/_alias/{other}")
        return answer.status != 404 and self._done(answer, "remove an alias").get("acknowledged") is True

    # --- What erases ---

    async def delete(self, fence: str, mark: str, query: Mapping[str, Any], *, slices: int, rate: float) -> str:
        """Ask for a deletion by query, which is refused where the fence is gone; the task.

        Raises Refused, Blind where it surely was not taken on, Unreachable where that is not known.
        """
        answer = await self._client.once(
            "POST",
            f"/{self._path},{quote(fence)}/_delete_by_query",
            params={
                "conflicts": "proceed",
                "wait_for_completion": "false",
                "slices": str(slices),
                "requests_per_second": f"{rate:g}" if rate > 0 else "-1",
                "ignore_unavailable": "false",
            },
            json={"query": query},
            headers={"X-Opaque-Id": mark},
        )
        return str(self._taken(answer, "delete by query")["task"])

    async def drop(self, fence: str, index: str) -> None:
        """Delete a whole index together with the fence, both or neither; raises as `delete`."""
        actions = [
            {"remove": {"index": FENCE, "alias": fence, "must_exist": True}},
            {"remove_index": {"index": index}},
        ]
        self._taken(await self._client.once("POST", "/_aliases", json={"actions": actions}), "delete an index")

    async def block(self, index: str) -> bool:
        """Let nobody write to an index any more; False where that can't be had."""
        answer = await self._client.ask("PUT", f"/{quote(index)}/_block/write")
        return (
            answer.ok and bool(answer.document.get("acknowledged")) and bool(answer.document.get("shards_acknowledged"))
        )

    async def unblock(self, index: str) -> None:
        """Let it be written to again."""
        self._done(await self._client.ask("PUT", f"/{quote(index)}/_settings", json={_WRITES: None}), "settings")

    # --- Tasks ---

    async def tasks(self) -> list[Task]:
        """All deletions by query that run; raises Unreachable where any node does not tell."""
        answer = await self._client.ask("GET", "/_tasks", params={"actions": DELETING, "detailed": "true"})
        found = self._done(answer, "tasks")
        if found.get("node_failures") or found.get("task_failures"):
            raise Unreachable("not every node tells which deletions it works on")
        return list(_tasks(found))

    async def task(self, id: str) -> dict[str, Any] | None:
        """A task that runs or whose result is kept; None where nobody has heard of it."""
        answer = await self._client.ask("GET", f"/_tasks/{quote(id, safe=':')}")
        return None if answer.status == 404 else self._done(answer, "tasks")

    async def cancel(self, id: str) -> str:
        """Ask a task to stop; why it does not, empty where it does or is over."""
        answer = await self._client.ask("POST", f"/_tasks/{quote(id, safe=':')}/_cancel")
        if answer.status == 404:
            return ""
        try:
            found = self._done(answer, "cancel a task")
        except RetentiondError as error:
            return error.message
        failures = [*found.get("node_failures", ()), *found.get("task_failures", ())]
        return str(failures[0].get("type", "refused")) if failures else ""

    async def forget(self, id: str) -> None:
        """Remove a task's result; a newer server may keep it from us."""
        await self._client.ask("DELETE", f"/.tasks/_doc/{quote(id, safe=':')}")

    # --- What erases by itself ---

    async def asked(self, path: str) -> dict[str, Any] | None:
        """An answer of a plugin; None where there is no such plugin, or nothing of it here. Raises Blind."""
        answer = await self._client.ask("GET", path.replace("{index}", self._path))
        if answer.status in (400, 404, 405) or not isinstance(answer.body, dict):
            return None
        return self._done(answer, "lifecycle policies")

    # --- Answers ---

    def _taken(self, answer: Answer, what: str) -> dict[str, Any]:
        """What an answer to something that erases says: a gateway's, or a server's that failed, says nothing."""
        answer.require_time_for_it(f"the server of {self._index}")
        if answer.status in _UNKNOWN or (answer.status == 503 and _type(answer) == ""):
            raise Unreachable(f"whether the server took on to {what} is not known: {answer.status} {_type(answer)}")
        if answer.status == 404:
            raise Refused(
                f"the server did not {what} on {self._index}: {_type(answer)}, which is the fence that a hold, or who "
                "took over, has taken away",
                remedy="nothing to do: it is asked for again under another permit",
            )
        return self._done(answer, what)

    def _done(self, answer: Answer, what: str) -> dict[str, Any]:
        if answer.ok:
            return answer.document
        kind = _type(answer) or "no reason given"
        told = f"{what} on {self._index}: the server answers {answer.status} {kind}"
        if answer.status == 403 and kind == "cluster_block_exception":
            raise Refused(
                told, remedy="the index is read-only: see its index.blocks settings, and the disk's watermarks"
            )
        if answer.status in _DENIED:
            raise Blind(told, remedy="see docs/opensearch.md for the rights that the daemon needs")
        if answer.status == 404:
            raise Blind(told, remedy="see whether `index` names what is there")
        raise Refused(told)


def _type(answer: Answer) -> str:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _tasks(found: Mapping[str, Any]) -> Iterator[Task]:
    for node in found.get("nodes", {}).values():
        for name, each in node["tasks"].items():
            if "parent_task_id" not in each:
                mark = str((each.get("headers") or {}).get("X-Opaque-Id", ""))
                yield Task(name, mark, str(each.get("description", "")))
