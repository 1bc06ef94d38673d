"""The configuration of CloudWatch log groups as a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from retentiond.stores.access import EndpointAccess, Tags, service_of
from retentiond.stores.config import Pace, TargetConfig, Unfit
from retentiond.stores.template import ACCOUNT, DATE, TIER, Template

_ACCESS: Final = frozenset({"endpoint_url", "access_key_id", "secret_access_key", "session_token"})


class LogsPace(Pace):
    """The pace of log groups: the service allows few calls a second, to all of an AWS account in a region together."""

    records_per_second: float = Field(default=5.0, gt=0)
    duty: float = Field(default=1.0, gt=0, le=1)
    batch_seconds: float = Field(default=5.0, gt=0, le=5)
    max_batch: int = Field(default=1000, ge=1)


@dataclass(frozen=True, slots=True)
class GroupNames:
    """Which log groups a target has, and what their names tell; made by `parse`.

    `head` is what every name begins with, `names` are the fields that it has.
    """

    text: str
    head: str
    names: tuple[str, ...]
    template: Template | None

    @classmethod
    def parse(cls, text: str) -> GroupNames:
        """A template as those of keys, or the whole name of one group; raises Unfit with what is wrong with it."""
        if "{" not in text and "}" not in text:
            return cls(text, text, (), None)
        template = Template.parse(text)
        if DATE in template.names:
            raise Unfit(
                "a date in the name of a log group decides nothing: a stream counts from its newest event",
                "give the field another name, as in {day}",
            )
        return cls(text, template.head, template.names, template)

    def read(self, name: str) -> tuple[str | None, str | None] | None:
        """Account and tier of the group by its name, None for what that does not tell; None: it is none of these."""
        if self.template is None:
            return (None, None) if name == self.text else None
        parts = self.template.match(name)
        return None if parts is None else (parts.account, parts.tier)


class CloudwatchTarget(EndpointAccess, TargetConfig):
    """Log groups by their names; a record is a log stream, which goes whole.

    `groups` is a template of names. `retention: manage` also lets the service erase by itself what is older than any
    term that records of the group may have, `leave` leaves that as it is. `unfenced` erases also where the endpoint
    does not refuse requests that have expired.
    """

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | _ACCESS | {"unfenced"}

    store: Literal["cloudwatch"]
    groups: Annotated[str, Field(min_length=1, max_length=512)]
    tags: Tags | None = None
    account: Annotated[str, Field(min_length=1)] | None = None
    retention: Literal["manage", "leave"] = "manage"
    unfenced: bool = False
    pace: LogsPace = LogsPace()

    # Each on a field and not on the model, whose validators are silent as long as any field is at fault.

    @field_validator("groups")
    @classmethod
    def _readable(cls, groups: str, info: ValidationInfo) -> str:
        if TIER in GroupNames.parse(groups).names:
            _once("tier", tier=info.data.get("tier"))
        return groups

    @field_validator("tags")
    @classmethod
    def _some_tag(cls, tags: Tags | None, info: ValidationInfo) -> Tags | None:
        if tags is not None and tags.account is None and tags.tier is None:
            raise Unfit("no tag is named", "write tags: {account: TAG}, {tier: TAG}, or both; or leave it out")
        if tags is not None and tags.tier is not None:
            _once("tier", tier=info.data.get("tier"), groups=info.data.get("groups"))
        if tags is not None and tags.account is not None:
            _once("account", groups=info.data.get("groups"))
        return tags

    @field_validator("account")
    @classmethod
    def _one_account(cls, account: str | None, info: ValidationInfo) -> str | None:
        if account is not None:
            _once("account", groups=info.data.get("groups"), tags=info.data.get("tags"))
        return account

    def names(self) -> GroupNames:
        """What its groups are called."""
        return GroupNames.parse(self.groups)

    @property
    def knows_account(self) -> bool:
        """Whether its groups have an account."""
        tagged = self.tags is not None and self.tags.account is not None
        return self.account is not None or tagged or ACCOUNT in self.names().names

    @property
    def has_tier(self) -> bool:
        """Whether its groups name their own tier."""
        return (self.tags is not None and self.tags.tier is not None) or TIER in self.names().names

    def records(self) -> tuple[str, ...]:
        """The service, the region as it is given, and what all names begin with."""
        return (self.store, service_of(self.endpoint_url), self.region or "", self.names().head)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether a group may be of both; groups of names that are given whole are told apart by those."""
        if not isinstance(other, CloudwatchTarget) or self.records()[:3] != other.records()[:3]:
            return False
        mine, theirs = self.names(), other.names()
        if mine.template is None:
            return theirs.read(mine.text) is not None
        if theirs.template is None:
            return mine.read(theirs.text) is not None
        return mine.head.startswith(theirs.head) or theirs.head.startswith(mine.head)

    def refuse(self, action: str) -> Unfit | None:
        """A stream goes whole, and what it holds can't be changed."""
        if action == "anonymise":
            return Unfit(
                "anonymise does not apply to log streams: they are deleted whole", "set the target's action to delete"
            )
        return super().refuse(action)


def _once(what: str, **others: object) -> None:
    """Refuse a second source of the account or the tier; what is itself at fault is no source."""
    for other, value in others.items():
        if isinstance(value, Tags):
            given = getattr(value, what) is not None
        elif other == "groups":
            given = isinstance(value, str) and what in GroupNames.parse(value).names
        else:
            given = value is not None
        if given:
            raise Unfit(f"the groups' {what} is also given by `{other}`", f"name it by `{other}` or here, not by both")
