"""Permits that have no outcome: the worker crashed, was cut off, or never heard what became of its batch.

Whoever takes the unit over may end such a permit only when its batch can't take effect any more: its transaction is
shown to be over, its requests have expired and the server has had its time for those that it accepted before, or its
worker is shown to be gone. What the batch left in the control database before its effect then tells where to look: a
transaction's fate is in the server's own record, and records that were to go are there or not. Nothing is guessed
(4-safety).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from retentiond.control import permits
from retentiond.control.activation import FenceProbe
from retentiond.control.database import Database, Tx
from retentiond.control.outstanding import OpenPermit
from retentiond.control.permits import PERMIT_SECONDS
from retentiond.domain.permit import Lease, Outstanding, Permit
from retentiond.errors import Blind, Unreachable
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.stores.base import AnyStore, Deferring, Fate, Present, Tally, Transactional
from retentiond.sweep.asked import write_down
from retentiond.sweep.told import as_found

_POLL_SECONDS, _PATIENCE_SECONDS = 0.2, 30.0
_EXPIRY_POLL_SECONDS = 1.0

PLACE = "place"
"""Where in what a batch prepares it stands what it is over: a target may be another one since."""

Body = Mapping[str, kinds.Json]
Credit = Callable[[Tx, Body], Awaitable[None]]
"""Called with an outcome that nobody had written, in the transaction that writes it: it belongs to its sweep's sum."""


def _never() -> bool:
    return False


def probe_of(store: AnyStore) -> FenceProbe | None:
    """What asks the target whether a permit's batch there can't take effect any more; None: there time alone tells."""
    if store.fence == "expiry":
        return None
    asked = store

    async def probe(permit: Outstanding) -> bool:
        if permit.fence != asked.fence:
            raise _of_another_kind(permit, asked.name, asked.kind)
        return await asked.fence_passed(permit)

    return probe


async def settle_open_permits(
    database: Database,
    journal: Journal,
    store: AnyStore,
    lease: Lease,
    credit: Credit,
    *,
    grace: timedelta,
    stopping: Callable[[], bool] = _never,
) -> tuple[int, list[Body]]:
    """End every open permit of the unit and write what became of it: how many stay in doubt for good, and the outcomes.

    `grace` is `holds.late_effect_grace`; where time has to pass it is waited for, but not by who is `stopping`. Raises
    Unreachable while the target can't be asked or its batch may still take effect, and Blind where the target is of
    another kind now and can't be asked at all.
    """
    async with database.transaction() as tx:
        pending = await permits.open_permits(tx, unit=lease.unit)
    doubtful = 0
    done: list[Body] = []
    for permit in pending:
        fate = await fate_of(database, store, permit, grace=grace, stopping=stopping)
        body = _outcome(permit.prepared, fate)
        entries = [doubt(permit, fate, by=lease.owner), *([kinds.Entry(kinds.Kind.OUTCOME, body)] if body else [])]
        doubtful += fate.kind == "unknown"
        async with database.transaction() as tx:
            mine = await permits.end_orphan(tx, permit.number, fate.kind, lease=lease)
            if mine:
                if body is not None:
                    await credit(tx, body)
                if fate.taken and permit.prepared is not None:
                    prepared = permit.prepared
                    entries += await write_down(
                        tx,
                        fate.taken,
                        permit.number,
                        prepared["outcome"],
                        prepared["salt"],
                        by=lease.owner,
                        place=store.records,
                    )
                await journal.append(tx, *entries)
        if mine and fate.kind == "aborted" and store.fence == "transaction":
            await store.clear(permit.batch, permit.issued_at)
        if mine and body is not None:
            done.append(body)
    return doubtful, done


async def fate_of(
    database: Database, store: AnyStore, permit: OpenPermit, *, grace: timedelta, stopping: Callable[[], bool]
) -> Fate:
    """What became of the permit's batch, once it can't take effect any more; raises as `settle_open_permits`."""
    prepared = permit.prepared
    if permit.fenced_by == "expiry":
        if prepared is None:
            # Nothing is sent before it is prepared, and only who has the lease can prepare.
            return Fate("aborted")
        await _until_expired(database, permit, grace.total_seconds(), stopping)
    elif permit.outstanding.declared_gone:
        pass  # an operator's word for it, which is in the ledger
    elif permit.fenced_by == "request" == store.fence:
        if prepared is None:
            # As above: it is written down before the store is asked for anything.
            return Fate("aborted")
        await _until_closed(database, store, permit, grace.total_seconds(), stopping)
    elif permit.fenced_by == "transaction" == store.fence:
        await _until_over(store, permit.outstanding)
    elif store.fence == "presence" == permit.fenced_by:
        await _until_gone(store, permit, stopping)
    else:
        raise _of_another_kind(permit.outstanding, permit.target, store.kind)
    if prepared is None:
        return Fate("aborted")
    if permit.fenced_by != store.fence or prepared.get(PLACE, list(store.records)) != list(store.records):
        return Fate("unknown")
    fate = await store.fate(prepared)
    if fate.kind == "in progress":
        raise Unreachable(f"the transaction of permit {permit.number} is still in progress")
    return fate


async def give_up(
    database: Database,
    store: Transactional,
    permit: Permit,
    entry: kinds.Entry | None,
    journal: Journal,
    cursor: Mapping[str, Any] | None = None,
) -> None:
    """End one's own permit whose batch the target refused: its transaction is rolled back, which the target confirms.

    `entry` is what the ledger has to be told of it, if anything; with `cursor` the walk goes on from there. Raises
    Fenced, and Unreachable where the target doesn't confirm it: the permit stays open for `settle_open_permits`.
    """
    await _until_over(store, Outstanding(permit.number, permit.issued_at, permit.deadline, float("-inf")))
    async with database.transaction(read_only=True) as tx:
        prepared = await permits.prepared_of(tx, permit)
    fate = (await store.fate(prepared)).kind if prepared else "aborted"
    if fate != "aborted":
        raise Unreachable(
            f"the batch of permit {permit.number} was called refused, and its transaction is {fate}",
            remedy="nothing to do: the next sweep writes what became of it",
        )
    async with database.transaction() as tx:
        await permits.end(tx, permit, "refused", cursor=cursor)
        if entry is not None:
            await journal.append(tx, entry)


def doubt(permit: OpenPermit, fate: Fate, *, by: str) -> kinds.Entry:
    """What the ledger is told of a permit that had to be looked into."""
    found = {"committed": "committed", "aborted": "nothing", "looked": "looked"}.get(fate.kind, "unknown")
    return kinds.in_doubt(
        permit=permit.number,
        target=permit.target,
        shard=permit.shard,
        batch=str(permit.intent.get("batch", "")),
        found=found,
        by=by,
    )


def _outcome(prepared: Mapping[str, Any] | None, fate: Fate) -> Body | None:
    """The outcome that is due to the ledger; None where nothing happened, or that can't be told."""
    if prepared is None or fate.kind not in ("committed", "looked"):
        return None
    body: Mapping[str, kinds.Json] = prepared["outcome"]
    if fate.kind == "looked":
        return as_found(body, fate.found or Tally())
    return {**body, "verified": "transaction status"}


async def _until_over(store: Transactional, permit: Outstanding) -> None:
    # The transaction's own timeouts end it within seconds, unless its backend is stopped.
    for _ in range(int(_PATIENCE_SECONDS / _POLL_SECONDS)):
        if await store.fence_passed(permit):
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise Unreachable(
        f"the transaction of permit {permit.number} is still open",
        remedy="end the backend of application retentiond in the target database",
    )


async def _until_gone(store: Present, permit: OpenPermit, stopping: Callable[[], bool]) -> None:
    """Wait for a worker that is only slow; one that is stopped may be so for ever."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not await store.fence_passed(permit.outstanding):
        if stopping() or time.monotonic() > until:
            raise Unreachable(
                f"worker {permit.owner} has permit {permit.number} of target {permit.target}, and is still there",
                remedy=f"end that process, if it does nothing; where nothing shows it, `{end_command(permit.number)}`",
            )
        await asyncio.sleep(_POLL_SECONDS)


def end_command(number: int) -> str:
    """The command by which an operator says that the worker of a permit is gone."""
    return f"retentiond permit end {number} --worker-is-gone --reason TEXT"


def _of_another_kind(permit: Outstanding, target: str, kind: str) -> Blind:
    kinds_of = {
        "presence": "a worker's presence",
        "request": "deletions that run later",
        "expiry": "requests that expire",
    }
    made = kinds_of.get(permit.fence, "a transaction")
    return Blind(
        f"permit {permit.number} is of {made} of target {target}, which is no {kind} target's",
        remedy="configure the target as it was until its next sweep, and give the new one another name",
    )


async def _until_closed(
    database: Database, store: Deferring, permit: OpenPermit, grace: float, stopping: Callable[[], bool]
) -> None:
    """Wait until the store takes no request under the permit any more."""
    until = time.monotonic() + PERMIT_SECONDS + max(grace, permit.outstanding.grace) + _PATIENCE_SECONDS
    found: OpenPermit | None = permit
    while found is not None and not await store.fence_passed(found.outstanding):
        if stopping() or time.monotonic() > until:
            raise Unreachable(
                f"the store may still take on deletions under permit {permit.number}",
                remedy="nothing to do: the next sweep looks what became of them",
            )
        await asyncio.sleep(_EXPIRY_POLL_SECONDS)
        async with database.transaction(read_only=True) as tx:
            found = await permits.still_open(tx, permit.number)


async def _until_expired(database: Database, permit: OpenPermit, grace: float, stopping: Callable[[], bool]) -> None:
    """Wait until no request of the permit can take effect; by the clocks, asked anew each time."""
    until = time.monotonic() + PERMIT_SECONDS + max(grace, permit.outstanding.grace) + _PATIENCE_SECONDS
    found: OpenPermit | None = permit
    while found is not None and not found.outstanding.expired(grace):
        left = found.outstanding.left(grace)
        if stopping() or time.monotonic() > until:
            raise Unreachable(
                f"requests of permit {permit.number} may take effect for {left:.0f} s more",
                remedy="nothing to do: the next sweep looks what became of them; if that number does not fall, see the "
                "clocks of this host and of the control database",
            )
        await asyncio.sleep(min(_EXPIRY_POLL_SECONDS, max(left, _POLL_SECONDS)))
        async with database.transaction(read_only=True) as tx:
            found = await permits.still_open(tx, permit.number)
