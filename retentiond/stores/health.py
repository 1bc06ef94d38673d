"""The settings of pace by health: from which threshold on a sweep yields to what else its target's server has to do.

Each signal has a default that spares a healthy server every wait, and each can be `off`. One that was configured and
can't be read stops the sweep; one that is on by default and can't be read is left out, and `check` says so (4-safety,
"Postgres, what bites" 10).
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, field_validator

from retentiond.stores.config import FROZEN, Pace, Unfit

_OFF = ("off", "none", "false")


def _limit(given: object) -> object:
    """None for `off`, which YAML reads as false."""
    if given is False or (isinstance(given, str) and given.lower() in _OFF):
        return None
    if given is None or given is True:
        raise Unfit("a threshold was expected", "write a number above 0, or off")
    if isinstance(given, str):
        try:
            float(given)
        except ValueError:
            raise Unfit(
                "a number or off was expected, not text", "write a number above 0, such as 0.5, or off"
            ) from None
    return given


Limit = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_limit)]


class PromQL(BaseModel):
    """An expression that a Prometheus evaluates: the sweep yields while any of its samples is above the threshold."""

    model_config = FROZEN

    url: str
    expression: str = Field(min_length=1)
    threshold: float
    token: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        """The server's address. A password in it would be shown with the configuration; that is what `token` is for."""
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable, parts = False, urlsplit("")
        if not usable or parts.query or parts.fragment or value.rstrip("/").endswith("/api/v1/query"):
            raise Unfit("not the address of a Prometheus", "write it as http://host:9090, without /api/v1/query")
        if parts.username or parts.password:
            raise Unfit("a password stands in the address", "take it out, and set token, which may come from a file")
        return value.rstrip("/")


class Health(BaseModel):
    """Thresholds in seconds, except `*_backlog` and `retained_wal`, which are MiB, and `batch_latency`, a multiple.

    `batch_latency` is of `batch_seconds`; `vacuum` is how long one is waited for. `patience` bounds one rest.
    """

    model_config = FROZEN

    replica_lag: Limit = 10.0
    replica_backlog: Limit = 256.0
    ignore_replicas: tuple[str, ...] = ()
    archive_backlog: Limit = 1024.0
    retained_wal: Limit = 4096.0
    vacuum: Limit = 600.0
    lock_waits: Limit = 1.0
    oldest_snapshot: Limit = 3600.0
    response: Limit = 1.0
    batch_latency: Limit = 4.0
    patience: float = Field(default=3600.0, gt=0)
    promql: PromQL | None = None

    def limits(self) -> dict[str, float]:
        """The threshold of each signal that is on, in base units."""
        on = {name: getattr(self, name) for name in SIGNALS}
        return {name: float(limit) * (_MIB if name in _IN_MIB else 1) for name, limit in on.items() if limit}

    def configured(self) -> frozenset[str]:
        """The signals that somebody asked for: they must be readable."""
        return frozenset(name for name in self.limits() if name in self.model_fields_set)


SIGNALS = (
    "replica_lag",
    "replica_backlog",
    "archive_backlog",
    "retained_wal",
    "vacuum",
    "lock_waits",
    "oldest_snapshot",
    "response",
    "batch_latency",
)
"""The signals with a threshold of their own."""

_IN_MIB = ("replica_backlog", "archive_backlog", "retained_wal")
_MIB = 2**20


class HealthyPace(Pace):
    """The pace of a target whose server can be asked how it is."""

    health: Health = Health()
