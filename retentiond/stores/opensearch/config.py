"""The configuration of documents in OpenSearch or Elasticsearch as a target."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from retentiond.stores.config import TargetConfig, Unfit
from retentiond.stores.deferred.config import HTTP_KEYS, HttpAccess, server_of

FENCE: Final = "retentiond-fence"
"""The index that fences are aliases of; no target is over it."""
# What a name may have in it, and `*`: https://docs.opensearch.org/latest/api-reference/index-apis/create-index/
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._*+-]{0,254}", re.ASCII)
_FieldName = Annotated[str, Field(min_length=1, max_length=512)]


def _index(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Unfit(
            "not the name of an index, a data stream or an alias, nor a pattern of such names",
            "write one name or pattern such as logs-*, in lower case, not beginning with . _ - or *",
        )
    if re.fullmatch(name.replace(".", r"\.").replace("*", ".*").replace("+", r"\+"), FENCE):
        raise Unfit(f"the pattern is also of {FENCE}, where we keep our own state", "name the indices more closely")
    return name


class OpenSearchTarget(HttpAccess, TargetConfig):
    """Documents of one index, data stream, alias or pattern, and which of their fields tell what.

    `anchor` is a date field, `account` and `tier_field` are keyword or integer fields. `whole_indices`: an index whose
    name has a date and in which every document is due is deleted as such.
    """

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | HTTP_KEYS | {"slices", "whole_indices"}

    store: Literal["opensearch", "elasticsearch"]
    index: Annotated[str, AfterValidator(_index)]
    anchor: _FieldName = "@timestamp"
    account: _FieldName | None = None
    tier_field: _FieldName | None = None
    slices: int = Field(default=0, ge=0, le=64)
    whole_indices: bool = True

    @field_validator("tier_field")
    @classmethod
    def _one_tier(cls, field: str | None, info: ValidationInfo) -> str | None:
        if field is not None and info.data.get("tier") is not None:
            raise Unfit("the documents' tier is also given by `tier`", "name it by `tier` or here, not by both")
        return field

    def records(self) -> tuple[str, ...]:
        """The server and the index."""
        return ("opensearch", server_of(self.url), self.index)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether an index could be of both, as far as names tell."""
        if not isinstance(other, OpenSearchTarget) or self.records()[1] != other.records()[1]:
            return False
        mine, theirs = self.index, other.index
        return _meets(mine, theirs)


def _meets(one: str, other: str) -> bool:
    """Whether a name can be of both patterns."""
    if not one or not other:
        return set(one + other) <= {"*"}
    if one[0] == "*":
        return _meets(one[1:], other) or _meets(one, other[1:])
    if other[0] == "*":
        return _meets(one, other[1:]) or _meets(one[1:], other)
    return one[0] == other[0] and _meets(one[1:], other[1:])
