"""Scopes of holds and entries of the ledger in words, for people; `--json` has the documents themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retentiond.domain.holds import Scope

_SOME = 3


def scope_in_words(scope: Scope, *, brief: bool) -> str:
    """What a hold covers; `brief` names the first few of many and says how many more there are."""
    if scope.everything:
        return "everything"
    parts = []
    for word, items in (("account", scope.accounts), ("class", scope.classes), ("target", scope.targets)):
        if items:
            parts.append(f"{_plural(word, len(items))} {_list(items, brief=brief)}")
    for word, named in (("prefix", scope.prefixes), ("record", scope.records)):
        parts += [
            f"{_plural(word, len(items))} {_list(items, brief=brief)} of {target}" for target, items in named.items()
        ]
    if scope.since:
        parts.append(f"since {scope.since.isoformat().replace('+00:00', 'Z')}")
    if scope.until:
        parts.append(f"until before {scope.until.isoformat().replace('+00:00', 'Z')}")
    return "; ".join(parts)


def entry_in_words(entry: Mapping[str, Any]) -> str:
    """What an entry of the ledger says, in a line. Digests are cut to 12 characters."""
    by = f" by {entry['by']}" if entry.get("by") else ""
    kind = entry["kind"]
    if kind == "outcome":
        return _outcome(entry)
    if kind == "in_doubt":
        return f"{entry['target']}: permit {entry['permit']} had no outcome; found: {entry['found']}{by}"
    if kind == "request":
        return f"{entry['target']}: deletion {entry['request']} of {entry['selected']} records is {entry['stage']}{by}"
    if kind == "hold":
        until = f", erasable from {entry['erasable_at']}" if entry.get("erasable_at") else ""
        return f"{entry['hold']} {entry['event']}, now {entry['state']}{until}{by}"
    if kind == "approval":
        bound = f", at most {entry['bound']} records" if entry.get("bound") is not None else ""
        digest = f", digest {entry['digest'][:12]}" if entry.get("digest") else ""
        return f"{entry['event']}: {entry['subject']} {entry.get('target') or ''}".rstrip() + f"{bound}{digest}{by}"
    if kind == "policy":
        instead = f" instead of {entry['previous'][:12]}" if entry.get("previous") else ""
        return f"{entry['event']} {entry['digest'][:12]}{instead}{by}"
    if kind == "guard":
        return f"{entry['guard']} {'stopped' if entry['tripped'] else 'let go'} {entry.get('target') or 'everything'}"
    if kind == "mode":
        return f"{entry['event']}: {entry['mode']}{by}"
    if kind == "startup":
        return f"{entry['worker']} began in mode {entry['mode']}, policy {str(entry.get('policy'))[:12]}"
    told = {name: value for name, value in entry.items() if name not in _ENVELOPE and value not in (None, {}, "")}
    return ", ".join(f"{name} {value}" for name, value in sorted(told.items()))


_ENVELOPE = ("seq", "at", "kind", "prev", "version")


def _outcome(entry: Mapping[str, Any]) -> str:
    counts = entry["counts"]
    acted = next((name for name in ("erased", "anonymised", "archived") if counts.get(name)), "erased")
    kept = "".join(f", {counts[name]} {name}" for name in ("held", "minimum", "failed", "in_doubt") if counts.get(name))
    tiers = ", ".join(f"{tier} {sum(of.values())}" for tier, of in sorted(entry["tiers"].items()))
    return f"{entry['target']}: {counts[acted]} {acted}{f' ({tiers})' if tiers else ''}{kept}"


def _list(items: Sequence[str], *, brief: bool) -> str:
    shown = items[:_SOME] if brief and len(items) > _SOME + 1 else items
    more = f" and {len(items) - len(shown)} more" if len(shown) < len(items) else ""
    return ", ".join(shown) + more


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return word + ("es" if word[-1] in "sx" else "s")
