"""The configuration of log lines in VictoriaLogs as a target."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from retentiond.stores.config import TargetConfig, Unfit
from retentiond.stores.deferred.config import HTTP_KEYS, HttpAccess, server_of

_FieldName = Annotated[str, Field(min_length=1, max_length=512)]
_LABEL: Final = r'([a-zA-Z_][a-zA-Z0-9_.]*)\s*=\s*"([^"\\]+)"'
_EQUAL: Final = re.compile(_LABEL)
_STREAM: Final = re.compile(rf"\{{\s*{_LABEL}(?:\s*,\s*{_LABEL})*\s*\}}")
_PAIRS: Final = {"(": ")", "[": "]", "{": "}"}
_Id = Annotated[int, Field(ge=0, le=2**32 - 1)]


def _filter(text: str) -> str:
    said = text.strip()
    if said in ("", "*"):
        raise Unfit("this is a filter of everything", 'say which lines are of the target: {app="nginx"}')
    if "|" in _unquoted(said) or "#" in _unquoted(said):
        raise Unfit("a filter has no pipes and no comments", 'write filters alone, such as {app="nginx"} level:=info')
    _require_closed(_unquoted(said))
    return said


def _require_closed(text: str) -> None:
    """Raise Unfit where a bracket closes what it did not open: a filter in parentheses would not stay in them."""
    opened: list[str] = []
    for each in text:
        if each in _PAIRS:
            opened.append(_PAIRS[each])
        elif each in _PAIRS.values() and (not opened or opened.pop() != each):
            raise Unfit(f"its brackets don't match: {each} closes none of its kind", "write bounds with > < >= <=")
    if opened:
        raise Unfit("its parentheses don't match", "close each one that is opened")


def _unquoted(text: str) -> str:
    """The text without what stands in quotes, whose escapes are a backslash; within backquotes there are none."""
    found, quote, at = [], "", 0
    while at < len(text):
        each = text[at]
        if quote:
            at += each == "\\" and quote != "`"
            quote = "" if each == quote else quote
        elif each in "\"'`":
            quote = each
        else:
            found.append(each)
        at += 1
    if quote:
        raise Unfit("a quote is not closed", "close it")
    return "".join(found)


class VictoriaLogsTarget(HttpAccess, TargetConfig):
    """Lines of one tenant that a LogsQL filter matches; `account` and `tier_field` are fields of them.

    `auth_key` is that of the server's -deleteAuthKey.
    """

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | HTTP_KEYS | {"auth_key"}

    store: Literal["victorialogs"]
    filter: Annotated[str, AfterValidator(_filter)]
    account: _FieldName | None = None
    tier_field: _FieldName | None = None
    account_id: _Id = 0
    project_id: _Id = 0
    auth_key: SecretStr | None = None

    @field_validator("tier_field")
    @classmethod
    def _one_tier(cls, field: str | None, info: ValidationInfo) -> str | None:
        if field is not None and info.data.get("tier") is not None:
            raise Unfit("the lines' tier is also given by `tier`", "name it by `tier` or here, not by both")
        return field

    def records(self) -> tuple[str, ...]:
        """The server, the tenant and the filter."""
        return (self.store, server_of(self.url), f"{self.account_id}:{self.project_id}", self.filter)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether a line could be of both: unless both are stream filters and a label would need two values."""
        if not isinstance(other, VictoriaLogsTarget) or self.records()[:3] != other.records()[:3]:
            return False
        mine, theirs = _stream(self.filter), _stream(other.filter)
        return all(mine[label] == theirs[label] for label in mine.keys() & theirs.keys())


def _stream(text: str) -> dict[str, str]:
    """The labels that a stream filter wants to be equal to a text; none where the filter is more than that."""
    return dict(_EQUAL.findall(text)) if _STREAM.fullmatch(text) else {}
