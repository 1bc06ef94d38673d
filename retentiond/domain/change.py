"""Would a changed configuration newly erase, compared with the one in force? (4-safety, "Guards")

Compares the documents that the digests are made of. What is surely no shorter passes: longer terms, wider upper bounds,
a class made a legal minimum, a target taken away. Any other change in what enters a verdict is named, also one that
may turn out harmless: an approval costs less than data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retentiond.domain.duration import nominal, parse_term

Document = Mapping[str, Any]


def newly_erases(old: Document, new: Document) -> tuple[str, ...]:
    """Each difference because of which a record may be erased that was kept before, as a short sentence."""
    before, after = old.get("policy", {}), new.get("policy", {})
    found = [
        f"policy.{key} changes from {before.get(key)} to {after.get(key)}"
        for key in ("tiers", "unknown_tier", "no_account")
        if before.get(key) != after.get(key)
    ]
    found += [
        f"policy.{key} becomes shorter: {before.get(key)}, now {after.get(key)}"
        for key in ("downgrade_grace", "deletion_grace")
        if _shorter(after.get(key), before.get(key))
    ]
    if old.get("accounts") != new.get("accounts"):
        found.append("accounts changes")
    used: set[str] = set()
    for name, target in sorted(new.get("targets", {}).items()):
        used.add(target["class"])
        was = old.get("targets", {}).get(name)
        if was is None:
            found.append(f"targets.{name} is new")
        elif was != target:
            keys = sorted(key for key in {*was, *target} if was.get(key) != target.get(key))
            found.append(f"targets.{name} changes in {', '.join(keys)}")
    for name in sorted(used):
        found += _class_changes(name, before.get("classes", {}).get(name), after.get("classes", {}).get(name))
    return tuple(found)


def _class_changes(name: str, old: Document | None, new: Document | None) -> list[str]:
    if old is None or new is None:
        return [f"policy.classes.{name} is new"] if old is None else []
    key = f"policy.classes.{name}"
    found = [
        f"{key}.ttl.{tier} becomes shorter: {old['terms'].get(tier)}, now {term}"
        for tier, term in new["terms"].items()
        if tier not in old["terms"] or _shorter(term, old["terms"][tier])
    ]
    if old["minimum"] and not new["minimum"]:
        found.append(f"{key} is no legal minimum any more")
    found += [
        f"{key}.{field} changes from {old[field]} to {new[field]}"
        for field in ("after", "action", "uniform")
        if old[field] != new[field]
    ]
    for tier in sorted({*old["bounds"], *new["bounds"]}):
        if _bounds_newly_erase(old["bounds"].get(tier), new["bounds"].get(tier)):
            found.append(f"{key}.override.{tier} changes")
    return found


def _bounds_newly_erase(old: Document | None, new: Document | None) -> bool:
    if old == new:
        return False
    if old is None or new is None:
        return True
    wider = not _shorter(new["max"] or "forever", old["max"] or "forever")
    return not (wider and old["min"] == new["min"])


def _shorter(new: str | None, old: str | None) -> bool:
    """Whether a term's text is shorter; None is no grace at all."""
    if old is None or new is None:
        return old is not None and new is None
    return nominal(parse_term(new)) < nominal(parse_term(old))
