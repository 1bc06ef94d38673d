"""Would a changed configuration newly erase, compared with the one in force? (4-safety, "Guards")

Compares the documents that the digests are made of. What is surely no shorter passes: longer terms, a class made a
legal minimum, a target taken away, missing accounts that no longer count as deleted. Any other change in what enters a
verdict is named, also one that may turn out harmless: an approval costs less than data.

`holds.release_grace` is not among it: a release fixes when its hold ends, so a shorter grace bears on later releases
only, and each of those has its own approval.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from retentiond.domain.duration import Duration, Term, parse_term

Document = Mapping[str, Any]

# The fewest and the most days that so many months beyond whole years can have, wherever they begin.
_FEWEST: Final = (0, 28, 59, 89, 120, 150, 181, 212, 242, 273, 303, 334)
_MOST: Final = (0, 31, 62, 92, 123, 153, 184, 215, 245, 276, 306, 337)
_DAY: Final = 86_400_000_000


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
        if _shorter_grace(after.get(key), before.get(key))
    ]
    found += _accounts_changes(old.get("accounts"), new.get("accounts"))
    used: set[str] = set()
    for name, target in sorted(new.get("targets", {}).items()):
        used.add(target["class"])
        was = old.get("targets", {}).get(name)
        if was is None:
            found.append(f"targets.{name} is new")
        elif keys := _differing(was, target):
            found.append(f"targets.{name} changes in {', '.join(keys)}")
    for name in sorted(used):
        found += _class_changes(name, before.get("classes", {}).get(name), after.get("classes", {}).get(name))
    return tuple(found)


def surely_no_shorter(new: Term, old: Term) -> bool:
    """Whether no record can expire earlier under `new`, whatever the date: P1M is at times shorter than P30D."""
    if not isinstance(new, Duration):
        return True
    if not isinstance(old, Duration):
        return False
    parts = (new.months >= old.months, new.days >= old.days, new.microseconds >= old.microseconds)
    return all(parts) or _length(new, _FEWEST, 365) >= _length(old, _MOST, 366)


def _length(duration: Duration, months: tuple[int, ...], year: int) -> int:
    years, rest = divmod(duration.months, 12)
    return (years * year + months[rest] + duration.days) * _DAY + duration.microseconds


def _differing(old: Document, new: Document) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def _accounts_changes(old: Document | None, new: Document | None) -> list[str]:
    if old is None or new is None:
        return [] if old == new else [f"accounts {'is new' if old is None else 'is taken away'}"]
    keys = _differing(old, new)
    if "missing" in keys and new.get("missing") != "deleted":
        keys.remove("missing")
    return [f"accounts changes in {', '.join(keys)}"] if keys else []


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
    # Wider ones too: an override that was out of bounds kept its account's records, and applies now.
    return found + [f"{key}.override.{tier} changes" for tier in _differing(old["bounds"], new["bounds"])]


def _shorter(new: str, old: str) -> bool:
    return not surely_no_shorter(parse_term(new), parse_term(old))


def _shorter_grace(new: str | None, old: str | None) -> bool:
    """Whether a grace may be shorter; None is none at all."""
    if old is None or new is None:
        return old is not None and new is None
    return _shorter(new, old)
