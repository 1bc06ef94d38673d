"""What lines say of themselves: columns of dates, accounts and tiers; JSON here, formats of plain text in `texts`.

Only the fields that are needed are read: each line is decoded into a struct of just those, and where that fails for one
of a block its lines are decoded whole, so that a line at fault costs its block some time and nothing else. A block is
never decoded as a stream of objects: a line with two of them, beside an empty one, would give each line another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import attrgetter
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from retentiond.stores.files.anchors import Anchors
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.rulings import Account, Untold

_Aware = Annotated[datetime, Meta(tz=True)]
_Naive = Annotated[datetime, Meta(tz=False)]
_Text = str | int | None | UnsetType


@dataclass(frozen=True, slots=True)
class Columns:
    """What the lines of a block say, as columns of one length; without `tiers` they say none of their own."""

    anchors: Sequence[datetime | None]
    accounts: Sequence[Account]
    tiers: Sequence[str | None] | None = None


class Format(Protocol):
    """How the lines of a target read."""

    def columns(self, content: bytes, lines: Sequence[bytes]) -> Columns:
        """What these lines say; `content` is all of them, each with its end."""

    def fields(self, line: bytes) -> dict[str, Any] | None:
        """All fields of a line by their names; None where it can't be read."""

    def changed(self, line: bytes, values: dict[str, Any], dropped: Sequence[str]) -> bytes:
        """The line with other values in these fields, and without the dropped ones; raises ValueError."""


class JsonLines:
    """Lines that are JSON objects."""

    def __init__(self, config: FilesTarget, anchors: Anchors) -> None:
        self._anchors, self._optional = anchors, config.account_optional
        named = {"anchor": config.anchor, "account": config.account, "tier": config.tier_field}
        self._paths = {each: name.split(".") for each, name in named.items() if name is not None}
        kinds: list[Any] = [_Aware, _Naive] if config.unit is None else []
        self._quick: list[tuple[msgspec.json.Decoder[Any], bool]] = [
            (msgspec.json.Decoder(self._struct(kind)), kind is _Naive) for kind in kinds
        ]
        if config.unit is not None:
            self._numbers: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._struct(int | float))
        self._unit = config.unit
        self._any = msgspec.json.Decoder()
        self._get = {
            each: attrgetter(".".join(f"f_{part}" for part in _safe(path))) for each, path in self._paths.items()
        }

    def columns(self, content: bytes, lines: Sequence[bytes]) -> Columns:
        """See `Format`."""
        del content  # see above
        found = self._at_once(lines)
        return found if found is not None else self._one_by_one(lines)

    def _at_once(self, lines: Sequence[bytes]) -> Columns | None:
        """All lines by the same struct; None where one of them is not as most are."""
        if self._unit is not None:
            rows = _decoded(self._numbers, lines)
            if rows is None:
                return None
            return self._told(rows, [self._anchors.of(each) for each in map(self._get["anchor"], rows)])
        for at, (decoder, naive) in enumerate(self._quick):
            rows = _decoded(decoder, lines)
            if rows is None:
                continue
            if at:
                self._quick.insert(0, self._quick.pop(at))
            anchors = list(map(self._get["anchor"], rows))
            return self._told(rows, self._anchors.located(anchors) if naive else anchors)
        return None

    def _told(self, rows: Sequence[Any], anchors: Sequence[datetime | None]) -> Columns | None:
        try:
            accounts: Sequence[Any] = (
                list(map(self._get["account"], rows)) if "account" in self._get else [None] * len(rows)
            )
            tiers: Sequence[Any] | None = list(map(self._get["tier"], rows)) if "tier" in self._get else None
        except AttributeError:  # an object that the field would be in is null or lacking
            return None
        return Columns(anchors, self._accounts(accounts), None if tiers is None else [_tier(each) for each in tiers])

    def _accounts(self, values: Sequence[Any]) -> Sequence[Account]:
        kinds = set(map(type, values))
        if kinds <= {str, type(None)}:
            return values
        return [self._account(each) for each in values]

    def _account(self, value: object) -> Account:
        if value is UNSET:
            return None if self._optional else Untold.FIELD
        if value is None or isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else Untold.LINE

    def _one_by_one(self, lines: Sequence[bytes]) -> Columns:
        anchors: list[datetime | None] = []
        accounts: list[Account] = []
        tiers: list[str | None] = []
        for line in lines:
            found = self.fields(line)
            if found is None:
                anchors.append(None)
                accounts.append(Untold.LINE)
                tiers.append(None)
                continue
            anchors.append(self._anchors.of(self._value(found, "anchor")))
            accounts.append(self._account(self._value(found, "account")) if "account" in self._paths else None)
            tiers.append(_tier(self._value(found, "tier")) if "tier" in self._paths else None)
        return Columns(anchors, accounts, tiers if "tier" in self._paths else None)

    def _value(self, found: dict[str, Any], which: str) -> object:
        return value_at(found, self._paths[which])

    def fields(self, line: bytes) -> dict[str, Any] | None:
        """See `Format`; fields of an object in it are in that object."""
        try:
            found = self._any.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def changed(self, line: bytes, values: dict[str, Any], dropped: Sequence[str]) -> bytes:
        """See `Format`; a field that a line lacks stays lacking."""
        found = self.fields(line)
        if found is None:
            raise ValueError("not JSON")
        for name, value in values.items():
            _set(found, name.split("."), value)
        for name in dropped:
            _set(found, name.split("."), UNSET)
        return msgspec.json.encode(found)

    def _struct(self, anchor: Any) -> type:
        """A struct of just the fields that are needed, nested where their names are."""
        tree: dict[str, Any] = {}
        for which, path in self._paths.items():
            inner = reduce(lambda within, part: within.setdefault(part, {}), path[:-1], tree)
            inner[path[-1]] = anchor if which == "anchor" else _Text
        return _made(tree)


def value_at(found: object, path: Sequence[str]) -> object:
    """What stands there in nested objects; UNSET where nothing does."""
    for part in path:
        if not isinstance(found, dict):
            return UNSET
        found = found.get(part, UNSET)
    return found


def _set(found: object, path: Sequence[str], value: object) -> None:
    for part in path[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, dict) and path[-1] in found:
        if value is UNSET:
            del found[path[-1]]
        else:
            found[path[-1]] = value


def _decoded(decoder: msgspec.json.Decoder[Any], lines: Sequence[bytes]) -> list[Any] | None:
    """The object of each line; a line that is not exactly one object is refused."""
    try:
        return list(map(decoder.decode, lines))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _tier(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _safe(path: Sequence[str]) -> list[str]:
    """The parts of a path as names of attributes."""
    return ["".join(c if c.isalnum() and c.isascii() else f"_{ord(c):x}_" for c in part) for part in path]


def _made(tree: dict[str, Any]) -> type:
    fields: list[Any] = []
    renamed = {}
    for name, kind in tree.items():
        safe = f"f_{_safe([name])[0]}"
        renamed[safe] = name
        inner = _made(kind) if isinstance(kind, dict) else kind
        is_anchor = kind in (_Aware, _Naive) or kind == int | float
        fields.append((safe, inner) if isinstance(kind, dict) or is_anchor else (safe, inner, UNSET))
    fields.sort(key=len)
    return msgspec.defstruct("Line", fields, rename=renamed, gc=False)
