"""The policy: tiers, classes of data and their terms, read from a document into frozen values, with every fault named.

Reading is strict, because a misread policy destroys data: nothing is guessed, no key is ignored, and a fault in one
class does not hide those in another. The document is what `settings` merged; this module knows nothing of files or
variables, so a Problem names the dotted key and leaves its source empty for `settings` to fill in.

A class that no target uses may be incomplete (3-interface, "Configuration"), but what it does say must be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, Literal, cast

from retentiond.domain.duration import FOREVER, Duration, Term, nominal, parse_term, shorter
from retentiond.errors import DurationError, Problem

After = Literal["anchor", "account_deleted"]
Action = Literal["delete", "anonymise", "archive"]

ACTIONS: Final[tuple[str, ...]] = ("delete", "anonymise", "archive")
AFTER: Final[tuple[str, ...]] = ("anchor", "account_deleted")
LONGEST: Final = "longest"

_POLICY_KEYS: Final = (
    "base", "tiers", "downgrade_grace", "deletion_grace", "unknown_tier", "no_account", "classes",
)  # fmt: skip
_CLASS_KEYS: Final = ("ttl", "override", "minimum", "after", "action")
_BOUND_KEYS: Final = ("min", "max")
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_GRACE: Final = Duration(days=30)
_DAY: Final = Duration(days=1)
_TERM_REMEDY: Final = "write an ISO 8601 duration such as P90D, P7Y, P1Y6M10D, PT36H or P2W, or `forever`"
_NAME_REMEDY: Final = "use lower-case letters, digits, _ and -, beginning with a letter, at most 63 of them"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which terms an account's override must lie, both inclusive; None: not bounded on that side."""

    minimum: Term | None
    maximum: Term | None

    def admit(self, term: Term) -> bool:
        """Whether the term lies within, by nominal length."""
        if self.minimum is not None and shorter(term, self.minimum):
            return False
        return self.maximum is None or not shorter(self.maximum, term)


@dataclass(frozen=True, slots=True)
class DataClass:
    """One class: its term for each tier (complete where a target uses it) and what else decides over its records.

    `uniform`: the term is one value whatever the tier. `bounds`: tier to the bounds of overrides, a tier that is absent
    having none. `minimum`: a legal minimum. `after`: what the term counts from. `action`: the class's default.
    """

    name: str
    terms: Mapping[str, Term]
    uniform: bool
    bounds: Mapping[str, Bounds]
    minimum: bool
    after: After
    action: Action | None

    def candidates(self) -> tuple[Term, ...]:
        """Every term that a record of the class may have by tier or by the maximum of an override, shortest first."""
        maxima = (FOREVER if bound.maximum is None else bound.maximum for bound in self.bounds.values())
        distinct = {str(term): term for term in (*self.terms.values(), *maxima)}
        return tuple(sorted(distinct.values(), key=lambda term: (nominal(term), str(term))))

    def document(self) -> dict[str, object]:
        """The class as canonical, JSON-able values."""
        return {
            "terms": {tier: str(term) for tier, term in sorted(self.terms.items())},
            "uniform": self.uniform,
            "bounds": {
                tier: {"min": _text(bound.minimum), "max": _text(bound.maximum)}
                for tier, bound in sorted(self.bounds.items())
            },
            "minimum": self.minimum,
            "after": self.after,
            "action": self.action,
        }


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy. `downgrade_grace` None: no grace; `no_account` None: the longest term of the class."""

    tiers: tuple[str, ...]
    classes: Mapping[str, DataClass]
    downgrade_grace: Duration | None
    deletion_grace: Duration
    unknown_tier: str
    no_account: str | None

    def document(self) -> dict[str, object]:
        """The policy as canonical, JSON-able values: what its digest is made of. Equal policies, equal documents."""
        return {
            "tiers": list(self.tiers),
            "classes": {name: data_class.document() for name, data_class in self.classes.items()},
            "downgrade_grace": _text(self.downgrade_grace),
            "deletion_grace": str(self.deletion_grace),
            "unknown_tier": self.unknown_tier,
            "no_account": self.no_account,
        }


def parse_policy(
    doc: Mapping[str, object], *, used_classes: frozenset[str], allow_short: bool = False
) -> tuple[Policy | None, tuple[Problem, ...]]:
    """The policy that a document gives, and all its faults; no policy where there is any fault.

    `used_classes` are those that targets have: they need a term for every tier. One of them the policy lacks is not
    reported here, since the fault lies with the target's own key. Unless `allow_short` says so, an override whose
    bounds have no `min` may not be under a day: it is written by accounts, whose slips nobody else sees.
    """
    reader = _Reader(None if allow_short else _DAY)
    policy = _policy(reader, doc, used_classes)
    return (None if reader.problems else policy), tuple(reader.problems)


class _Reader:
    """Reads values of a document and collects the faults. A method that finds one returns None."""

    def __init__(self, shortest_override: Duration | None) -> None:
        self.problems: list[Problem] = []
        self.shortest_override = shortest_override

    def fault(self, key: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(key, message, remedy))

    def unknown(self, key: str, name: object, known: Iterable[str], what: str = "key") -> None:
        choices = tuple(known)
        close = get_close_matches(str(name), choices, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        self.fault(f"{key}.{name}", f"there is no {what} {str(name)!r} here", f"{hint}known: {', '.join(choices)}")

    def mapping(
        self, key: str, value: object, known: Iterable[str] | None = None, what: str = "key"
    ) -> dict[str, object]:
        """A mapping, less the keys that are not known (each a fault); empty where it is none."""
        if not isinstance(value, Mapping):
            self.fault(key, f"a mapping was expected, not {_kind(value)}", "give it keys with values below it")
            return {}
        if known is None:
            return {str(name): item for name, item in value.items()}
        for name in value:
            if name not in tuple(known):
                self.unknown(key, name, known, what)
        return {name: value[name] for name in known if name in value}

    def term(self, key: str, value: object) -> Term | None:
        if not isinstance(value, str):
            self.fault(key, f"a duration was expected, not {_kind(value)}", _TERM_REMEDY)
            return None
        try:
            return parse_term(value)
        except DurationError as error:
            self.fault(key, error.message, _TERM_REMEDY)
            return None

    def duration(self, key: str, value: object, *, forever_means: str) -> Duration | None:
        if value == str(FOREVER):
            self.fault(key, "forever is no length of a grace", forever_means)
            return None
        term = self.term(key, value)
        return term if isinstance(term, Duration) else None

    def choice(self, key: str, value: object, choices: tuple[str, ...]) -> str | None:
        if isinstance(value, str) and value in choices:
            return value
        close = get_close_matches(value, choices, n=1) if isinstance(value, str) else []
        hint = f"did you mean {close[0]}? " if close else ""
        shown = repr(value) if isinstance(value, str) else _kind(value)
        self.fault(key, f"{shown} is not one of {', '.join(choices)}", f"{hint}use one of {', '.join(choices)}")
        return None

    def boolean(self, key: str, value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"  # a single environment variable has only text
        self.fault(key, f"true or false was expected, not {_kind(value)}", "write true or false")
        return False


def _policy(reader: _Reader, doc: Mapping[str, object], used: frozenset[str]) -> Policy:
    found = reader.mapping("policy", doc, _POLICY_KEYS)
    tiers = _tiers(reader, found.get("tiers"))
    classes = _classes(reader, found.get("classes"), tiers, used)
    deletion_grace = _GRACE
    if (value := found.get("deletion_grace")) is not None:
        remedy = "give the days within which a deletion can be undone, such as P30D"
        deletion_grace = reader.duration("policy.deletion_grace", value, forever_means=remedy) or _GRACE
    unknown_tier: str | None = LONGEST
    if (value := found.get("unknown_tier")) is not None:
        unknown_tier = reader.choice("policy.unknown_tier", value, (LONGEST, *tiers))
    no_account = None
    if (value := found.get("no_account")) not in (None, LONGEST):
        no_account = reader.choice("policy.no_account", value, (*tiers, LONGEST))
    return Policy(
        tiers=tiers,
        classes=MappingProxyType(classes),
        downgrade_grace=_downgrade_grace(reader, found),
        deletion_grace=deletion_grace,
        unknown_tier=unknown_tier or LONGEST,
        no_account=no_account,
    )


def _downgrade_grace(reader: _Reader, found: Mapping[str, object]) -> Duration | None:
    key = "policy.downgrade_grace"
    value = found.get("downgrade_grace")
    if value is None:
        return _GRACE
    if value in ("none", "0") or (value == 0 and not isinstance(value, bool)):
        return None
    remedy = "to let nobody's term ever shrink, give all tiers the same TTL; `none` switches the grace off"
    return reader.duration(key, value, forever_means=remedy)


def _tiers(reader: _Reader, value: object) -> tuple[str, ...]:
    key, remedy = "policy.tiers", "list the plans that accounts can be on, such as [free, pro, enterprise]"
    if not isinstance(value, (list, tuple)) or not value:
        empty = value is None or isinstance(value, (list, tuple))
        reader.fault(key, "there is no tier" if empty else f"a list was expected, not {_kind(value)}", remedy)
        return ()
    tiers: list[str] = []
    for index, name in enumerate(value):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            reader.fault(f"{key}.{index}", f"{name!r} can't be the name of a tier", _NAME_REMEDY)
        elif name == LONGEST:
            reader.fault(f"{key}.{index}", "`longest` is a rule and can't name a tier", "give the tier another name")
        elif name in tiers:
            reader.fault(f"{key}.{index}", f"the tier {name} is listed twice", "list each tier once")
        else:
            tiers.append(name)
    return tuple(tiers)


def _classes(reader: _Reader, value: object, tiers: tuple[str, ...], used: frozenset[str]) -> dict[str, DataClass]:
    key = "policy.classes"
    if value is None or value == {}:
        remedy = "give at least one class with a ttl, or leave out `policy.base: none` to keep the shipped default"
        reader.fault(key, "the policy is empty: it has no class", remedy)
        return {}
    classes: dict[str, DataClass] = {}
    for name, item in sorted(reader.mapping(key, value).items()):
        if not _NAME.fullmatch(name):
            reader.fault(f"{key}.{name}", f"{name!r} can't be the name of a class", _NAME_REMEDY)
            continue
        classes[name] = _data_class(reader, name, item, tiers, used=name in used)
    return classes


def _data_class(reader: _Reader, name: str, value: object, tiers: tuple[str, ...], *, used: bool) -> DataClass:
    key = f"policy.classes.{name}"
    found = reader.mapping(key, value, _CLASS_KEYS)
    after, action = found.get("after"), found.get("action")
    minimum = found.get("minimum")
    terms, uniform = _terms(reader, f"{key}.ttl", found.get("ttl"), tiers, used=used)
    data_class = DataClass(
        name=name,
        terms=MappingProxyType(terms),
        uniform=uniform,
        bounds=MappingProxyType(_overrides(reader, f"{key}.override", found.get("override"), tiers)),
        minimum=False if minimum is None else reader.boolean(f"{key}.minimum", minimum),
        after=cast("After", (after is not None and reader.choice(f"{key}.after", after, AFTER)) or "anchor"),
        action=cast("Action | None", reader.choice(f"{key}.action", action, ACTIONS) if action is not None else None),
    )
    _refuse_overrides_below_a_legal_minimum(reader, key, data_class)
    return data_class


def _terms(
    reader: _Reader, key: str, value: object, tiers: tuple[str, ...], *, used: bool
) -> tuple[dict[str, Term], bool]:
    """The terms by tier, and whether they were given as one value."""
    if value is None:
        if used:
            reader.fault(
                key, "a target uses this class, but it has no TTL", f"give one TTL, or one per tier; {_TERM_REMEDY}"
            )
        return {}, False
    if not isinstance(value, Mapping):
        term = reader.term(key, value)
        return (dict.fromkeys(tiers, term) if term is not None else {}), True
    given = reader.mapping(key, value, tiers, "tier")
    read = {tier: reader.term(f"{key}.{tier}", item) for tier, item in given.items()}
    for tier in tiers:
        if used and tier not in given:
            message = f"a target uses this class, but it has no TTL for the tier {tier}"
            reader.fault(f"{key}.{tier}", message, f"add {tier}: and a TTL; {_TERM_REMEDY}")
    return {tier: term for tier, term in read.items() if term is not None}, False


def _overrides(reader: _Reader, key: str, value: object, tiers: tuple[str, ...]) -> dict[str, Bounds]:
    if value is None:
        return {}
    bounds: dict[str, Bounds] = {}
    for tier, item in reader.mapping(key, value, tiers, "tier").items():
        if item is None:
            continue  # a later source takes the right to an override away again
        given = reader.mapping(f"{key}.{tier}", item, _BOUND_KEYS)
        ends = {
            end: reader.term(f"{key}.{tier}.{end}", given[end]) if given.get(end) is not None else None
            for end in _BOUND_KEYS
        }
        least, most = ends["min"], ends["max"]
        if least is not None and most is not None and shorter(most, least):
            message = f"the minimum {least} is longer than the maximum {most}: no override could be valid"
            reader.fault(f"{key}.{tier}", message, "make min the shorter one")
        bounds[tier] = Bounds(least or reader.shortest_override, most)
    return bounds


def _refuse_overrides_below_a_legal_minimum(reader: _Reader, key: str, data_class: DataClass) -> None:
    """An account must not be able to shorten what the law asks for: its override may only lengthen the term."""
    for tier, bound in data_class.bounds.items():
        term = data_class.terms.get(tier)
        if not data_class.minimum or term is None or (bound.minimum and not shorter(bound.minimum, term)):
            continue
        message = f"an override could cut the legal minimum of {term} short"
        reader.fault(f"{key}.override.{tier}", message, f"add min: {term}, or take the override out")


def _kind(value: object) -> str:
    """What a value is, in words, without printing it."""
    if value is None:
        return "nothing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)


def _text(term: Term | None) -> str | None:
    return None if term is None else str(term)
