"""What earlier workers have left of a sweep: what it had come to, and batches whose end nobody wrote.

Who takes a unit settles what was left in it. Who has a target's unit settles the shards that no worker takes up any
more as well: each under the shard's own lease, so that whoever had it is fenced before it is told what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retentiond.control import units
from retentiond.control.database import Tx
from retentiond.control.orphans import orphaned
from retentiond.domain.permit import Lease, Unit
from retentiond.errors import Blind, Fenced, Unreachable
from retentiond.stores.base import AnyStore, Tally
from retentiond.sweep.events import Failed
from retentiond.sweep.leases import leased
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import Tools
from retentiond.sweep.recovery import Body, settle_open_permits
from retentiond.sweep.spec import Target
from retentiond.sweep.told import found_in, late_batch


async def so_far(tx: Tx, lease: Lease, target: Target) -> Mapping[str, Any]:
    """What is written of the unit's sweep, with each of its batches; nothing of one that has just begun."""
    cursor = (await units.state(tx, lease.unit)).cursor
    return (cursor or {}).get("so_far") or Outcome(action=target.action).state()


async def settle(
    tools: Tools, store: AnyStore, target: Target, lease: Lease, sweep: str, *, stopping: Callable[[], bool]
) -> tuple[int, Sequence[tuple[str, Tally]]]:
    """End the unit's open permits: how many stay in doubt for good, and which batches of which sweep took effect.

    Those of `sweep` are counted to what the unit has come to: their worker did not live to. What takes time is
    waited for until `stopping` says so. Raises Unreachable, Fenced, and Blind where the target is of another kind now.
    """

    async def credit(tx: Tx, body: Body) -> None:
        if body["sweep"] != sweep:
            return
        found = Outcome(action=target.action)
        found.make_up_to(await so_far(tx, lease, target))
        found.erased(found_in(body))
        await units.add_so_far(tx, lease, found.state())

    grace = tools.spec.late_effect_grace
    doubtful, done = await settle_open_permits(
        tools.database, tools.journal, store, lease, credit, grace=grace, stopping=stopping
    )
    for body in done:
        tools.observer(late_batch(target, body))
    return doubtful, [(str(body["sweep"]), found_in(body)) for body in done]


async def settle_orphans(
    tools: Tools, store: AnyStore, target: Target, sweep: str, in_hand: set[Unit], *, stopping: Callable[[], bool]
) -> tuple[int, Sequence[Tally]]:
    """Settle the target's shards that `sweep` has no more to do with.

    Returns how many permits stay in doubt for good, and the batches of that sweep that took effect and no shard counts.
    `in_hand` are the units that this process has: its own lease would not stand in its way. A shard that can't be
    settled yet is said, and left to the next sweep: it keeps nobody from the other records.
    """
    async with tools.database.transaction(read_only=True) as tx:
        left = await orphaned(tx, target.name, sweep=sweep)
    doubtful = 0
    uncounted: list[Tally] = []
    for unit in left:
        if unit in in_hand:
            continue
        in_hand.add(unit)
        try:
            more, done = await _settled(tools, store, target, unit, sweep, stopping)
        except Fenced:
            continue  # Another worker has it by now, who settles it.
        except (Blind, Unreachable) as error:
            tools.observer(Failed(target.name, error.kind, error.message, error.remedy, sweep))
        else:
            doubtful += more
            uncounted += done
        finally:
            in_hand.discard(unit)
    return doubtful, uncounted


async def _settled(
    tools: Tools, store: AnyStore, target: Target, unit: Unit, sweep: str, stopping: Callable[[], bool]
) -> tuple[int, Sequence[Tally]]:
    async with leased(tools.database, unit, tools.worker, wait=False, stopping=lambda: True) as lease:
        if lease is None:
            return 0, ()
        async with tools.database.transaction(read_only=True) as tx:
            kept = (await units.state(tx, unit)).sweep or {}
        counting = str(kept.get("sweep", ""))
        doubtful, done = await settle(tools, store, target, lease, counting, stopping=stopping)
        return doubtful, [found for of, found in done if of == sweep != counting]
