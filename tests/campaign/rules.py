"""The promise, written a second time for the oracle: which records are due, and which a hold covers.

Nothing of the product is imported here: a rule that both got from one place could be wrong in both. It is simpler than
the product's, because the campaign's policy is: terms in days, no overrides, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

FOREVER = None
TERMS: dict[str, dict[str, int | None]] = {
    "logs": {"free": 30, "pro": 90, "enterprise": 365},
    "mail": {"free": 60, "pro": 365, "enterprise": FOREVER},
}
"""Class → tier → days."""

TIERS = ("free", "pro", "enterprise")
NOBODYS_TIER = "free"
DELETION_GRACE = timedelta(days=30)


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A table of the campaign."""

    name: str
    database: str
    class_: str
    key: tuple[str, ...] = ("id",)
    anchor: str = "created_at"
    action: str = "delete"

    def __repr__(self) -> str:
        return self.name

    def record(self, row: Mapping[str, str | None]) -> Record:
        """A row (the texts of its columns) as a record."""
        parts = [str(row[name]) for name in self.key]
        key = parts[0] if len(parts) == 1 else json.dumps(parts, separators=(",", ":"))
        return Record(self, key, row["account_id"], self._moment(row[self.anchor]), self._is_done(row))

    def _moment(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        if self.anchor == "at_ms":
            return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(text))
        return datetime.fromisoformat(text)

    def _is_done(self, row: Mapping[str, str | None]) -> bool:
        return self.action == "anonymise" and row["account_id"] is None and row["ip"] is None


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a row was at an instant; `done`: it is anonymised already."""

    target: Target
    key: str
    account: str | None
    anchor: datetime | None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """What the directory says of an account; `in_grace`: its tier changed of late, so that the longest term applies."""

    tier: str
    deleted_at: datetime | None = None
    in_grace: bool = False


TARGETS = {
    target.name: target
    for target in (
        Target("plain", "app", "logs"),
        Target("watched", "app", "logs"),
        Target("sharded", "app", "logs"),
        Target("pairs", "app", "mail", key=("tenant", "n"), anchor="at_ms"),
        Target("masked", "app", "mail", action="anonymise"),
        Target("far", "far", "logs"),
    )
}


def is_due(record: Record, account: Account | None, at: datetime) -> bool:
    """Whether the record's time is over at that instant; `account` is None where the directory has none of that id."""
    if record.done:
        return False
    deleted = account.deleted_at if record.account is not None and account is not None else None
    if deleted is not None and deleted + DELETION_GRACE < at:
        return True
    term = _term(record, account)
    return term is not FOREVER and record.anchor is not None and record.anchor + timedelta(days=term) < at


def _term(record: Record, account: Account | None) -> int | None:
    terms = TERMS[record.target.class_]
    if record.account is None:
        return terms[NOBODYS_TIER]
    if account is not None and not account.in_grace:
        return terms[account.tier]
    return FOREVER if FOREVER in terms.values() else max(days for days in terms.values() if days is not None)


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as the product told it; it binds from `effective_at` until `erasable_at`, None being for ever."""

    id: str
    scope: Mapping[str, Any]
    state: str
    effective_at: datetime | None
    erasable_at: datetime | None = None

    def binds(self, at: datetime) -> bool:
        """Whether it has to be minded at that instant."""
        if self.effective_at is None or at <= self.effective_at:
            return False
        return self.erasable_at is None or at < self.erasable_at

    def covers(self, record: Record) -> bool:
        """Whether the record is in its scope: all that is given must match, and a record without an anchor is in time."""
        scope, target = self.scope, record.target
        if scope.get("accounts") and record.account not in scope["accounts"]:
            return False
        if scope.get("classes") and target.class_ not in scope["classes"]:
            return False
        if scope.get("targets") and target.name not in scope["targets"]:
            return False
        if scope.get("records") and not _listed(scope["records"], record):
            return False
        since, until = (instant(scope.get(name)) for name in ("since", "until"))
        if record.anchor is not None and since is not None and record.anchor < since:
            return False
        return not (record.anchor is not None and until is not None and record.anchor >= until)


def _listed(records: Mapping[str, Sequence[str]], record: Record) -> bool:
    return record.key in records.get(record.target.name, ())


def instant(text: str | None) -> datetime | None:
    """An RFC 3339 instant of the product's answers."""
    return None if text is None else datetime.fromisoformat(text)
