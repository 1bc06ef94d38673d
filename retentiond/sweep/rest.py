"""When a target need not be looked at: after a sweep that has seen all of it, until something of it can be due.

A look costs money where records are listed by the thousand, so stores that `rest` tell of each window when what they
saw can next be due. That holds for as long as nothing changes that the verdicts rest on: the policy, the holds, what
the account directory says (with what follows from the time that passes: a grace that ends, an erasure that falls due),
where the records lie, and the version of this program. All of that is the `basis`, told without asking the store; where
it is another one, the target is swept. What comes in meanwhile can be due after the shortest term.

Some things no basis tells: what comes in for an account that has been erased (due at once), or by a replication that
keeps dates (due when it comes); another's lock on an object that ends; a directory that said something else for a while
in the middle of a sweep, and says the same as before now. For those nothing rests for longer than a day: with the usual
`sweep.max_interval` of 6 h that saves three looks of four, and a look at a million objects costs half a cent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from retentiond import __version__
from retentiond.control import barrier, permits
from retentiond.control.units import UnitState
from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.evidence import canonical
from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Store
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools

LONGEST = timedelta(days=1)
"""A week would be as long as an erasure may take after its grace (2-semantics: overdue 7 days later)."""


CLOCKS_DIFFER = timedelta(minutes=5)
"""More than clocks that are sound do: a rest is reckoned by one and judged by another."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Until when (UTC) nothing can be due, as long as the basis stays the same."""

    until: datetime
    basis: str

    def document(self) -> dict[str, str]:
        """As it is kept with the unit's outcome."""
        return {"until": rfc3339(self.until), "basis": self.basis}

    @classmethod
    def of(cls, outcome: Mapping[str, Any] | None) -> Rest | None:
        """From what is kept, if anything is."""
        kept = (outcome or {}).get("rest")
        return cls(instant(kept["until"]), kept["basis"]) if kept else None


def basis_of(store: Store, *, policy: str, epoch: int, directory: str) -> str:
    """What verdicts rest on beside the records: the digests of policy and directory, and the epoch of the holds."""
    told = {
        "version": __version__,
        "policy": policy,
        "epoch": epoch,
        "directory": directory,
        "records": list(store.records),
        "address": store.address,
    }
    return hashlib.sha256(canonical(told)).hexdigest()


async def still_resting(
    tools: Tools, store: Store, state: UnitState, now: datetime, directory: Callable[[], Awaitable[str]]
) -> Rest | None:
    """The rest that the target's last sweep has left, if it is not over; else None, and the target is to be swept.

    The store is not asked: `now` (UTC) is the earlier of the other clocks, and `directory` tells the digest of what the
    account directory says. Where a clock has gone back since, so that it would rest for longer than anything may, it
    does not. Raises Blind, Unreachable, and Guarded where the control state is in doubt.
    """
    rest = Rest.of(state.outcome)
    if rest is None or not store.rests or state.sweep is not None:
        return None
    if not now < rest.until <= now + LONGEST + CLOCKS_DIFFER:
        return None
    async with tools.database.transaction(read_only=True) as tx:
        await tools.journal.require_continued(tx)
        if await permits.any_open(tx, state.unit.target):
            return None
        holds = await barrier.read(tx)
    basis = basis_of(store, policy=tools.spec.digest, epoch=holds.epoch, directory=await directory())
    return rest if holds.settled and basis == rest.basis else None


def rest_after(plan: TargetPlan, outcome: Outcome, *, began: datetime) -> Rest | None:
    """The rest after a sweep that began at that instant (UTC) by the plan's rules; None where it has to look again.

    That is so unless all of it was seen, by the same basis, and nothing due is left.
    """
    left = outcome.in_doubt or outcome.failed or outcome.locked or outcome.blocked
    if outcome.outcome != "drained" or left or outcome.basis is None:
        return None
    horizon = plan.horizon()
    shortest = min(LONGEST, plan.now - horizon) if horizon is not None else LONGEST
    until = began + shortest
    if outcome.next_due is not None:
        until = min(until, instant(outcome.next_due))
    return Rest(until, outcome.basis) if until > plan.now else None
