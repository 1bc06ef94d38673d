"""Permits that have no outcome: the worker crashed, was cut off, or never heard what became of its COMMIT.

Whoever takes the unit over may end such a permit only when its transaction is shown to be over. Between its DELETE and
its COMMIT a batch leaves the outcome it will have, with its transaction's id, in the control database; so afterwards
the server's own record of that transaction tells whether it happened. Nothing is guessed (4-safety).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from retentiond.control import permits
from retentiond.control.database import Database, Tx
from retentiond.domain.permit import Lease, Permit
from retentiond.errors import Unreachable
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.stores.base import Store

_POLL_SECONDS, _PATIENCE_SECONDS = 0.2, 30.0


Body = Mapping[str, kinds.Json]
Credit = Callable[[Tx, Body], Awaitable[None]]
"""Called with an outcome that nobody had written, in the transaction that writes it: it belongs to its sweep's sum."""


async def settle_open_permits(
    database: Database, journal: Journal, store: Store, lease: Lease, credit: Credit
) -> tuple[int, list[Body]]:
    """End every open permit of the unit and write what became of it: how many stay in doubt for good, and the outcomes.

    Raises Unreachable while the target can't be asked.
    """
    async with database.transaction() as tx:
        pending = await permits.open_permits(tx, unit=lease.unit)
    doubtful = 0
    done: list[Body] = []
    for permit in pending:
        await _wait_until_over(store, permit.number)
        prepared = permit.prepared
        fate = await store.fate(str(prepared["transaction"])) if prepared else "aborted"
        if fate == "in progress":
            raise Unreachable(f"the transaction of permit {permit.number} is still in progress")
        entry = kinds.in_doubt(
            permit=permit.number,
            target=lease.unit.target,
            shard=lease.unit.shard,
            batch=str(permit.intent.get("batch", "")),
            found={"committed": "committed", "aborted": "nothing"}.get(fate, "unknown"),
            by=lease.owner,
        )
        body = _outcome(prepared) if fate == "committed" and prepared else None
        entries = [entry, *([kinds.Entry(kinds.Kind.OUTCOME, body)] if body else [])]
        doubtful += fate == "unknown"
        async with database.transaction() as tx:
            mine = await permits.end_orphan(tx, permit.number, fate, lease=lease)
            if mine:
                if body is not None:
                    await credit(tx, body)
                await journal.append(tx, *entries)
        if mine and body is not None:
            done.append(body)
    return doubtful, done


async def give_up(
    database: Database,
    store: Store,
    permit: Permit,
    entry: kinds.Entry | None,
    journal: Journal,
    cursor: Mapping[str, Any] | None = None,
) -> None:
    """End one's own permit whose batch the target refused: its transaction is rolled back, which the target confirms.

    `entry` is what the ledger has to be told of it, if anything; with `cursor` the walk goes on from there. Raises
    Fenced, and Unreachable where the target doesn't confirm it: the permit stays open for `settle_open_permits`.
    """
    await _wait_until_over(store, permit.number)
    async with database.transaction(read_only=True) as tx:
        prepared = await permits.prepared_of(tx, permit)
    fate = await store.fate(str(prepared["transaction"])) if prepared else "aborted"
    if fate != "aborted":
        raise Unreachable(
            f"the batch of permit {permit.number} was called refused, and its transaction is {fate}",
            remedy="nothing to do: the next sweep writes what became of it",
        )
    async with database.transaction() as tx:
        await permits.end(tx, permit, "refused", cursor=cursor)
        if entry is not None:
            await journal.append(tx, entry)


def _outcome(prepared: Mapping[str, object]) -> dict[str, kinds.Json]:
    body: Mapping[str, kinds.Json] = prepared["outcome"]  # type: ignore[assignment]  # written by the sweeper
    return {**body, "verified": "transaction status"}


async def _wait_until_over(store: Store, number: int) -> None:
    # The transaction's own timeouts end it within seconds, unless its backend is stopped.
    for _ in range(int(_PATIENCE_SECONDS / _POLL_SECONDS)):
        if await store.fence_passed(number):
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise Unreachable(
        f"the transaction of permit {number} is still open",
        remedy="end the backend of application retentiond in the target database",
    )
