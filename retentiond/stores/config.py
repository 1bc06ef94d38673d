"""What every target's configuration has in common, whatever its store: class, action, pace and window.

A store's own model extends `TargetConfig` in its folder. The models are frozen and refuse keys they don't know; what is
wrong with a value is raised as `Unfit`, so that `settings` can report it with the value's source.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, ClassVar, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

FROZEN: Final = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Unfit(ValueError):
    """A value that can't be used; the message never holds a secret, `remedy` says what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        self.message, self.remedy = message, remedy
        super().__init__(message)


def zone(name: str) -> ZoneInfo:
    """The time zone of that name; Unfit where this machine knows none."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found is a KeyError; a folder's name an OSError; `../x` a ValueError
        raise Unfit(
            f"there is no time zone {name!r}", "name one of the IANA database, such as UTC or Europe/Dublin"
        ) from None


def _time_of_day(value: object) -> object:
    if not isinstance(value, str) or len(value) != len("22:00") or value[2] != ":":
        raise Unfit("a time of day was expected", 'write hours and minutes in quotes, such as "22:00"')
    try:
        return time.fromisoformat(value)
    except ValueError:
        raise Unfit(f"{value!r} is no time of day", 'write one from "00:00" to "23:59"') from None


# AWS: us-east-1, eu-central-1, us-gov-west-1. Other services name theirs as they like (`auto`).
_REGION: Final = re.compile(r"(us-gov|us-iso[a-z]?|[a-z]{2})-[a-z]+-[0-9]+", re.ASCII)

# What those names hide: London and Zurich are not in the EU.
_NOT_AS_NAMED: Final = {"eu-west-2": "uk", "eu-central-2": "ch"}

RegionGroup = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]


def group_of(region: str | None) -> str | None:
    """The group that an AWS region is of: what its name begins with, such as `eu` or `us`; None for other names."""
    found = _REGION.fullmatch(region or "")
    return _NOT_AS_NAMED.get(found[0], found[1]) if found else None


class Window(BaseModel):
    """When a target may be erased: each of `days`, from a time of day until another, over midnight where it is earlier.

    A window belongs to the day on which it opens: 22:00 to 06:00 on `fri` ends on Saturday morning.
    """

    model_config = FROZEN

    opens: TimeOfDay = Field(alias="from")
    closes: TimeOfDay = Field(alias="to")
    timezone: str = "UTC"
    days: tuple[Day, ...] = DAYS

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone(value)
        return value

    @field_validator("days")
    @classmethod
    def _some_day(cls, value: tuple[Day, ...]) -> tuple[Day, ...]:
        if not value:
            raise Unfit("a window without a day never opens", f"list some of {', '.join(DAYS)}, or leave days out")
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.opens == self.closes:
            raise Unfit("the window closes when it opens", "make from and to differ, or leave the window out")
        return self

    def open_at(self, instant: datetime) -> bool:
        """Whether erasing is allowed at the instant (aware)."""
        local = instant.astimezone(zone(self.timezone)).date()
        return any(
            start <= instant < end
            for start, end in (self._on(local - timedelta(days=1)), self._on(local))
            if start is not None and end is not None
        )

    def next_opening(self, instant: datetime) -> datetime:
        """The first instant (UTC) from the given one on at which the window is open: itself while it is open."""
        if self.open_at(instant):
            return instant.astimezone(UTC)
        local = instant.astimezone(zone(self.timezone)).date()
        starts = (self._on(local + timedelta(days=ahead))[0] for ahead in range(16))
        return min(start for start in starts if start is not None and start >= instant)

    def _on(self, day: date) -> tuple[datetime, datetime] | tuple[None, None]:
        """The window that opens on a local day, in UTC; nothing on a day that has none."""
        if DAYS[day.weekday()] not in self.days:
            return None, None
        until = day if self.opens < self.closes else day + timedelta(days=1)
        here = zone(self.timezone)
        start = datetime.combine(day, self.opens, here).astimezone(UTC)
        end = datetime.combine(until, self.closes, here).astimezone(UTC)
        # Where the clock is put forward, a window may lie in the hour that is left out.
        return (start, end) if start < end else (None, None)


MOST_SHARDS = 64


class Pace(BaseModel):
    """How fast a target may be erased.

    `duty` is the share of the time spent in batches, 1.0 being without rest. `shards` are worked on at the same time,
    and share all this; 0: as many as the table's size suggests.
    """

    model_config = FROZEN

    records_per_second: float = Field(default=0, ge=0)
    duty: float = Field(default=0.5, gt=0, le=1)
    # A batch must end well within its permit's life of 30 s (4-safety, "Before a batch").
    batch_seconds: float = Field(default=0.25, gt=0, le=5)
    min_batch: int = Field(default=1, ge=1)
    max_batch: int = Field(default=50_000, ge=1)
    shards: int = Field(default=0, ge=0, le=MOST_SHARDS)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_batch > self.max_batch:
            raise Unfit(
                f"min_batch {self.min_batch} is above max_batch {self.max_batch}",
                "lower min_batch or raise max_batch",
            )
        return self


class TargetConfig(BaseModel, ABC):
    """The settings that targets of every store have.

    `actions` are those that the store can carry out. `no_verdict` names the keys that enter no verdict, and so no
    digest of the policy: addresses, secrets, pace.
    """

    model_config = FROZEN

    actions: ClassVar[frozenset[str]] = frozenset({"delete"})
    no_verdict: ClassVar[frozenset[str]] = frozenset({"pace", "window", "region", "region_group"})

    store: str
    class_name: str = Field(alias="class")
    action: Literal["delete", "anonymise", "archive"] | None = None
    region: str | None = None
    region_group: RegionGroup | None = None
    pace: Pace = Pace()
    window: Window | None = None
    tier: str | None = None

    @abstractmethod
    def records(self) -> tuple[str, ...]:
        """Names the records that it is over: equal for two targets means that both are over the same ones."""

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether a record could be of both, as far as the configuration tells."""
        return self.records() == other.records()

    def group_of_regions(self) -> str | None:
        """The regions that its data may lie in: as given, else those of the region's group; None: unknown."""
        return self.region_group or group_of(self.region)

    def refuse(self, action: str) -> Unfit | None:
        """Why the target can't carry out the action that applies to it (its own or the class's); None: it can."""
        if action in self.actions:
            return None
        kinds = " or ".join(sorted(self.actions))
        return Unfit(f"the store {self.store} can't {action}", f"set the target's action to {kinds}")
