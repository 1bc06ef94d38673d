"""Permits without an outcome, as the control database has them, and how long ago their time was over.

That is judged by several clocks, since one may jump: the control database's, this host's, and for a permit that this
machine asked for also how long it has been up since. The first two may be one, where the control state is embedded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retentiond.control.host import Uptime, uptime
from retentiond.control.rows import from_json
from retentiond.domain.permit import Fence, Outstanding, Unit

if TYPE_CHECKING:
    import asyncpg

COLUMNS = (
    "number, target, shard, owner, fence, epoch, digest, batch, intent::text, prepared::text, issued_at, deadline,"
    " extract(epoch FROM pg_catalog.clock_timestamp() - deadline)::float8 AS past"
)
"""What `from_row` is made of."""


@dataclass(frozen=True, slots=True)
class OpenPermit:
    """A permit without an outcome. `prepared` is what its batch has written down before it took effect.

    `past`: seconds since the deadline (`Outstanding`). Of one whose fence is an expiry or a request the intent has the
    `grace`, and how long the machine of its worker had been `up` when it was asked for; of one whose fence is its
    worker's presence, what that is told by (`presence`), and who has declared the worker `gone`, if anybody has.
    """

    number: int
    target: str
    shard: str
    owner: str
    fence: int
    epoch: int
    digest: str
    batch: str
    intent: dict[str, Any]
    prepared: dict[str, Any] | None
    issued_at: datetime
    deadline: datetime
    past: float

    @property
    def unit(self) -> Unit:
        """The unit that it was issued for."""
        return Unit(self.target, self.shard)

    @property
    def fenced_by(self) -> Fence:
        """What makes its batch harmless; permits of before there was a choice are of transactions."""
        fence: Fence = self.intent.get("fence", "transaction")
        return fence

    @property
    def outstanding(self) -> Outstanding:
        """What is asked about it."""
        return Outstanding(
            self.number,
            self.issued_at,
            self.deadline,
            self.past,
            self.fenced_by,
            self.prepared,
            float(self.intent.get("grace", 0.0)),
            self.intent.get("presence"),
            "gone" in self.intent,
        )


def from_row(row: asyncpg.Record) -> OpenPermit:
    """A row of `COLUMNS`."""
    intent = from_json(row["intent"]) or {}
    host = (datetime.now(UTC) - row["deadline"]).total_seconds()
    up = _past_by_uptime(intent, (row["deadline"] - row["issued_at"]).total_seconds())
    return OpenPermit(
        number=row["number"],
        target=row["target"],
        shard=row["shard"],
        owner=row["owner"],
        fence=row["fence"],
        epoch=row["epoch"],
        digest=row["digest"],
        batch=row["batch"],
        intent=intent,
        prepared=from_json(row["prepared"]),
        issued_at=row["issued_at"],
        deadline=row["deadline"],
        past=min(row["past"], host, *([] if up is None else [up])),
    )


def _past_by_uptime(intent: Mapping[str, Any], life: float) -> float | None:
    """How many seconds ago a life of so many was over, by how long this machine is up; None: it was another's."""
    then, now = intent.get("up"), uptime()
    since = now.since(Uptime(*then)) if then is not None and now is not None else None
    return None if since is None else since - life
