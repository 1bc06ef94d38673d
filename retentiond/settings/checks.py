"""What the models alone can't see: targets against the policy and one another, and what the mode asks for.

These work on the merged document as well as on what could be validated, so that a fault in one place does not hide
another elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import combinations
from typing import Final

from pydantic import ValidationError

from retentiond.domain.duration import Duration, parse_term
from retentiond.errors import DurationError, Problem
from retentiond.settings.models import Guards
from retentiond.settings.problems import kind_of, problems_of, shown
from retentiond.settings.sources import Merged, variable
from retentiond.stores.config import TargetConfig
from retentiond.stores.registry import CONFIG_MODELS, config_model

_TARGET_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_DAY: Final = Duration(days=1).nominal()
_MAPPING_REMEDY: Final = "give it keys with values below it"


def section(merged: Merged, *path: str) -> Mapping[str, object]:
    """The mapping at a path of the merged document; empty where there is none."""
    at: object = merged.values
    for name in path:
        at = at.get(name) if isinstance(at, Mapping) else None
    return at if isinstance(at, Mapping) else {}


def used_classes(merged: Merged) -> frozenset[str]:
    """The classes that targets name, those of faulty targets too."""
    classes = (section(merged, "targets", name).get("class") for name in section(merged, "targets"))
    return frozenset(name for name in classes if isinstance(name, str))


def read_targets(merged: Merged) -> tuple[dict[str, TargetConfig], list[Problem]]:
    """The targets that are valid in themselves, and the faults of the others."""
    given = merged.values.get("targets", {})
    if not isinstance(given, Mapping):
        message = f"a mapping was expected, not {kind_of(given)}"
        return {}, [Problem("targets", message, _MAPPING_REMEDY, merged.source_of("targets"))]
    targets: dict[str, TargetConfig] = {}
    problems: list[Problem] = []
    for name, raw in given.items():
        found = _read_target(name, raw, merged)
        if isinstance(found, TargetConfig):
            targets[name] = found
        else:
            problems += found
    return targets, problems


def _read_target(name: str, raw: object, merged: Merged) -> TargetConfig | list[Problem]:
    key = f"targets.{name}"
    if not _TARGET_NAME.fullmatch(name):
        message = f"{name!r} can't be the name of a target"
        remedy = "use lower-case letters, digits, _ and -, beginning with a letter, at most 63 of them"
        return [Problem(key, message, remedy, merged.source_of(key))]
    if not isinstance(raw, Mapping):
        message = f"a mapping was expected, not {kind_of(raw)}"
        return [Problem(key, message, _MAPPING_REMEDY, merged.source_of(key))]
    kind = raw.get("store")
    model = config_model(kind) if isinstance(kind, str) else None
    if model is None:
        return [_no_store(f"{key}.store", kind, merged)]
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        return problems_of(error, model, merged, ("targets", name))


def _no_store(key: str, kind: object, merged: Merged) -> Problem:
    kinds = ", ".join(sorted(CONFIG_MODELS))
    if kind is None:
        return Problem(key, "required, but not set", f"set {key}, or {variable(key)}, to one of: {kinds}", "not set")
    close = get_close_matches(kind, CONFIG_MODELS, n=1) if isinstance(kind, str) else []
    hint = f"did you mean {close[0]}? " if close else ""
    message = f"{shown(kind, tuple(key.split('.')))} is no kind of store"
    return Problem(key, message, f"{hint}the kinds are: {kinds}", merged.source_of(key))


def targets_against_policy(merged: Merged, targets: Mapping[str, TargetConfig]) -> Iterator[Problem]:
    """Unknown classes and tiers, and actions that a target can't carry out."""
    classes = section(merged, "policy", "classes")
    for name in section(merged, "targets"):
        class_name = section(merged, "targets", name).get("class")
        if isinstance(class_name, str) and class_name not in classes:
            key = f"targets.{name}.class"
            message = f"the policy has no class {shown(class_name, (key,))}"
            yield Problem(key, message, _choose(class_name, list(classes)), merged.source_of(key))
        yield from _unknown_tier(merged, f"targets.{name}.tier", section(merged, "targets", name).get("tier"))
    for name, target in targets.items():
        action = target.action or section(merged, "policy", "classes", target.class_name).get("action") or "delete"
        fault = target.refuse(action) if isinstance(action, str) else None
        if fault is not None:
            key = f"targets.{name}.action"
            yield Problem(key, fault.message, fault.remedy, merged.source_of(key))


def accounts_against_policy(merged: Merged) -> Iterator[Problem]:
    """Names of the directory that are mapped to a tier which the policy lacks."""
    for name, tier in section(merged, "accounts", "tier_map").items():
        yield from _unknown_tier(merged, f"accounts.tier_map.{name}", tier)


def _unknown_tier(merged: Merged, key: str, tier: object) -> Iterator[Problem]:
    tiers = section(merged, "policy").get("tiers")
    if isinstance(tier, str) and isinstance(tiers, list) and tier not in tiers:
        names = [name for name in tiers if isinstance(name, str)]
        message = f"the policy has no tier {shown(tier, (key,))}"
        yield Problem(key, message, _choose(tier, names), merged.source_of(key))


def _choose(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def two_targets_over_the_same_records(merged: Merged, targets: Mapping[str, TargetConfig]) -> Iterator[Problem]:
    """Two targets over the same records would erase by two terms."""
    for (name, target), (later, other) in combinations(targets.items(), 2):
        if target.overlaps(other):
            key = f"targets.{later}"
            message = f"it is over the same records as targets.{name}"
            part = "" if target.records() == other.records() else ", or give each records that the other has none of"
            yield Problem(key, message, f"keep one of targets.{name} and {key}{part}", merged.source_of(key))


def pairs(merged: Merged, targets: Mapping[str, TargetConfig]) -> Iterator[Problem]:
    """Targets that are paired with what is no table, or with one that another is paired with: keys have one meaning."""
    given, taken = section(merged, "targets"), dict[str, str]()
    for name, target in targets.items():
        other = getattr(target, "pairs_with", None)
        if other is not None and other in taken:
            key = f"targets.{name}.pairs_with"
            message = f"targets.{taken[other]} is paired with {shown(other, (key,))} already"
            remedy = "make a target over a table of its own, or a partition, for each bucket"
            yield Problem(key, message, remedy, merged.source_of(key))
        if other is not None:
            taken[other] = name
        if other is None or section(merged, "targets", other).get("store") == "postgres":
            continue
        key = f"targets.{name}.pairs_with"
        fault = "is no Postgres target" if other in given else "is no target"
        tables = [each for each in given if section(merged, "targets", each).get("store") == "postgres"]
        remedy = f"name one of {', '.join(tables)}" if tables else "add a target with store: postgres for the rows"
        yield Problem(key, f"{shown(other, (key,))} {fault}", remedy, merged.source_of(key))


def short_terms_allowed(merged: Merged) -> bool | None:
    """Whether terms under a day are allowed (`guards.allow_short_ttl`); None where that can't be read."""
    # This one key alone, so that a fault in another guard hides no short term.
    allow = {name: item for name, item in section(merged, "guards").items() if name == "allow_short_ttl"}
    try:
        return Guards.model_validate(allow).allow_short_ttl
    except ValidationError:
        return None


def short_terms(merged: Merged) -> Iterator[Problem]:
    """Terms under a day, which are likelier a slip (`PT90M` for `P90M`) than meant (4-safety, "Guards")."""
    if short_terms_allowed(merged) is not False:
        return  # a fault of it is reported with the other settings; which terms are short is said once it is mended
    for name in section(merged, "policy", "classes"):
        data_class = section(merged, "policy", "classes", name)
        for key, text in _leaves(f"policy.classes.{name}", {k: data_class.get(k) for k in ("ttl", "override")}):
            if _is_short(text):
                message = f"the term {text} is under a day"
                remedy = "write a longer one, or allow it with guards.allow_short_ttl: true"
                yield Problem(key, message, remedy, merged.source_of(key))


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(f"{key}.{name}", item)
    else:
        yield key, value


def _is_short(text: object) -> bool:
    try:
        term = parse_term(text) if isinstance(text, str) else None
    except DurationError:
        return False  # reported with the policy
    return isinstance(term, Duration) and term.nominal() < _DAY


def mode_needs(merged: Merged, needs: frozenset[str]) -> Iterator[Problem]:
    """What enforcing, and the command at hand, can't do without."""
    enforcing, source = merged.values.get("mode") == "enforce", merged.source_of("mode")
    durable = section(merged, "control").get("dsn") and section(merged, "ledger").get("key")
    if enforcing and not merged.values.get("state_dir") and not durable:
        message = "mode enforce keeps state that must outlive the process, and nothing says where"
        remedy = "set state_dir to an absolute folder that is kept, or set both control.dsn and ledger.key"
        yield Problem("state_dir", message, remedy, source)
    if not section(merged, "targets") and (enforcing or "targets" in needs):
        message = "mode enforce has no target to work on" if enforcing else "this command needs a target"
        remedy = "add one below targets: with store, class and where its records are; `retentiond discover` drafts them"
        yield Problem("targets", message, remedy, source if enforcing else "not set")
    if "accounts" in needs and not section(merged, "accounts"):
        remedy = "set accounts.dsn and accounts.table"
        yield Problem("accounts", "this command needs the account directory", remedy, "not set")
