"""The configuration of rotated log files as a target."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from retentiond.stores.config import FROZEN, TargetConfig, Unfit, zone

FormatName = Literal["jsonl", "logfmt", "combined", "regex"]
Name = Annotated[str, Field(min_length=1, max_length=256)]
WILD: Final = re.compile(r"[*?\[]")
COMBINED: Final = (
    "remote_addr", "remote_user", "time_local", "request", "status", "body_bytes_sent", "http_referer",
    "http_user_agent",
)  # fmt: skip
"""The fields of the format `combined`, by the names that nginx gives them."""


def _path(text: str) -> str:
    path = PurePosixPath(text)
    remedy = "write an absolute path, with wildcards (*, ?, […]) in the file's name alone: /var/log/app/app*.log*"
    if not path.is_absolute() or not path.name or ".." in path.parts or "\0" in text or text.endswith("/"):
        raise Unfit("not the path of log files", remedy)
    if WILD.search(str(path.parent)):
        raise Unfit("a wildcard stands in the folder's name", f"{remedy}; give each folder a target of its own")
    return str(path)


class FieldChange(BaseModel):
    """What becomes of one field: null, a constant, a keyed hash of it, its address cut to /24 or /48, or nothing of it.

    Written as `null`, as the constant itself, as `{hash: true}`, `{truncate_ip: true}` or `{drop: true}`.
    """

    model_config = FROZEN

    method: Literal["null", "constant", "hash", "truncate_ip", "drop"]
    value: str | int | float | bool | None = None


def _change(given: object) -> object:
    if given is None:
        return FieldChange(method="null")
    if isinstance(given, (str, bool, int, float)):
        return FieldChange(method="constant", value=given)
    for method in ("hash", "truncate_ip", "drop"):
        if given == {method: True}:
            return FieldChange.model_validate({"method": method})
    raise Unfit(
        "not a way to anonymise a field", "write null, a constant, {hash: true}, {truncate_ip: true} or {drop: true}"
    )


class LineChange(BaseModel):
    """How a line is anonymised: what becomes of each field that is named."""

    model_config = FROZEN

    fields: Annotated[dict[Name, Annotated[FieldChange, BeforeValidator(_change)]], Field(min_length=1)]


class FilesTarget(TargetConfig):
    """Log files of one folder: which, how their lines read, and where a line has its date, account and tier.

    `anchor`, `account` and `tier_field` name fields of a line, in JSON also of an object in it (`user.id`). A line that
    lacks the field of the account is unresolved, unless `account_optional` says that it is nobody's. `timezone` is that
    of a date without one, `unit` that of a number. `live` are names of files that are being written, in addition to
    what is found out; `settle` is for how many seconds a file must not have been changed.
    """

    actions: ClassVar[frozenset[str]] = frozenset({"delete", "anonymise"})
    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | {"settle", "live"}

    store: Literal["files"]
    path: Annotated[str, AfterValidator(_path)]
    format: FormatName
    pattern: str | None = Field(default=None, validate_default=True)
    anchor: Name
    account: Name | None = None
    account_optional: bool = False
    tier_field: Name | None = None
    timezone: str = "UTC"
    unit: Literal["s", "ms", "us"] | None = None
    anonymise: LineChange | None = None
    live: tuple[Name, ...] = ()
    settle: float = Field(default=600, ge=0)

    # Each on a field and not on the model, whose validators are silent as long as any field is at fault.

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone(value)
        return value

    @field_validator("pattern")
    @classmethod
    def _readable(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        if "format" not in info.data:
            return pattern
        if (pattern is None) == (info.data["format"] == "regex"):
            fault = (
                "the format is regex, and no pattern is given" if pattern is None else "only the format regex has one"
            )
            raise Unfit(fault, "give a pattern with format: regex, such as '(?P<ts>\\S+) (?P<account>\\S+) .*'")
        if pattern is not None:
            try:
                re.compile(pattern.encode())
            except re.error as error:
                raise Unfit(f"not a regular expression: {error}", "write one of Python's, with named groups") from None
        return pattern

    @field_validator("anchor", "account", "tier_field")
    @classmethod
    def _there(cls, name: str | None, info: ValidationInfo) -> str | None:
        known = fields_of(info.data.get("format"), info.data.get("pattern"))
        if name is not None and known is not None and name not in known:
            raise Unfit(f"the format has no field {name!r}", f"name one of {', '.join(known) or 'its named groups'}")
        return name

    @field_validator("tier_field")
    @classmethod
    def _one_tier(cls, field: str | None, info: ValidationInfo) -> str | None:
        if field is not None and info.data.get("tier") is not None:
            raise Unfit("both tier and tier_field are given", "keep tier (a constant) or tier_field, not both")
        return field

    @field_validator("anonymise")
    @classmethod
    def _not_what_verdicts_rest_on(cls, change: LineChange | None, info: ValidationInfo) -> LineChange | None:
        if change is None:
            return None
        known = fields_of(info.data.get("format"), info.data.get("pattern"))
        for name, rule in change.fields.items():
            if name in (info.data.get("anchor"), info.data.get("tier_field")):
                raise Unfit(f"{name!r} dates the line or tells its tier", "take it out of anonymise.fields")
            if known is not None and name not in known:
                raise Unfit(f"the format has no field {name!r}", f"name some of {', '.join(known)}")
            if known is not None and rule.method == "drop":
                raise Unfit(f"{name!r} can't be dropped: a field of this format has its place", "set it to null")
        return change

    @property
    def folder(self) -> str:
        """Where the files lie."""
        return os.path.dirname(self.path)  # noqa: PTH120 - a text, of another system's paths as well

    @property
    def names(self) -> str:
        """The wildcard pattern of their names."""
        return os.path.basename(self.path)  # noqa: PTH119 - as above

    @property
    def head(self) -> str:
        """What all their names begin with."""
        return WILD.split(self.names, maxsplit=1)[0]

    def records(self) -> tuple[str, ...]:
        """The folder, and what is taken of it."""
        return (self.store, self.folder, self.names)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether a file could be of both, as far as the configuration tells."""
        if not isinstance(other, FilesTarget) or self.folder != other.folder:
            return False
        return self.head.startswith(other.head) or other.head.startswith(self.head)

    def refuse(self, action: str) -> Unfit | None:
        """What an action needs; and what is given for one that is not taken means that lines go unawares."""
        if action == "anonymise" and self.anonymise is None:
            return Unfit(
                "the action is anonymise, but nothing says what to change",
                "add anonymise: {fields: {NAME: null}}",
            )
        if action != "anonymise" and self.anonymise is not None:
            return Unfit(
                f"anonymise is given, but the action is {action}", "set action: anonymise, or take anonymise out"
            )
        return super().refuse(action)


def fields_of(format_: str | None, pattern: str | None) -> tuple[str, ...] | None:
    """The fields that a line has; None where that is up to the line."""
    if format_ == "combined":
        return COMBINED
    if format_ == "regex" and pattern is not None:
        return tuple(re.compile(pattern).groupindex)
    return None
