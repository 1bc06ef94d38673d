"""Gathers, when all is over, what the oracle judges by: from the servers' logs, the control state, and the ledger."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import asyncpg

from tests.campaign.actions import Scene
from tests.campaign.history import History, Permit
from tests.campaign.rules import Hold, instant


async def holds(scene: Scene) -> list[Hold]:
    """All holds as the product tells them."""
    listed = await scene.command("hold", "list", "--json", fine=(0,))
    return [
        Hold(each["id"], each["scope"], each["state"], instant(each["effective_at"]), instant(each["erasable_at"]))
        for each in listed.json["holds"]
    ]


async def so_far(scene: Scene, known: set[str], at: datetime) -> History:
    """What is needed to say which records are due at that instant."""
    world = scene.world
    found = History(known=known, grace=world.grace, judged_at=at, confirmed=scene.confirmed)
    found.holds = await holds(scene)
    await world.read_streams()
    found.transactions = [each for stream in world.streams.values() for each in stream.transactions]
    found.left = await world.left()
    return found


async def complete(scene: Scene, known: set[str], at: datetime) -> History:
    """The whole history."""
    found = await so_far(scene, known, at)
    found.answers, found.pauses, found.faults = scene.answers, scene.pauses, scene.faults
    found.crashes = scene.crashes
    async with scene.world.connection("control") as connection:
        found.permits = [_permit(row) for row in await connection.fetch(_PERMITS)]
        found.open_permits = sum(permit.outcome is None for permit in found.permits)
        found.takeovers = await connection.fetchval(_TAKEOVERS)
    async with scene.world.connection("app") as connection:
        found.observed = [str(row["key"]) for row in await connection.fetch("SELECT key FROM observed")]
    await _read_ledger(scene, found)
    return found


_PERMITS = (
    "SELECT number, target, issued_at, outcome, prepared ->> 'transaction' AS transaction"
    " FROM retentiond.permits ORDER BY issued_at"
)

# Sweeps of a unit that one worker began and another went on with.
_TAKEOVERS = (
    "SELECT count(*) FROM (SELECT 1 FROM retentiond.permits GROUP BY target, shard, intent ->> 'sweep'"
    " HAVING count(DISTINCT owner) > 1) s"
)


def _permit(row: asyncpg.Record) -> Permit:
    transaction = row["transaction"]
    # The log has a number's low 32 bits.
    xid = None if transaction is None else int(transaction.partition("@")[0]) & 0xFFFFFFFF
    return Permit(row["number"], row["target"], row["issued_at"], xid, row["outcome"])


async def _read_ledger(scene: Scene, history: History) -> None:
    """The ledger as an auditor has it: exported, and verified in the database and offline."""
    folder = scene.world.folder / "ledger"
    shutil.rmtree(folder, ignore_errors=True)
    await scene.command("ledger", "export", "--out", str(folder), fine=(0,))
    for where in ([], [str(folder)]):
        verified = await scene.command("ledger", "verify", *where, "--json", fine=(0,))
        if verified.code != 0 or not verified.json["ok"]:
            history.faults.append(f"the ledger does not verify: {verified.stdout} {verified.stderr}")
    history.ledger = [json.loads(line) for line in (folder / "leaves.jsonl").read_text().splitlines()]
