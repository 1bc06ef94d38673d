"""What the resources of the API stand on, and what a request is once it has been let in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retentiond.api.access import Access
from retentiond.api.clients import Network
from retentiond.api.health import Health
from retentiond.api.reading import Shared
from retentiond.control.idempotency import Claim
from retentiond.desk.base import Desk


def nobody() -> None:
    """Where there is no scheduler to be told."""


@dataclass(frozen=True, slots=True)
class Site:
    """One process's API. `desk` has a pool of its own, so that no request takes a connection from a sweep.

    `nudge` tells the scheduler that there is a new row for it. `shared` are the readings that take long, `few` is the
    room for questions to targets that can't be shared.
    """

    desk: Desk
    health: Health
    access: Access
    trusted: tuple[Network, ...] = ()
    nudge: Callable[[], None] = nobody
    shared: Shared = field(default_factory=Shared)
    few: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was let in: `by` is the token's name (None: on this host, without one), `path` its parameters.

    `query` and `body` are models of the resource; `claim` is there where an Idempotency-Key was sent.
    """

    by: str | None
    path: Mapping[str, str]
    query: Any
    body: Any
    claim: Claim | None = None

    @property
    def name(self) -> str:
        """The name that stands in the ledger; only of a change, which nobody makes without a token."""
        assert self.by is not None
        return self.by
