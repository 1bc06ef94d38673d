"""What a worker must hold before it may destroy anything: a lease on the unit, and a permit for the batch.

Both are made by the control database alone (`control.units`, `control.permits`); everybody else only passes them on.
A store's `erase` takes the permit as an argument, so code that has none can't call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

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
