"""Log groups and log streams as the service tells of them; a record is a stream, by the id `GROUP:STREAM`.

Neither name may contain a colon (API_CreateLogGroup, API_CreateLogStream), so an id can be read in one way only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

LAG: Final = timedelta(hours=1)
"""By how much `lastEventTimestamp` and `lastIngestionTime` may be behind: "typically updates in less than an hour from
ingestion" (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_LogStream.html)."""
STANDARD: Final = "STANDARD"
DELIVERY: Final = "DELIVERY"
_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Group:
    """A log group. `days` is its retention (None: it never erases by itself), `kind` its class; tags where needed."""

    name: str
    arn: str
    days: int | None
    kind: str = STANDARD
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Group:
        """From DescribeLogGroups; an older server has no `logGroupArn`, and `arn` ends in `:*`."""
        arn = told.get("logGroupArn") or str(told.get("arn", "")).removesuffix(":*")
        return cls(told["logGroupName"], arn, told.get("retentionInDays"), told.get("logGroupClass") or STANDARD)


@dataclass(frozen=True, slots=True)
class Stream:
    """A log stream. Instants are milliseconds since 1970; `newest` is its last event's, None where it has none."""

    group: str
    name: str
    created: int
    newest: int | None = None
    ingested: int | None = None

    @classmethod
    def of(cls, group: str, told: Mapping[str, Any]) -> Stream:
        """From DescribeLogStreams."""
        return cls(
            group,
            told["logStreamName"],
            int(told.get("creationTime") or 0),
            told.get("lastEventTimestamp"),
            told.get("lastIngestionTime"),
        )

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.group}:{self.name}"

    @property
    def anchor(self) -> datetime | None:
        """The latest that is told of it, and `LAG` later; None where nothing is (a server that leaves it all out)."""
        last = max(self.created, self.newest or 0, self.ingested or 0)
        return instant_of(last) + LAG if last > 0 else None


def instant_of(milliseconds: int) -> datetime:
    """The instant (UTC) of milliseconds since 1970."""
    return _EPOCH + milliseconds * _MS


def milliseconds_of(moment: datetime) -> int:
    """Milliseconds since 1970, cut off."""
    return (moment - _EPOCH) // _MS


def group_of(record: str) -> tuple[str, str | None]:
    """The group and the stream that a record's id names; the id of a whole group has no stream."""
    group, colon, stream = record.partition(":")
    return group, stream if colon else None
