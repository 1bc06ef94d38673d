"""Templates of keys: what a key tells of the account, the tier and the date of its object.

`builds/{account}/{date:%Y/%m/%d}/{file:path}`: text between fields stands for itself (a brace is written twice), a
plain field is one part of the key, `:path` is all the rest, `date:` has a form of fixed width. A wrong reading would
erase by somebody else's term, so a template by which one key could be read in two ways is refused, and not merely read
in one of them: a plain field never contains `/` nor the character that follows it, fields don't touch, and nothing but
text comes after a path. Each field then ends in one place only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, NoReturn

from retentiond.stores.config import Unfit
from retentiond.stores.dates import DateForm
from retentiond.stores.rulings import Account, Untold

ACCOUNT, TIER, DATE = "account", "tier", "date"

_FIELD: Final = re.compile(r"([a-z][a-z0-9_]*)(?::(.+))?", re.ASCII | re.DOTALL)
_REMEDY: Final = "write it as in {account}/{date:%Y/%m/%d}/{file:path}"
_DATES: Final = 4096


@dataclass(frozen=True, slots=True)
class Parts:
    """What one key says; `until` is the end of its date's day (hour, month, …) in UTC, `fields` has all as texts."""

    account: str | None
    tier: str | None
    until: datetime | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeyColumns:
    """What many keys say, a column each; `tiers` and `until` are None where the template has no such field."""

    accounts: list[Account]
    tiers: list[str | None] | None
    until: list[datetime | None] | None


@dataclass(frozen=True, slots=True)
class _Field:
    """A field, where it begins in the template, and the pattern of what it matches (empty: to be found)."""

    name: str
    position: int
    pattern: str = ""
    is_path: bool = False
    form: DateForm | None = None


class Template:
    """A template that is in order; made by `parse`. `names` are its fields, `head` is what every key begins with."""

    def __init__(self, text: str, prefix: str, pieces: Sequence[str | _Field]) -> None:
        fields = [piece for piece in pieces if isinstance(piece, _Field)]
        self.text = text
        self.names = tuple(each.name for each in fields)
        self.head = prefix + (pieces[0] if pieces and isinstance(pieces[0], str) else "")
        self._whole = re.compile(re.escape(prefix) + _pattern(pieces, self.names), re.DOTALL)
        self._used = re.compile(re.escape(prefix) + _pattern(pieces, (ACCOUNT, TIER, DATE)), re.DOTALL)
        forms = [each.form for each in fields if each.form is not None]
        # Keys of one day have the same text for it.
        self._until = lru_cache(_DATES)(forms[0].end) if forms else _no_date

    @classmethod
    def parse(cls, text: str, *, prefix: str = "") -> Template:
        """The template of a text, for what follows `prefix` in keys; raises Unfit with the position of the fault."""
        pieces = list(_pieces(text))
        names: set[str] = set()
        for piece in pieces:
            if isinstance(piece, _Field):
                if piece.name in names:
                    _refuse(f"the field {piece.name} stands twice", piece.position, "give each field a name of its own")
                names.add(piece.name)
        if not names:
            raise Unfit("the template has no field, so that it fits one key at most", _REMEDY)
        return cls(text, prefix, _bounded(pieces))

    def match(self, key: str) -> Parts | None:
        """What the key says; None where it does not fit, or has a date that there is not."""
        found = self._whole.fullmatch(key)
        if found is None:
            return None
        fields = found.groupdict()
        until = self._until(fields[DATE]) if DATE in fields else None
        if DATE in fields and until is None:
            return None
        return Parts(fields.get(ACCOUNT), fields.get(TIER), until, fields)

    def columns(self, keys: Sequence[str], *, account: str | None = None) -> KeyColumns:
        """What the keys say, as `match` does; `account` is whose they are where the template has no such field.

        A key that does not fit has `Untold.KEY` for its account.
        """
        match = self._used.fullmatch
        if self._used.groups == 1 and ACCOUNT in self.names:
            return KeyColumns([Untold.KEY if (m := match(key)) is None else m[1] for key in keys], None, None)
        names, of_date = self._used.groupindex, DATE in self.names
        accounts: list[Account] = []
        tiers: list[str | None] = []
        until: list[datetime | None] = []
        for key in keys:
            found = match(key)
            end = self._until(found[DATE]) if found is not None and of_date else None
            fits = found is not None and (end is not None or not of_date)
            accounts.append((found[ACCOUNT] if ACCOUNT in names else account) if found and fits else Untold.KEY)
            tiers.append(found[TIER] if found and fits and TIER in names else None)
            until.append(end)
        return KeyColumns(accounts, tiers if TIER in names else None, until if of_date else None)


def _no_date(_: str) -> datetime | None:
    return None


def _refuse(message: str, position: int, remedy: str = _REMEDY) -> NoReturn:
    raise Unfit(f"the template can't be used: {message} (at position {position})", remedy)


def _pieces(text: str) -> Iterator[str | _Field]:
    """Texts, none of them empty nor beside another, and fields."""
    at, literal = 0, ""
    while at < len(text):
        if text.startswith(("{{", "}}"), at):
            literal, at = literal + text[at], at + 2
        elif text[at] == "}":
            _refuse("a } that closes nothing", at, "write }} for the character itself")
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                _refuse("a { that nothing closes", at, "close the field with }, or write {{ for the character itself")
            if literal:
                yield literal
                literal = ""
            yield _read_field(text[at + 1 : end], at)
            at = end + 1
        else:
            literal, at = literal + text[at], at + 1
    if literal:
        yield literal


def _read_field(text: str, position: int) -> _Field:
    found = _FIELD.fullmatch(text)
    if found is None:
        _refuse(
            f"{{{text}}} is no field",
            position,
            "name it in lower-case letters, digits and _, as in {job} or {file:path}",
        )
    name, kind = found.groups()
    if name == DATE:
        form = DateForm.parse(kind or "", position + 1 + max(0, found.start(2)))
        return _Field(name, position, form.pattern, form=form)
    if kind is None:
        return _Field(name, position)
    if kind != "path":
        _refuse(
            f"there is no kind of field {kind!r}",
            position,
            "leave the kind out for one part of the key, or write :path",
        )
    if name in (ACCOUNT, TIER):
        _refuse(f"{name} is one part of the key, and no path", position, f"write {{{name}}}")
    return _Field(name, position, ".+", is_path=True)


def _bounded(pieces: Sequence[str | _Field]) -> list[str | _Field]:
    """The pieces, each plain field with what it may contain; refuses what could be read in two ways."""
    out: list[str | _Field] = []
    path: _Field | None = None
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        if isinstance(piece, str):
            out.append(piece)
            continue
        if path is not None:
            message = f"after the path {path.name} comes the field {piece.name}: keys could be read in two ways"
            _refuse(message, piece.position, "put the path last")
        if isinstance(following, _Field):
            message = f"nothing stands between {piece.name} and {following.name}: keys could be read in two ways"
            _refuse(message, following.position, "put a separator between them, such as /")
        path = piece if piece.is_path else None
        ends = "/" if following is None else f"/{following[0]}"
        out.append(piece if piece.pattern else replace(piece, pattern=f"[^{re.escape(ends)}]++"))
    return out


def _pattern(pieces: Sequence[str | _Field], captured: Sequence[str]) -> str:
    return "".join(
        re.escape(piece)
        if isinstance(piece, str)
        else f"(?P<{piece.name}>{piece.pattern})"
        if piece.name in captured
        else f"(?:{piece.pattern})"
        for piece in pieces
    )
