"""Lines of plain text: `logfmt`, the combined format of nginx and Apache, and a pattern of one's own.

A field that stands twice in a line, or a line that does not fit as a whole, is not read: who can write into a log must
not be able to give a line another owner. Texts that are not UTF-8 are kept as they are.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from retentiond.stores.files.anchors import Anchors
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.formats import Columns, Format, JsonLines
from retentiond.stores.rulings import Account, Untold

_NOTHING: Final = frozenset({"", "-"})
_PAIR: Final = re.compile(rb'[ \t]*([^\s="]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*)))?(?=[ \t]|\Z)')
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
# Apache's documentation, "Combined Log Format"; nginx, `log_format combined`. Inside quotes both escape a quote.
_COMBINED: Final = re.compile(
    rb"(?P<remote_addr>\S+) (?P<_ident>\S+) (?P<remote_user>.*?) \[(?P<time_local>[^\]\[]+)\]"
    rb' "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-) (?P<body_bytes_sent>\d+|-)'
    rb'(?: "(?P<http_referer>(?:[^"\\]|\\.)*)" "(?P<http_user_agent>(?:[^"\\]|\\.)*)")?(?P<_rest> .*)?'
)

Spans = Mapping[str, tuple[int, int]]
"""Where in a line the values of its fields stand."""


class Texts(ABC):
    """What formats of text have in common; a format says where the values stand, and how one is read and written."""

    def __init__(self, config: FilesTarget, anchors: Anchors) -> None:
        self._anchors, self._optional = anchors, config.account_optional
        self._anchor, self._account, self._tier = config.anchor, config.account, config.tier_field

    @abstractmethod
    def spans(self, line: bytes) -> Spans | None:
        """Where the values of the fields stand, without quotes; None where the line does not fit."""

    def read(self, value: bytes) -> str | None:
        """The text of a value; None where it stands for nothing."""
        text = value.decode(errors="surrogateescape")
        return None if text in _NOTHING else text

    def written(self, value: object) -> bytes:
        """A value as it stands in a line, where the old one stood; raises ValueError where it can't be."""
        text = ("-" if value is None else str(value)).encode(errors="surrogateescape")
        if re.search(rb'[\s"\\]', text):
            raise ValueError("a value with blanks or quotes can't be written here")
        return text

    def columns(self, content: bytes, lines: Sequence[bytes]) -> Columns:
        """See `Format`."""
        del content
        rows = [(line, self.spans(line)) for line in lines]
        tier = self._tier
        return Columns(
            [None if at is None else self._anchors.of(self._value(line, at, self._anchor)) for line, at in rows],
            [self._account_of(line, at) for line, at in rows],
            None if tier is None else [None if at is None else self._value(line, at, tier) for line, at in rows],
        )

    def fields(self, line: bytes) -> dict[str, Any] | None:
        """See `Format`."""
        at = self.spans(line)
        return None if at is None else {name: self.read(line[begin:end]) for name, (begin, end) in at.items()}

    def changed(self, line: bytes, values: dict[str, Any], dropped: Sequence[str]) -> bytes:
        """See `Format`; dropping makes a value nothing, unless the format has names in its lines."""
        at = self.spans(line)
        if at is None:
            raise ValueError("the line does not fit")
        for name in sorted((each for each in values if each in at), key=lambda each: at[each], reverse=True):
            begin, end = at[name]
            line = line[:begin] + self.written(values[name]) + line[end:]
        return self.without(line, dropped) if dropped else line

    @abstractmethod
    def without(self, line: bytes, dropped: Sequence[str]) -> bytes:
        """The line without these fields."""

    def _value(self, line: bytes, at: Spans, name: str) -> str | None:
        found = at.get(name)
        return None if found is None else self.read(line[found[0] : found[1]])

    def _account_of(self, line: bytes, at: Spans | None) -> Account:
        if at is None:
            return Untold.LINE
        if self._account is None:
            return None
        if self._account not in at and not self._optional:
            return Untold.FIELD
        return self._value(line, at, self._account)


class Logfmt(Texts):
    """`key=value` pairs, values in quotes where they have blanks."""

    def spans(self, line: bytes) -> Spans | None:
        """See `Texts`."""
        at: dict[str, tuple[int, int]] = {}
        end, size = 0, len(line.rstrip())
        while end < size:
            found = _PAIR.match(line, end)
            if found is None:
                return None
            end = found.end()
            name = found[1].decode(errors="surrogateescape")
            if name in at:
                return None
            group = 2 if found[2] is not None else 3
            at[name] = found.span(group) if found[group] is not None else (end, end)
        return at or None

    def read(self, value: bytes) -> str | None:
        """See `Texts`."""
        return super().read(_ESCAPED.sub(rb"\1", value) if b"\\" in value else value)

    def written(self, value: object) -> bytes:
        """See `Texts`; nothing is an empty value."""
        return b"" if value is None else super().written(value)

    def without(self, line: bytes, dropped: Sequence[str]) -> bytes:
        """See `Texts`."""
        kept, end, size = [], 0, len(line.rstrip())
        while end < size:
            found = _PAIR.match(line, end)
            if found is None:
                raise ValueError("the line does not fit")
            end = found.end()
            if found[1].decode(errors="surrogateescape") not in dropped:
                kept.append(found[0].strip())
        return b" ".join(kept)


class Pattern(Texts):
    """Lines that fit a pattern as a whole, with named groups."""

    def __init__(self, config: FilesTarget, anchors: Anchors, pattern: re.Pattern[bytes]) -> None:
        super().__init__(config, anchors)
        self._pattern = pattern
        self._names = tuple(pattern.groupindex)

    def spans(self, line: bytes) -> Spans | None:
        """See `Texts`."""
        found = self._pattern.fullmatch(line[:-1] if line.endswith(b"\r") else line)
        if found is None:
            return None
        return {name: found.span(name) for name in self._names if found.start(name) >= 0}

    def without(self, line: bytes, dropped: Sequence[str]) -> bytes:
        """Raises ValueError: a field has its place here, which is why the configuration refuses to drop one."""
        del line  # its content is in no message
        raise ValueError(f"{', '.join(dropped)} can't be left out of a line whose fields have their places")


def format_of(config: FilesTarget) -> Format:
    """How the lines of a target read."""
    anchors = Anchors(config.timezone, config.unit)
    if config.format == "jsonl":
        return JsonLines(config, anchors)
    if config.format == "logfmt":
        return Logfmt(config, anchors)
    if config.format == "combined":
        return Pattern(config, anchors, _COMBINED)
    return Pattern(config, anchors, re.compile((config.pattern or "").encode()))
