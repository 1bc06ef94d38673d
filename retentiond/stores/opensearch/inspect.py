"""What `check` says of documents in OpenSearch or Elasticsearch: fields, the fence, blocks, deletions of others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from retentiond.errors import Blind, Refused, RetentiondError
from retentiond.stores.base import Finding
from retentiond.stores.opensearch.config import OpenSearchTarget
from retentiond.stores.opensearch.queries import Fields
from retentiond.stores.opensearch.server import Server

_DATES: Final = frozenset({"date", "date_nanos"})
# Those whose values are compared to the letter, or as whole numbers.
_EXACT: Final = frozenset(
    {"keyword", "constant_keyword", "wildcard", "long", "integer", "short", "byte", "unsigned_long"}
)
_BLOCKS: Final = ("index.blocks.read_only", "index.blocks.read_only_allow_delete", "index.blocks.write")
_NOTHING: Final[dict[str, Any]] = {"bool": {"filter": [{"match_none": {}}]}}


async def require_fields(server: Server, fields: Fields, target: str) -> None:
    """Raise Blind where the fields can't tell what is due: of another type, or not searched everywhere."""
    wanted = {fields.anchor: _DATES, **dict.fromkeys(fields.named, _EXACT)}
    found = await server.fields(tuple(wanted))
    for name, kinds in wanted.items():
        types = {kind: each for kind, each in found.get(name, {}).items() if kind != "unmapped"}
        if not types:
            raise Blind(
                f"no index of target {target} has a field {name}",
                remedy="name the field as it is in the mapping; an account is often ACCOUNT.keyword",
            )
        wrong = sorted(set(types) - kinds)
        if wrong:
            raise Blind(
                f"the field {name} of target {target} is of type {', '.join(wrong)}",
                remedy=f"name one of type {' or '.join(sorted(kinds))}; a text often has one below it, {name}.keyword",
            )
        for kind, each in types.items():
            if not (each.get("searchable", True) and each.get("aggregatable", True)):
                raise Blind(
                    f"the field {name} ({kind}) of target {target} can't be searched or aggregated in every index",
                    remedy="map it with index and doc_values, which is the default, in new indices",
                )


async def findings(
    server: Server, config: OpenSearchTarget, fields: Fields, target: str, mark: str
) -> Sequence[Finding]:
    """All findings of one target; raises Unreachable."""
    told: list[Finding] = []
    for look in (_fields, _fence, _blocks, _others):
        try:
            told += await look(server, config, fields, target, mark)
        except (Blind, Refused) as error:
            told.append(Finding("error", target, error.message, error.remedy or ""))
    return told


async def _fields(server: Server, config: OpenSearchTarget, fields: Fields, target: str, mark: str) -> list[Finding]:
    del config, mark
    await require_fields(server, fields, target)
    return []


async def _fence(server: Server, config: OpenSearchTarget, fields: Fields, target: str, mark: str) -> list[Finding]:
    """Whether the server refuses a deletion whose fence is gone: asked with a query that matches nothing."""
    del config, fields
    name = f"retentiond-fence-{uuid4().hex}"
    await server.make_fences([name])
    try:
        await server.delete(name, f"{mark}check", _NOTHING, slices=1, rate=0)
        if not await server.drop_fences(name):
            return [Finding("warning", target, "not every node has heard in time that an alias was removed")]
        try:
            await server.delete(name, f"{mark}check", _NOTHING, slices=1, rate=0)
        except (Blind, Refused):
            return []
    finally:
        with suppress(RetentiondError):  # it stands for nothing
            await server.drop_fences(name)
    why = "the server takes on deletions that name an alias which is not there, so a late one can't be refused"
    return [Finding("error", target, why, "see whether a proxy or a plugin sets ignore_unavailable for all requests")]


async def _blocks(server: Server, config: OpenSearchTarget, fields: Fields, target: str, mark: str) -> list[Finding]:
    del config, fields, mark
    blocked = [
        name for name, each in (await server.settings()).items() if any(each.get(block) == "true" for block in _BLOCKS)
    ]
    if not blocked:
        return []
    shown = ", ".join(sorted(blocked)[:5]) + (f" and {len(blocked) - 5} more" if len(blocked) > 5 else "")
    return [
        Finding(
            "error",
            target,
            f"nothing can be deleted from indices that are blocked for writes: {shown}",
            'PUT /INDEX/_settings {"index.blocks.write": null, "index.blocks.read_only": null,'
            ' "index.blocks.read_only_allow_delete": null}',
        )
    ]


async def _others(server: Server, config: OpenSearchTarget, fields: Fields, target: str, mark: str) -> list[Finding]:
    """Deletions by query that somebody else has running: they don't know our holds."""
    del fields
    name = config.index
    found = [each for each in await server.tasks() if not each.mark.startswith(mark) and f"[{name}" in each.described]
    if not found:
        return []
    why = f"{len(found)} deletions by query on {name} are not ours, and mind no hold"
    return [Finding("info", target, why, "GET /_tasks?actions=*/delete/byquery&detailed")]
