"""Where OpenSearch or Elasticsearch deletes indices by itself: ISM, ILM, and lifecycles of data streams.

Sources: ISM explain and policies (docs.opensearch.org/latest/im-plugin/ism/api, …/policies): a state whose actions have
`delete` is entered by a transition, after `min_index_age` of the index's creation. ILM (elastic.co/docs/api/doc/
elasticsearch/operation/operation-ilm-get-lifecycle): `phases.delete.min_age`, counted from rollover or creation. A data
stream's `lifecycle.data_retention`. An index is as old as its oldest document at most: its newest go sooner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from retentiond.domain.native_expiry import NativeRule
from retentiond.stores.opensearch.server import Server

_AGE: Final = re.compile(r"(\d+)(d|h|m|s|ms|micros|nanos)", re.ASCII)
_DAYS: Final = {"d": 1.0, "h": 1 / 24, "m": 1 / 1440, "s": 1 / 86400, "ms": 0.0, "micros": 0.0, "nanos": 0.0}


async def native_rules(server: Server) -> list[NativeRule]:
    """All rules that reach an index of the target; raises Blind where they may not be seen, Unreachable."""
    return [*await _ism(server), *await _ilm(server), *await _streams(server)]


async def _ism(server: Server) -> list[NativeRule]:
    explained = await server.asked("/_plugins/_ism/explain/{index}")
    ids = {
        str(each["policy_id"])
        for each in (explained or {}).values()
        if isinstance(each, Mapping) and each.get("policy_id") and each.get("enabled", True)
    }
    found = []
    for name in sorted(ids):
        policy = await server.asked(f"/_plugins/_ism/policies/{name}")
        if policy is not None:
            found += [NativeRule(f"ISM policy {name}", days=days) for days in _ism_deletes(policy["policy"])]
    return found


def _ism_deletes(policy: Mapping[str, Any]) -> Iterator[int]:
    """After how many days each transition to a state that deletes is made; 0 where no age is asked for."""
    states = policy.get("states", ())
    deleting = {state["name"] for state in states if any("delete" in action for action in state.get("actions", ()))}
    if policy.get("default_state") in deleting:
        yield 0
    for state in states:
        for transition in state.get("transitions", ()):
            if transition["state_name"] in deleting:
                yield _days((transition.get("conditions") or {}).get("min_index_age"))


async def _ilm(server: Server) -> list[NativeRule]:
    explained = (await server.asked("/{index}/_ilm/explain") or {}).get("indices", {})
    names = {str(each["policy"]) for each in explained.values() if each.get("managed") and each.get("policy")}
    found = []
    for name in sorted(names):
        policy = await server.asked(f"/_ilm/policy/{name}")
        phases = ((policy or {}).get(name) or {}).get("policy", {}).get("phases", {})
        if "delete" in phases:
            found.append(NativeRule(f"ILM policy {name}", days=_days(phases["delete"].get("min_age"))))
    return found


async def _streams(server: Server) -> list[NativeRule]:
    found = await server.asked("/_data_stream/{index}/_lifecycle")
    rules = []
    for each in (found or {}).get("data_streams", ()):
        lifecycle = each.get("lifecycle") or {}
        if lifecycle.get("enabled", True) and (kept := lifecycle.get("data_retention")):
            rules.append(NativeRule(f"lifecycle of data stream {each['name']}", days=_days(kept)))
    return rules


def _days(age: object) -> int:
    """Whole days of an age, cut off; 0 where none is asked for, or it is not understood: then it may be at once."""
    match = _AGE.fullmatch(str(age or ""))
    return int(int(match[1]) * _DAYS[match[2]]) if match else 0
