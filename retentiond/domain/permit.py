"""What a worker must hold before it may destroy anything: a lease on the unit, and a permit for the batch.

Both are made by the control database alone (`control.units`, `control.permits`); everybody else only passes them on.
A store's `erase` takes the permit as an argument, so code that has none can't call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

Fence: TypeAlias = Literal["transaction", "expiry", "presence", "request"]
"""What makes a batch harmless whose worker does not come back (4-safety): that its transaction is over, that its
requests have expired by the server's own clock, that the worker is shown to be gone, or that the store takes no request
under it any more, and those that it took can be asked for and cancelled."""

SAME_DATABASE = """
SELECT concat_ws(':', oid, datname, pg_postmaster_start_time(), current_setting('port'))
FROM pg_catalog.pg_database WHERE datname = current_database()
"""
"""What two connections are asked to see whether they lead to one database: then one transaction can do for both."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: one target, or one shard of it (`""` where the target is not cut)."""

    target: str
    shard: str = ""

    def __str__(self) -> str:
        return f"{self.target}/{self.shard}" if self.shard else self.target


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a unit until another worker takes it over; `fence` grows with each owner."""

    unit: Unit
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to destroy one batch under the holds of `epoch`, until `deadline` (the control database's clock)."""

    number: int
    lease: Lease
    epoch: int
    digest: str
    batch: str
    issued_at: datetime
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A permit without an outcome, as it is asked about: can its batch still take effect?

    `past`: how many seconds ago its deadline was, negative before it, by the control database's clock, this host's, and
    where this is the machine that asked for it by how long it has been up: whichever is behind, since one that jumped
    must not make a request look over which a server still accepts. `fence` is what its store had when it was issued,
    whatever is configured now, and `grace` how many seconds its worker said that the server may take. `prepared` is
    what the batch has written down before its effect; None: it never came to that. `attended` is what its worker can be
    told by where its presence is the fence, and `declared_gone`: an operator has said that it is gone.
    """

    number: int
    issued_at: datetime
    deadline: datetime
    past: float
    fence: Fence = "transaction"
    prepared: Mapping[str, Any] | None = None
    grace: float = 0.0
    attended: Mapping[str, Any] | None = None
    declared_gone: bool = False

    def expired(self, grace: float) -> bool:
        """Whether no request under it can take effect any more, where that is settled by time.

        `grace`: seconds that a server may take to carry out what it had accepted in time, by the configuration of who
        asks (`holds.late_effect_grace`); the permit's own counts where it is longer.
        """
        return self.fence == "expiry" and self.left(grace) < 0

    def left(self, grace: float) -> float:
        """For how many seconds more a request under it may take effect; negative when it is over."""
        return max(grace, self.grace) - self.past
