"""What is to be erased and what became of it: the values that go into `deleting` and come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from retentiond.stores.s3.signing import Fence

NULL = "null"
"""The id of a version that was made while the bucket kept none: another object may take its place."""
LOCK_NOT_TOLD = "LockNotTold"
"""The code of what was refused, and whether a lock keeps it may not be seen."""
Checksum = Literal["md5", "crc32"]
Outcome = Literal["erased", "already_gone", "changed", "held", "denied", "failed", "unknown"]


class Doomed(NamedTuple):
    """What is to go: an object, a version or marker (with its id, `null` included), or an upload (with `upload_id`).

    `etag` (without quotes), `modified` and `size` are as they were listed. A tuple, because there are many: a frozen
    dataclass takes six times as long to make.
    """

    key: str
    version_id: str | None = None
    etag: str = ""
    size: int = 0
    modified: datetime | None = None
    upload_id: str | None = None

    @property
    def fixed(self) -> bool:
        """Whether nobody can put another object in its place: a version that has an id of its own, or an upload."""
        return self.upload_id is not None or (self.version_id is not None and self.version_id != NULL)


@dataclass(frozen=True, slots=True)
class Lock:
    """What Object Lock keeps a version by; `until` is the end of its retention (UTC)."""

    legal_hold: bool = False
    mode: str | None = None
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether the version can't be erased at that instant (aware)."""
        return self.legal_hold or (self.until is not None and self.until > now)


@dataclass(frozen=True, slots=True)
class Gone:
    """What became of one item, and the server's code where it said one.

    `changed`: there is another object of that key now. `held`: Object Lock keeps it, by `lock`. `unknown`: it may be
    gone, or go.
    """

    outcome: Outcome
    code: str = ""
    lock: Lock | None = None


ERASED = Gone("erased")
ALREADY_GONE = Gone("already_gone")


@dataclass(frozen=True, slots=True)
class How:
    """What the server can (`abilities`): its fence, its checksum, whether it compares ETags, and keys in a request."""

    fence: Fence
    conditional: bool
    checksum: Checksum = "md5"
    keys: int = 1000
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class Deletion:
    """The outcome of each item, in their order. `unanswered` requests may take effect until expiry and grace."""

    outcomes: tuple[Gone, ...]
    unanswered: int = 0
    requests: int = 0

    def count(self, outcome: Outcome) -> int:
        """How many items came to that."""
        return sum(1 for each in self.outcomes if each.outcome == outcome)
