"""Who watches workers and holds from outside, by connections of its own, and knows what must never be.

It has a model of its own: the rows, whom they belong to and whether they may go, the holds that are in force, the
batches in flight, what each permit's transaction took away, and what the ledger said of it. It takes nothing from the
product but what is written in the two databases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.services.stops import Flight


@dataclass(frozen=True, slots=True)
class Row:
    """`due`: its term is over; it was never refreshed."""

    account: int
    due: bool


@dataclass(slots=True)
class Placed:
    """A hold as the rules of the machine have made it; `at` is the step at which it was placed."""

    accounts: frozenset[int]
    records: frozenset[int]
    at: int
    state: str = "pending"
    effective: bool = False

    def covers(self, key: int, row: Row) -> bool:
        return row.account in self.accounts or key in self.records


@dataclass(slots=True)
class Owned:
    """What the units table said after the last step."""

    fence: int
    owner: str | None
    runs: bool


@dataclass
class Witness:
    """`told` are the violations found where nothing could be raised: a sweep would take them for a target's trouble."""

    target: asyncpg.Connection
    control: asyncpg.Connection
    rows: dict[int, Row] = field(default_factory=dict)
    holds: dict[str, Placed] = field(default_factory=dict)
    gone: dict[int, set[int]] = field(default_factory=dict)
    outcomes: dict[int, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)
    units: dict[tuple[str, str], Owned] = field(default_factory=dict)
    doubts: set[int] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    step: int = 0
    _ledger: int = 0
    _first: int = 0

    async def begin(self, rows: dict[int, Row]) -> None:
        """From here on: what was there before is no concern."""
        self.rows = rows
        self._ledger = await self.control.fetchval("SELECT size FROM retentiond.ledger_head")
        self._first = await self.control.fetchval("SELECT nextval('retentiond.permit_number')")
        self.units = await self._units()

    def in_force(self) -> list[Placed]:
        """The holds whose `effective_at` was told, and which have not ended."""
        return [hold for hold in self.holds.values() if hold.effective and hold.state != "released"]

    def held(self, key: int) -> bool:
        return any(hold.covers(key, self.rows[key]) for hold in self.in_force())

    async def committed(self, flight: Flight) -> None:
        """A batch has sent its COMMIT: what is gone by it, and whether that may be."""
        present = await self._present()
        gone = {key for key in self.rows if key not in present}
        if gone and flight.doomed:
            self.told.append(f"batch {flight.number} could not take effect any more, and took {gone}")
        if gone and flight.permit is None:
            self.told.append(f"batch {flight.number} had no permit and took {gone}")
        self.told += [f"row {key} is held, and went by batch {flight.number}" for key in gone if self.held(key)]
        self.told += [f"row {key} is not due, and went" for key in gone if not self.rows[key].due]
        if gone:
            self.gone[flight.number] = gone
        for key in gone:
            del self.rows[key]

    async def look(self, flights: Iterable[Flight]) -> None:
        """What holds after each step, whatever it was; raises AssertionError."""
        assert not self.told, self.told
        present = await self._present()
        assert present == self.rows.keys(), f"rows {self.rows.keys() ^ present} came or went by no batch"
        await self._look_at_flights(flights)
        before, self.units = self.units, await self._units()
        for unit, owned in self.units.items():
            was = before.get(unit, Owned(0, None, False))
            assert owned.fence >= was.fence, f"the fence of {unit} fell"
            if owned.owner != was.owner and owned.owner is not None:
                assert owned.fence > was.fence, f"{unit} has a new owner under the old fence"
        await self._look_at_permits(before)
        await self._look_at_ledger(before)
        await self._look_at_holds(flights)
        self.step += 1

    async def _look_at_flights(self, flights: Iterable[Flight]) -> None:
        alive = await self.alive()
        for flight in flights:
            first = flight.first in alive and not flight.swapped
            main = flight.main in alive
            if flight.has_fence:
                flight.doomed |= not main or (flight.first is not None and not first)
            else:
                flight.doomed |= not first

    async def alive(self) -> set[int]:
        """The backends that are in a transaction."""
        rows = await self.target.fetch("SELECT pid FROM pg_stat_activity WHERE xact_start IS NOT NULL")
        return {row["pid"] for row in rows}

    def fenced_off(self, flight: Flight, alive: set[int]) -> bool:
        """Whether nothing of the batch has its fence any more."""
        first = flight.first in alive and not flight.swapped
        return flight.over or not (first or (flight.has_fence and flight.main in alive))

    async def _look_at_permits(self, before: dict[tuple[str, str], Owned]) -> None:
        rows = await self.control.fetch(
            "SELECT number, target, shard, owner, fence, outcome FROM retentiond.permits WHERE number > $1", self._first
        )
        for row in rows:
            number, unit = row["number"], (row["target"], row["shard"])
            if number not in self.known:
                was = before.get(unit, Owned(0, None, False))
                now = self.units[unit]
                assert was.fence <= row["fence"] <= now.fence, f"permit {number} of {unit} is under a fence of the past"
                if was.fence == row["fence"]:
                    assert was.runs, f"permit {number} of {unit} was given when the lease was over"
                self.known[number] = row["fence"]
            if number in self.ended:
                assert row["outcome"] == self.ended[number], f"permit {number} ended twice"
            elif row["outcome"] is not None:
                self.ended[number] = row["outcome"]

    async def _look_at_ledger(self, before: dict[tuple[str, str], Owned]) -> None:
        rows = await self.control.fetch(
            "SELECT seq, kind, convert_from(leaf, 'UTF8') AS leaf FROM retentiond.ledger_entries WHERE seq > $1"
            " ORDER BY seq",
            self._ledger,
        )
        for row in rows:
            self._ledger = row["seq"]
            entry = json.loads(row["leaf"])
            if row["kind"] == "in_doubt":
                self._doubt(entry)
            elif row["kind"] == "outcome":
                self._outcome(entry, before)

    def _doubt(self, entry: dict[str, Any]) -> None:
        number = entry["permit"]
        assert number not in self.doubts, f"permit {number} was looked into twice"
        assert number not in self.outcomes, f"permit {number} has an outcome, and was looked into"
        self.doubts.add(number)
        took = bool(self.gone.get(number))
        assert (entry["found"] == "committed") == took, f"permit {number} took effect: {took}; found: {entry['found']}"

    def _outcome(self, entry: dict[str, Any], before: dict[tuple[str, str], Owned]) -> None:
        number, counts = entry["permit"], entry["counts"]
        assert number not in self.outcomes, f"the deletion of permit {number} is told twice"
        assert number in self.ended, f"permit {number} has an outcome and is open"
        gone = len(self.gone.get(number, ()))
        assert counts["erased"] == gone, f"permit {number}: {gone} rows are gone, and the ledger says {counts}"
        self.outcomes[number] = counts["erased"]
        if number not in self.doubts:
            was = before.get((entry["target"], entry["shard"]), Owned(0, None, False))
            assert self.known[number] >= was.fence, f"the outcome of permit {number} came from a fenced worker"

    async def _look_at_holds(self, flights: Iterable[Flight]) -> None:
        rows = await self.control.fetch(
            "SELECT id, state, effective_at FROM retentiond.holds WHERE id = ANY($1)", list(self.holds)
        )
        alive = await self.alive()
        for row in rows:
            hold = self.holds[row["id"]]
            assert row["state"] == hold.state, f"hold {row['id']} is {row['state']}, and should be {hold.state}"
            hold.effective = row["effective_at"] is not None
            if not hold.effective:
                continue
            for flight in flights:
                earlier = flight.permit is not None and flight.permit_at < hold.at
                harmless = flight.doomed or self.fenced_off(flight, alive)
                assert not earlier or harmless, f"hold {row['id']} is active, and batch {flight.number} is in flight"

    async def finished(self) -> None:
        """What holds when everybody is done, and what was left has been recovered."""
        left = await self.control.fetchval("SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL")
        assert left == 0, f"{left} permits are open"
        # One that tells of no row that went tells of one that could not go.
        told = {number: erased for number, erased in self.outcomes.items() if erased}
        gone = {number: len(keys) for number, keys in self.gone.items()}
        assert gone == told, f"deletions and outcomes differ: {gone}, {told}"

    def still_due(self) -> set[int]:
        """What a sweep has still to take: due, and held by nothing, pending holds among them."""
        standing = [hold for hold in self.holds.values() if hold.state != "released"]
        return {
            key for key, row in self.rows.items() if row.due and not any(hold.covers(key, row) for hold in standing)
        }

    async def _present(self) -> set[int]:
        return {row["id"] for row in await self.target.fetch("SELECT id FROM logs")}

    async def _units(self) -> dict[tuple[str, str], Owned]:
        rows = await self.control.fetch(
            "SELECT target, shard, fence, owner, lease_until > clock_timestamp() AS runs FROM retentiond.units"
        )
        return {(row["target"], row["shard"]): Owned(row["fence"], row["owner"], bool(row["runs"])) for row in rows}
