"""The configuration of log streams in Loki as a target."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from retentiond.stores.config import TargetConfig, Unfit
from retentiond.stores.deferred.config import HTTP_KEYS, HttpAccess, server_of

_MATCHER: Final = r'[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*(?:"(?:[^"\\]|\\.)*"|`[^`]*`)'
_SELECTOR: Final = re.compile(rf"\{{\s*{_MATCHER}(?:\s*,\s*{_MATCHER})*\s*,?\s*\}}")
_EQUAL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)+)"')
_Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


def equal_matchers(query: str) -> dict[str, str]:
    """The labels that a query wants to be equal to a text, and the texts as they stand in it."""
    return dict(_EQUAL.findall(query))


def _selector(text: str) -> str:
    said = text.strip()
    if not _SELECTOR.fullmatch(said):
        raise Unfit(
            "not a stream selector", 'write matchers alone, such as {app="api"}; lines can\'t be told apart by filters'
        )
    if not equal_matchers(said):
        raise Unfit("this selects by no label that is equal to a text", 'name the streams by one: {app="api"}')
    return said


class LokiTarget(HttpAccess, TargetConfig):
    """Streams of one tenant that a selector matches; `account` and `tier_label` are labels of streams.

    `cancel_period` is the server's `delete_request_cancel_period` in seconds, and `reach_days` how far back is counted.
    """

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | HTTP_KEYS | {"cancel_period", "reach_days"}

    store: Literal["loki"]
    selector: Annotated[str, AfterValidator(_selector)]
    tenant: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    account: _Label | None = None
    tier_label: _Label | None = None
    cancel_period: float = Field(default=86_400, ge=0)
    reach_days: int = Field(default=2_700, ge=1, le=36_500)

    @field_validator("tier_label")
    @classmethod
    def _one_tier(cls, label: str | None, info: ValidationInfo) -> str | None:
        if label is not None and info.data.get("tier") is not None:
            raise Unfit("the streams' tier is also given by `tier`", "name it by `tier` or here, not by both")
        return label

    def records(self) -> tuple[str, ...]:
        """The server, the tenant and the selector."""
        return (self.store, server_of(self.url), self.tenant or "", self.selector)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether a stream could be of both: unless a label would have to have two values."""
        if not isinstance(other, LokiTarget) or self.records()[:3] != other.records()[:3]:
            return False
        mine, theirs = equal_matchers(self.selector), equal_matchers(other.selector)
        return all(mine[label] == theirs[label] for label in mine.keys() & theirs.keys())
