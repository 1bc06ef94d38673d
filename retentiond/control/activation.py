"""From `pending` to `active`: when no batch that was let go before the hold can take effect any more.

For each permit of an earlier epoch that has no outcome, the target itself is asked whether its fence holds (the
batch's transaction is over, its request expired). Nothing is waited for while the barrier lock is held; the activation
itself is one short transaction under the exclusive lock, which checks again. Once a hold's placement is committed, the
set of permits it waits for only gets smaller, so an answer that was true stays true. Any process may do it, and several
at once: what one has done, the others find done.

A permit whose fence is an expiry needs nobody to ask: its intent says so, and time alone settles it, also where its
target is configured no more, or as another kind of store. One whose fence is its worker's presence has no
deadline: it is over when the target shows that the worker is gone, or an operator has said so.

Where a target's own database keeps holds as well (`natives`), a hold that covers it has to be in force there first. And
a store whose deletions run later is asked there for those that it has taken on; so its permits are asked about *before*
that: what was let go before the hold has by then been taken on, or never will be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

from retentiond.control import barrier, hold_rows, natives, permits, requests
from retentiond.control.database import Database, Tx
from retentiond.control.hold_rows import Recorder
from retentiond.control.natives import NativeStep
from retentiond.control.outstanding import OpenPermit
from retentiond.domain.holds import Hold, covers_target
from retentiond.domain.permit import Outstanding
from retentiond.errors import RetentiondError, quoted

FenceProbe = Callable[[Outstanding], Awaitable[bool]]
"""Asks a target whether the batch of this permit can't take effect any more; raises Unreachable, Blind."""

LATE_EFFECT_GRACE_SECONDS: Final = 120.0
"""What a server may take to carry out a request that it had accepted in time: `holds.late_effect_grace`."""

PROBE_SECONDS: Final = 10.0
"""How long one answer of a target may take before the target counts as unreachable."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One reason why a hold is still pending: a batch that may still take effect, a failover, a target's own holds."""

    why: Literal["batch", "expiry", "unreachable", "unknown_target", "failover", "native"]
    number: int | None = None
    target: str | None = None
    detail: str = ""


OnWait = Callable[[Hold, tuple[Waiting, ...]], None]


async def activate_pending(
    database: Database,
    fences: Mapping[str, FenceProbe],
    on_wait: OnWait | None = None,
    *,
    native: Mapping[str, NativeStep] | None = None,
    record: Recorder | None = None,
    permit_seconds: float = permits.PERMIT_SECONDS,
    grace_seconds: float = LATE_EFFECT_GRACE_SECONDS,
    probe_seconds: float = PROBE_SECONDS,
) -> list[Hold]:
    """Make active every pending hold that can be, once; returns those that this call made active. Event: `activated`.

    `fences` has a probe for each configured target; a permit of another target keeps a hold pending, unless its fence
    is an expiry: that is over `grace_seconds` (`holds.late_effect_grace`) after its deadline, or by the permit's own
    grace, where that is longer. `native` has those
    whose own database keeps holds; of them those that a pending hold bears on are brought in step. `on_wait` gets each
    hold that stays pending, with the reasons. After a change of server none is activated for `permit_seconds` and
    `grace_seconds` together.
    """
    async with database.transaction(read_only=True) as tx:
        pending = await _pending(tx)
        earlier = await permits.open_permits(tx, before=max(pending.values())) if pending else []
        stranded = await _stranded(tx, pending, (native or {}).keys()) if pending else {}
    if not pending:
        return []
    tried: set[str] = set()

    async def activated(missing: Mapping[str, Mapping[str, str]]) -> list[Hold]:
        there = (
            pending.keys() - tried - stranded.keys() - {hold_id for lacking in missing.values() for hold_id in lacking}
        )
        clear = {hold_id for hold_id in there if _clear(pending[hold_id], earlier, passed)}
        tried.update(clear)
        return await _activate(database, passed, clear, quarantine, record) if clear else []

    quarantine = permit_seconds + grace_seconds
    first = [permit for permit in earlier if permit.fenced_by == "request"]
    answers = await _ask(first, fences, probe_seconds, grace_seconds)
    # Asked after the pending holds were read, so that each of them is among those that are put in force.
    async with aclosing(natives.settling(database, native or {}, only=pending)) as looks:
        missing = await anext(looks)
        answers |= await _ask([each for each in earlier if each not in first], fences, probe_seconds, grace_seconds)
        passed = {number for number, reason in answers.items() if reason is None}
        active = await activated(missing)
        # A target that is slow to answer keeps those holds waiting that it has to do with, and no others.
        async for missing in looks:
            active += await activated(missing)
    blocked = pending.keys() - {hold.id for hold in active}
    if on_wait is not None and blocked:
        await _report(database, blocked, answers, missing, quarantine, on_wait, stranded)
    return active


def _clear(epoch: int, open_now: Collection[OpenPermit], passed: Collection[int]) -> bool:
    """Whether every open permit that was issued before the hold of this epoch has its fence shown to hold."""
    return all(permit.number in passed for permit in open_now if permit.epoch < epoch)


async def _pending(tx: Tx) -> dict[str, int]:
    """The epoch of each pending hold, by id."""
    rows = await tx.fetch("SELECT id, epoch FROM retentiond.holds WHERE state = 'pending' ORDER BY epoch")
    return {row["id"]: row["epoch"] for row in rows}


async def _stranded(tx: Tx, pending: Collection[str], targets: Collection[str]) -> dict[str, str]:
    """The pending holds that may cover what is being deleted in a target that nobody can ask here, and one of those."""
    left = requests.stranded(await requests.unfinished(tx), targets)
    if not left:
        return {}
    rows = await tx.fetch(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds WHERE id = ANY($1)", list(pending))
    return {
        hold.id: target
        for hold in map(hold_rows.from_row, rows)
        for target, class_name in left.items()
        if covers_target(hold.scope, target=target, class_name=class_name)
    }


async def _ask(
    earlier: Collection[OpenPermit], fences: Mapping[str, FenceProbe], seconds: float, grace: float
) -> dict[int, Waiting | None]:
    """For each permit None (its fence holds) or why not; all targets are asked at once."""
    found = await asyncio.gather(*(_ask_one(permit, fences.get(permit.target), seconds, grace) for permit in earlier))
    return {permit.number: reason for permit, reason in zip(earlier, found, strict=True)}


def _expiry(permit: OpenPermit, grace: float) -> Waiting | None:
    if permit.outstanding.expired(grace):
        return None
    left = max(permit.outstanding.left(grace), 0.0)
    told = f"requests of batch {permit.batch} have no outcome yet, and may take effect for {left:.0f} s more"
    return Waiting("expiry", permit.number, permit.target, told)


async def _ask_one(permit: OpenPermit, probe: FenceProbe | None, seconds: float, grace: float) -> Waiting | None:
    if permit.fenced_by == "expiry":
        return _expiry(permit, grace)
    if permit.outstanding.declared_gone:
        return None
    if probe is None:
        return Waiting("unknown_target", permit.number, permit.target, "no such target is configured here")
    try:
        async with asyncio.timeout(seconds):
            over = await probe(permit.outstanding)
    except TimeoutError:
        return Waiting("unreachable", permit.number, permit.target, "no answer in time")
    except (RetentiondError, OSError) as error:
        return Waiting("unreachable", permit.number, permit.target, quoted(error))
    if over:
        return None
    told = f"batch {permit.batch} is not over yet"
    if permit.fenced_by == "presence":
        told = f"the worker of batch {permit.batch} is there, and has not said yet what came of it: {permit.owner}"
    return Waiting("batch", permit.number, permit.target, told)


async def _activate(
    database: Database, passed: Collection[int], there: Collection[str], quarantine: float, record: Recorder | None
) -> list[Hold]:
    """Activate what can be of `there` under the exclusive lock, judged anew.

    `there` are in force in all targets that keep them themselves: nobody takes one away there that is pending.
    """
    async with database.transaction() as tx:
        await barrier.enter_alone(tx)
        await barrier.observe(tx)
        pending = await _pending(tx)
        if not pending or await barrier.quarantined(tx, quarantine):
            return []
        open_now = await permits.open_permits(tx, before=max(pending.values()))
        clear = [hold_id for hold_id, epoch in pending.items() if _clear(epoch, open_now, passed)]
        ready = [hold_id for hold_id in clear if hold_id in there]
        if ready:
            await barrier.bump(tx)
        active = []
        for hold_id in ready:
            hold = await hold_rows.change(tx, hold_id, "state = 'active', effective_at = pg_catalog.clock_timestamp()")
            active.append(hold)
            if record is not None:
                await record(tx, hold, "activated")
        return active


async def _report(
    database: Database,
    blocked: Collection[str],
    answers: Mapping[int, Waiting | None],
    missing: Mapping[str, Mapping[str, str]],
    quarantine: float,
    on_wait: OnWait,
    stranded: Mapping[str, str],
) -> None:
    """Say for each hold that is still pending what it waits for."""
    async with database.transaction(read_only=True) as tx:
        failover = await barrier.quarantined(tx, quarantine)
        rows = await tx.fetch(
            f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds WHERE id = ANY($1) AND state = 'pending'", list(blocked)
        )
        open_now = await permits.open_permits(tx)
    for row in rows:
        reasons = [Waiting("failover", detail=_FAILOVER)] if failover else []
        earlier = (permit.number for permit in open_now if permit.epoch < row["epoch"])
        reasons.extend(reason for number in earlier if (reason := answers.get(number)))
        reasons.extend(
            Waiting("native", target=target, detail=f"not in force in the store itself: {lacking[row['id']]}")
            for target, lacking in missing.items()
            if row["id"] in lacking
        )
        if row["id"] in stranded:
            told = "no such target is configured here, and it has deletions under way that nobody can ask for"
            reasons.append(Waiting("unknown_target", target=stranded[row["id"]], detail=told))
        on_wait(hold_rows.from_row(row), tuple(reasons))


_FAILOVER = "the control database has failed over or was restored: permits from before may still be out"
