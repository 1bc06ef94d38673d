"""What the API is asked, as models: bodies and parameters. Whatever is not in them is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from retentiond.api.models import ApprovalKind, State
from retentiond.ledger.kinds import Kind

# Postgres has no text with a NUL in it.
_NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(min_length=1, max_length=4_000, pattern=_NO_NUL)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=2_000, pattern=_NO_NUL)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
Instant = Annotated[
    str, StringConstraints(min_length=1, max_length=64), Field(json_schema_extra={"format": "date-time"})
]
LARGEST = 2**53 - 1


class Asked(BaseModel):
    """A body: JSON types are taken as they are, `"1"` is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Parameters(BaseModel):
    """Parameters of a query, which are texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlaceHold(Asked):
    """A hold to be placed: what it covers stands beside the matter. Instants are RFC 3339, or a date.

    `notice` is the prohibition to notify the account's owner; `native`: buckets with Object Lock keep it too.
    """

    matter: Text
    reason: Text
    accounts: list[Id] | None = None
    classes: list[Name] | None = None
    targets: list[Name] | None = None
    since: Instant | None = None
    until: Instant | None = None
    prefixes: dict[Name, list[Id]] | None = None
    records: dict[Name, list[Id]] | None = None
    everything: bool | None = None
    review_by: Instant | None = None
    notice: Text | None = None
    native: bool = False


class Because(Asked):
    """Why a hold is released or reinstated."""

    reason: Text


class Pause(Asked):
    """Why erasing is paused."""

    reason: Annotated[str, StringConstraints(max_length=4_000, pattern=_NO_NUL)] = ""


class Nothing(Asked):
    """No field: the request says it all."""


class RequestSweeps(Asked):
    """Which targets are to be swept now, one or several; all of them where none is named."""

    target: Name | None = None
    targets: list[Name] | None = None

    @property
    def names(self) -> list[str]:
        """All that are named."""
        return [*([self.target] if self.target is not None else ()), *(self.targets or ())]


class Approve(Asked):
    """The question that is answered: `target` of a sweep, `digest` of a policy.

    With `bound`, only if it asks for no more by now; with `digest`, only if it is still about that policy.
    """

    kind: ApprovalKind = "sweep"
    target: Name | None = None
    bound: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None


class LogIn(Asked):
    """A token, for a session by cookie."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class OfTargets(Parameters):
    """Only these targets; all of them where none is named."""

    target: list[Name] = Field(default_factory=list)


class OfPlan(OfTargets):
    """`horizon`: also what comes due until then, an ISO 8601 duration such as P30D."""

    horizon: Annotated[str, StringConstraints(pattern=r"^P[0-9A-Z]{1,60}$")] | None = None


class OfRecord(Parameters):
    """A record by its key; a composite key is written as its JSON array."""

    target: Name
    record: Id


class OfHolds(Parameters):
    """A page of holds: those after the hold of this id, of these states."""

    after: Name | None = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    state: list[State] = Field(default_factory=list)


class OfLedger(Parameters):
    """A page of the ledger: entries after this number, of these kinds."""

    after: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    kind: list[Literal[tuple(each.value for each in Kind)]] = Field(default_factory=list)  # type: ignore[valid-type]
