"""Would a changed configuration newly erase, or get from under a hold? (4-safety, "Guards")

Compares the documents that the digests are made of. What is surely no shorter passes: longer terms, a class made a
legal minimum, a target taken away, missing accounts that no longer count as deleted. Any other change in what enters a
verdict is named, also one that may turn out harmless: an approval costs less than data.

`holds.release_grace` is not among it: a release fixes when its hold ends, so a shorter grace bears on later releases
only, and each of those has its own approval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from retentiond.domain.duration import Duration, Term, parse_term
from retentiond.domain.holds import Hold, HoldState, Scope, covers_target

Document = Mapping[str, Any]

# The fewest and the most days that so many months beyond whole years can have, wherever they begin.
_FEWEST: Final = (0, 28, 59, 89, 120, 150, 181, 212, 242, 273, 303, 334)
_MOST: Final = (0, 31, 62, 92, 123, 153, 184, 215, 245, 276, 306, 337)
_DAY: Final = 86_400_000_000
_OBJECTS: Final = "s3"
_LOG_GROUPS: Final = "cloudwatch"


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


@dataclass(frozen=True, slots=True)
class Evaded:
    """A hold that would no longer keep all that it was placed for, and because of what."""

    hold: Hold
    why: tuple[str, ...]

    def __str__(self) -> str:
        return f"hold {self.hold.id} (matter {self.hold.matter}): {'; '.join(self.why)}"


def evaded(holds: Iterable[Hold], old: Document | None, new: Document) -> tuple[Evaded, ...]:
    """Each hold that the configuration `new` would get records from under; `old` is the one in force, None for none.

    A scope is of names, and a name says nothing any more once its records go by another one. So no approval of the
    policy lets this pass, only a hold under the new names: one that is in its release grace gives way to a hold of the
    same matter that covers at least as much and is not evaded itself. Else a rename would have to wait for the grace.
    """
    living = [hold for hold in holds if hold.holds]
    found = {hold.id: why for hold in living if (why := _evasions(hold.scope, old or {}, new))}
    standing = [hold for hold in living if hold.id not in found and hold.state is not HoldState.RELEASING]

    def replaced(hold: Hold) -> bool:
        return hold.state is HoldState.RELEASING and any(
            other.matter == hold.matter and _as_wide(other.scope, hold.scope) for other in standing
        )

    return tuple(Evaded(hold, found[hold.id]) for hold in living if hold.id in found and not replaced(hold))


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


def _evasions(scope: Scope, old: Document, new: Document) -> tuple[str, ...]:
    """Why records that the scope covers might not be under it any more."""
    targets, before = new.get("targets", {}), old.get("targets", {})
    classes = new.get("policy", {}).get("classes", {})
    found = [f"there is no target {name} any more" for name in sorted({*scope.targets, *scope.listed} - set(targets))]
    found += [f"there is no class {name} any more" for name in sorted(set(scope.classes) - set(classes))]
    for name, target in sorted(targets.items()):
        if name in before and _covers(scope, name, before[name]):
            found += _changed_under(scope, name, before[name], target)
        found += [
            f"the records of target {was} are those of target {name} now, of class {target['class']}"
            for was, document in sorted(before.items())
            if was != name
            and not _same_records(before.get(name, {}), target)
            and _same_records(document, target)
            and _covers(scope, was, document)
            and not _covers(scope, name, target)
        ]
    return tuple(found)


def _changed_under(scope: Scope, name: str, old: Document, new: Document) -> list[str]:
    """What changed of a covered target that the scope depends on."""
    named = name in {*scope.targets, *scope.listed}
    dated = scope.since is not None or scope.until is not None
    depends = {
        "class": not _covers(scope, name, new),
        "key": name in scope.listed,
        # Without a column for it, any account matches.
        "account": bool(scope.accounts) and new.get("account") is not None,
    }
    depends |= dict.fromkeys(("store", "table", "bucket", "prefix"), named)
    depends |= dict.fromkeys(("anchor", "timezone", "unit"), dated)
    if _OBJECTS in (old.get("store"), new.get("store")):
        # The account and the date are read from the key, from tags, or from the row that owns the object.
        depends |= dict.fromkeys(("account", "tags"), bool(scope.accounts))
        depends |= dict.fromkeys(("pairs_with", "pair_key"), bool(scope.accounts) or dated)
        depends["key"] = named or bool(scope.accounts) or dated
    if _LOG_GROUPS in (old.get("store"), new.get("store")):
        # The account is read from the group's name or its tags.
        depends |= dict.fromkeys(("account", "tags"), bool(scope.accounts))
        depends["groups"] = named or bool(scope.accounts)
    return [
        f"{key} of target {name} changes from {old.get(key)} to {new.get(key)}"
        for key, matters in depends.items()
        if matters and old.get(key) != new.get(key)
    ]


def _covers(scope: Scope, name: str, target: Document) -> bool:
    return covers_target(scope, target=name, class_name=target["class"])


def _same_records(old: Document, new: Document) -> bool:
    """Whether any record of one may be one of the other."""
    if old.get("store") != new.get("store"):
        return False
    if old.get("store") == _LOG_GROUPS:
        mine, theirs = (str(each.get("groups", "")).partition("{")[0] for each in (old, new))
        return mine.startswith(theirs) or theirs.startswith(mine)
    if old.get("store") != _OBJECTS:
        return old.get("table") is not None and old["table"] == new.get("table")
    mine, theirs = old.get("prefix") or "", new.get("prefix") or ""
    return old["bucket"] == new["bucket"] and (mine.startswith(theirs) or theirs.startswith(mine))


def _as_wide(wide: Scope, narrow: Scope) -> bool:
    """Whether all but the names of targets and classes, which an operator vouches for, covers at least as much."""
    if wide.since is not None and (narrow.since is None or wide.since > narrow.since):
        return False
    if wide.until is not None and (narrow.until is None or wide.until < narrow.until):
        return False
    if wide.accounts and not (narrow.accounts and set(narrow.accounts) <= set(wide.accounts)):
        return False
    return not wide.listed or (bool(narrow.listed) and _items(narrow) <= _items(wide))


def _items(scope: Scope) -> set[tuple[str, str]]:
    """The ids and prefixes that the scope lists, whatever target they are of."""
    return {
        (kind, item)
        for kind, named in (("record", scope.records), ("prefix", scope.prefixes))
        for items in named.values()
        for item in items
    }
