"""When a shard that failed for what passes is tried again within its sweep, and how often. Pure.

A connection that broke or a lock that somebody else had would else end the shard for the whole sweep, and the next one
would count and cut the table anew. Each try waits twice as long as the one before, but no longer than a whole target
does (`sweep.min_interval`); one that got on counts as the first again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from retentiond.errors import Late, StateMissing, Unreachable

MOST = 6
"""How often a shard is tried again that gets nowhere; its sweep then ends as failed."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The try to come: the `number`th of those that get nowhere, after so many `seconds`; `batches` are done by now."""

    number: int
    batches: int
    seconds: float

    def document(self) -> dict[str, Any]:
        """As it is kept beside the shard."""
        return {"number": self.number, "batches": self.batches}

    def told(self) -> str:
        """What the log says of it."""
        return f"nothing to do: the shard is tried again in {self.seconds:.0f} s ({self.number} of {MOST} tries)"


def passes(error: Exception) -> bool:
    """Whether it is of those failures that may be over by the next try."""
    return isinstance(error, Unreachable | Late) and not isinstance(error, StateMissing)


def next_try(kept: Mapping[str, Any] | None, *, batches: int, longest: timedelta) -> Retry | None:
    """The try after a failure, by what was `kept` of the last one and the batches done; None: it was tried enough."""
    number = int(kept["number"]) + 1 if kept and batches <= kept["batches"] else 1
    if number > MOST:
        return None
    return Retry(number, batches, min(2.0 ** (number - 1), longest.total_seconds()))
