"""Legal holds: what one is, what its scope covers, and whether it matches a record.

Given dimensions of a scope are ANDed, the values in one are ORed. A dimension that can't be evaluated for a record
matches: where we don't know, we keep (2-semantics, "Holds"). Ids are compared as canonical text, which the store
makes in the column's own type (an upper-case UUID, `007` for an integer), so SQL and Python compare the same values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from retentiond.domain.duration import instant, rfc3339
from retentiond.errors import InvalidScope

_LISTS = ("accounts", "classes", "targets")
_MAPS = ("prefixes", "records")
_KEYS = frozenset({*_LISTS, *_MAPS, "since", "until", "everything"})


class HoldState(StrEnum):
    """`pending → active → releasing → released`; the first three hold."""

    PENDING = "pending"
    ACTIVE = "active"
    RELEASING = "releasing"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a hold covers. `since` is inclusive and `until` exclusive, over the anchor."""

    accounts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    records: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    everything: bool = False

    def __post_init__(self) -> None:
        """Refuse a scope that would silently hold all, or none; raises InvalidScope."""
        given = any((self.accounts, self.classes, self.targets, self.since, self.until, self.prefixes, self.records))
        if not given and not self.everything:
            raise InvalidScope(
                "the scope of the hold is empty",
                remedy="name accounts, classes, targets, records, prefixes or a time range; or say `everything`",
            )
        if given and self.everything:
            raise InvalidScope(
                "the scope says `everything` and also narrows it",
                remedy="leave out `everything`, or leave out all the rest",
            )
        if self.since and self.until and self.since >= self.until:
            raise InvalidScope("`since` is not before `until`", remedy="`since` is inclusive, `until` exclusive")

    @property
    def listed(self) -> frozenset[str]:
        """The targets that `records` and `prefixes` name."""
        return frozenset(self.prefixes) | frozenset(self.records)

    def document(self) -> dict[str, object]:
        """The scope as JSON: only what was given."""
        out: dict[str, object] = {name: list(getattr(self, name)) for name in _LISTS if getattr(self, name)}
        for name in _MAPS:
            if value := getattr(self, name):
                out[name] = {target: list(items) for target, items in sorted(value.items())}
        if self.since:
            out["since"] = rfc3339(self.since)
        if self.until:
            out["until"] = rfc3339(self.until)
        if self.everything:
            out["everything"] = True
        return out

    @classmethod
    def from_document(cls, doc: Mapping[str, object]) -> Scope:
        """The scope of a JSON document; raises InvalidScope naming the field at fault."""
        if unknown := sorted(set(doc) - _KEYS):
            raise InvalidScope(
                f"unknown field of a scope: {', '.join(unknown)}", remedy=f"known are {', '.join(sorted(_KEYS))}"
            )
        return cls(
            accounts=_texts("accounts", doc.get("accounts")),
            classes=_texts("classes", doc.get("classes")),
            targets=_texts("targets", doc.get("targets")),
            since=_moment("since", doc.get("since")),
            until=_moment("until", doc.get("until")),
            prefixes=_mapping("prefixes", doc.get("prefixes")),
            records=_mapping("records", doc.get("records")),
            everything=_flag(doc.get("everything")),
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as the control database has it; all instants in UTC. `native`: stores that can are to keep it too.

    `release_requested_…` is the first of two people's word, where a release takes two.
    """

    id: str
    matter: str
    reason: str
    scope: Scope
    state: HoldState
    placed_by: str
    placed_at: datetime
    effective_at: datetime | None = None
    review_by: datetime | None = None
    notice: str | None = None
    released_by: str | None = None
    released_at: datetime | None = None
    release_reason: str | None = None
    erasable_at: datetime | None = None
    native: bool = False
    release_requested_by: str | None = None
    release_requested_at: datetime | None = None
    release_requested_reason: str | None = None

    @property
    def holds(self) -> bool:
        """Whether it still holds: also pending, and in its release grace."""
        return self.state is not HoldState.RELEASED

    def document(self) -> dict[str, object]:
        """The hold as `--json` and the API show it."""
        return {
            "id": self.id,
            "state": str(self.state),
            "effective_at": _shown(self.effective_at),
            "matter": self.matter,
            "reason": self.reason,
            "scope": self.scope.document(),
            "placed_by": self.placed_by,
            "placed_at": _shown(self.placed_at),
            "review_by": _shown(self.review_by),
            "notice": self.notice,
            "released_by": self.released_by,
            "released_at": _shown(self.released_at),
            "release_reason": self.release_reason,
            "erasable_at": _shown(self.erasable_at),
            "native": self.native,
            "release_requested_by": self.release_requested_by,
            "release_requested_at": _shown(self.release_requested_at),
            "release_requested_reason": self.release_requested_reason,
        }


@dataclass(frozen=True, slots=True)
class TargetHold:
    """A hold as it bears on one target: what of its scope is left to evaluate for each record.

    `accounts`, `records` are in the canonical text of the target's columns; None means that the dimension was not
    given or can't be evaluated here (then it matches every record).
    """

    hold_id: str
    accounts: frozenset[str] | None = None
    records: frozenset[str] | None = None
    prefixes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def by_item(self) -> bool:
        """Whether single records of this target are named."""
        return self.records is not None or bool(self.prefixes)

    def matches(self, *, account: str | None, key: str, anchor: datetime | None) -> bool:
        """Whether the hold covers this record; a null account is nobody's, a null anchor is inside every range."""
        if self.accounts is not None and (account is None or account not in self.accounts):
            return False
        if self.by_item and key not in (self.records or ()) and not key.startswith(self.prefixes):
            return False
        if anchor is None:
            return True
        if self.since is not None and anchor < self.since:
            return False
        return self.until is None or anchor < self.until


def covers_target(scope: Scope, *, target: str, class_name: str) -> bool:
    """Whether any record of the target can be in the scope at all."""
    if scope.classes and class_name not in scope.classes:
        return False
    if scope.targets and target not in scope.targets:
        return False
    return not scope.listed or target in scope.listed


def _shown(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None


def _texts(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidScope(f"`{name}` is not a list", remedy=f'write "{name}": ["…"]')
    items = tuple(value)
    for item in items:
        if not isinstance(item, str) or not item or "\x00" in item:
            raise InvalidScope(f"`{name}` has {item!r}, which is not a text", remedy="ids are given as text, not empty")
    return items


def _mapping(name: str, value: object) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidScope(f"`{name}` is not a mapping of targets", remedy=f'write "{name}": {{"TARGET": ["…"]}}')
    out = {str(target): _texts(f"{name}.{target}", items) for target, items in value.items()}
    if empty := [target for target, items in out.items() if not items]:
        raise InvalidScope(f"`{name}.{empty[0]}` is empty", remedy="name at least one, or leave the target out")
    return out


def _moment(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidScope(f"`{name}` is not an instant", remedy="write RFC 3339, such as 2026-01-31T00:00:00Z")
    return instant(value)


def _flag(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidScope("`everything` is neither true nor false", remedy="write true, or leave it out")
