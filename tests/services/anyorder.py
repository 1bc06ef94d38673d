"""Holds, leases, permits and batches in any order: the machine that Hypothesis drives, and how long it does.

Each rule is one event of life: a worker goes on to its next step and is stopped again, a connection or a process dies, a
lease runs out, counsel places or releases a hold, the application changes rows. After each, the witness looks.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack, suppress
from typing import Self

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retentiond.control import holds, units
from retentiond.domain.holds import HoldState, Scope
from retentiond.errors import Fenced, UsageError
from retentiond.sweep import enforced, recovery
from tests.services.crowd import ACCOUNTS, DUE, OWNERS, UNITS, Crowd
from tests.services.native import HELD
from tests.services.postgres import Server
from tests.services.stops import STEPS, Flight, SteppedAsyncio
from tests.services.witness import Placed, Row

WORKERS = st.integers(0, len(OWNERS) - 1)
UNIT = st.sampled_from(UNITS)
UNTIL = st.sampled_from((*STEPS, "end"))
TROUBLE = (
    "dies",
    "main connection dies",
    "first connection dies",
    "first connection is swapped",
    "cut before COMMIT",
    "answer lost",
)
PICK = st.integers(0, 9)


def profile(examples: int) -> settings:
    """So many examples, always the same ones; with RETENTIOND_EXAMPLES so many, each time others, made smaller."""
    longer = int(os.environ.get("RETENTIOND_EXAMPLES", "0"))
    usual = (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(
        max_examples=longer or examples,
        stateful_step_count=40,
        phases=(*usual, Phase.shrink) if longer else usual,
        derandomize=not longer,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class World:
    """A crowd that lasts over examples, as long as each ends well; else the next one gets another."""

    def __init__(self, server: Server, *, native: bool = False, joined: bool = False) -> None:
        self.native, self.joined = native, joined
        self._server = server
        self._crowd: Crowd | None = None
        self._clean = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        for module in (enforced, recovery):
            patch.setattr(module, "asyncio", SteppedAsyncio())
        self.runner = self._stack.enter_context(asyncio.Runner())
        return self

    def __exit__(self, *error: object) -> None:
        if self._crowd is not None:
            self.runner.run(self._crowd.close())
        self._stack.close()

    def begin(self) -> Crowd:
        if self._crowd is not None and not self._clean:
            self.runner.run(self._crowd.close())
            self._crowd = None
        if self._crowd is None:
            crowd = Crowd(self._server, native=self.native, joined=self.joined)
            self.runner.run(crowd.build())
            self._crowd = crowd
        self._clean = False
        self.runner.run(self._crowd.begin())
        return self._crowd

    def ended_well(self) -> None:
        self._clean = True


class AnyOrder(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.late = DUE
        self.crowd = self.world.begin()

    def run(self, coroutine, *, expect=()):
        """What it comes to; after any error but an expected one the example is over."""
        try:
            return self.world.runner.run(coroutine)
        except expect:
            raise
        except BaseException:
            self.broken = True
            raise

    def teardown(self) -> None:
        if not self.broken:
            self.run(self.finish())
            self.world.ended_well()

    async def finish(self) -> None:
        await self.crowd.finish()
        await self.crowd.verify_the_ledger()
        await self.end_all_holds()
        await self.crowd.settle_native_holds()

    async def end_all_holds(self) -> None:
        for hold_id, hold in self.witness.holds.items():
            if hold.state == "releasing":
                await holds.reinstate(self.database, hold_id, "counsel", "its grace is long", record=self.recorder)
            if hold.state != "released":
                await holds.release(self.database, hold_id, "counsel", "over", grace_seconds=0, record=self.recorder)
        await holds.finish_releases(self.database, record=self.recorder)

    @property
    def database(self):
        return self.crowd.app.database

    @property
    def witness(self):
        return self.crowd.witness

    @property
    def recorder(self):
        return self.crowd.app.hold_recorder("counsel")

    # --- Workers ---

    @rule(who=WORKERS, unit=UNIT, careful=st.booleans(), until=UNTIL)
    def a_worker_goes_on(self, who, unit, careful, until):
        """To that step of the sweep that it has begun, or of a new one."""
        worker = self.crowd.workers[who]
        if worker.task is None:
            self.run(worker.start(unit, careful=careful))
        if worker.stops.at != until:
            self.run(worker.go(until))

    @rule(who=WORKERS, until=st.sampled_from(("permitted", "deleted", "prepared")))
    def a_worker_is_stopped_in_the_middle_of_a_batch(self, who, until):
        self.a_worker_goes_on(who, UNITS[0], careful=False, until=until)

    @rule(who=WORKERS)
    def a_worker_goes_on_to_the_end(self, who):
        self.run(self.crowd.workers[who].go("end"))

    @rule(unit=UNIT, who=WORKERS, until=UNTIL)
    def a_lease_runs_out_and_another_worker_comes(self, unit, who, until):
        self.run(self.crowd.let_the_lease_run_out(unit))
        self.a_worker_goes_on(who, unit, careful=False, until=until)

    @rule(who=WORKERS)
    def a_worker_renews_its_lease(self, who):
        flight = self.crowd.workers[who].stops.flight
        if flight is None or flight.permit is None:
            return
        lease = flight.permit.lease
        owned = self.witness.units[lease.unit.target, lease.unit.shard]
        mine = owned.runs and (owned.owner, owned.fence) == (lease.owner, lease.fence)

        async def renew():
            async with self.database.transaction() as tx:
                await units.renew(tx, lease)

        try:
            self.run(renew(), expect=Fenced)
        except Fenced:
            assert not mine
        else:
            assert mine, f"{lease} was renewed, and the unit is {owned}"

    @rule(who=WORKERS, trouble=st.sampled_from(TROUBLE))
    def something_happens_to_a_worker(self, who, trouble):
        stops = self.crowd.workers[who].stops
        if trouble in ("cut before COMMIT", "answer lost"):
            stops.fault = trouble
        elif trouble == "dies":
            self.run(self.crowd.crash(who))
        elif stops.flight is not None and not stops.flight.over:
            self.run(self.disconnect(stops.flight, trouble))

    async def disconnect(self, flight: Flight, trouble: str) -> None:
        if trouble == "main connection dies":
            await self.crowd.cut(flight.main)
        elif flight.first is not None and trouble == "first connection dies":
            await self.crowd.cut(flight.first)
        elif flight.first is not None and not flight.swapped:
            # What a pooler does that puts another server's connection under the client's.
            flight.swapped = True
            with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):  # it may be dead already
                await flight.batch._aside.execute("ROLLBACK; BEGIN")

    @rule(who=WORKERS)
    def a_quick_batch_loses_its_first_transaction_while_the_permit_is_asked_for(self, who):
        self.a_worker_goes_on(who, UNITS[0], careful=False, until="permitted")
        flight = self.crowd.workers[who].stops.flight
        if flight is not None:
            self.run(self.disconnect(flight, "first connection is swapped"))

    # --- Counsel ---

    @rule(
        account=st.sampled_from(ACCOUNTS), record=st.integers(1, DUE), by_account=st.booleans(), at_once=st.booleans()
    )
    def counsel_places_a_hold(self, account, record, by_account, at_once):
        scope = Scope(accounts=(str(account),)) if by_account else Scope(records={"logs": (str(record),)})
        draft = holds.HoldDraft("case", "why", scope)
        hold = self.run(holds.place(self.database, draft, "counsel", record=self.recorder))
        covered = (frozenset({account}), frozenset()) if by_account else (frozenset(), frozenset({record}))
        self.witness.holds[hold.id] = Placed(*covered, at=self.witness.step)
        if at_once:
            self.activate()

    @rule(who=WORKERS, account=st.sampled_from(ACCOUNTS))
    def a_hold_comes_when_a_plan_is_made(self, who, account):
        self.a_worker_goes_on(who, UNITS[0], careful=False, until="planned")
        self.counsel_places_a_hold(account, 1, by_account=True, at_once=True)

    @rule()
    def a_daemon_activates_what_can_be(self):
        self.activate()

    def activate(self):
        self.run(self.activated())

    async def activated(self, again: int = 600) -> None:
        """A hold becomes active at once when no earlier batch is in flight; native ones wait for writers as well."""
        alive = await self.witness.alive()
        waits = {
            hold_id: any(
                flight.permit is not None and flight.permit_at < hold.at and not self.witness.fenced_off(flight, alive)
                for flight in self.crowd.flights()
            )
            for hold_id, hold in self.witness.holds.items()
            if hold.state == "pending"
        }
        fences, native = self.crowd.app.fences(), self.crowd.app.natives()
        found = await holds.activate_pending(self.database, fences, native=native, record=self.recorder)
        for hold in found:
            assert not waits[hold.id], f"hold {hold.id} is active, and a batch that was let go before it is in flight"
            self.witness.holds[hold.id].state = "active"
        left = {hold_id for hold_id, waiting in waits.items() if not waiting} - {hold.id for hold in found}
        if left and not self.world.native:
            # A client that is gone may be news to the server still.
            assert again, f"nothing is in flight that holds {left} have to wait for, and they are not active"
            await asyncio.sleep(0.05)
            await self.activated(again - 1)

    def picked(self, pick):
        found = list(self.witness.holds)
        return found[pick % len(found)] if found else None

    @rule(pick=PICK, grace=st.sampled_from((0, 0, 1000)), at_once=st.booleans())
    def counsel_releases(self, pick, grace, at_once):
        """And with `at_once` a daemon ends it, if its grace is over."""
        if (hold_id := self.picked(pick)) is None:
            return
        hold = self.witness.holds[hold_id]
        change = holds.release(self.database, hold_id, "counsel", "over", grace_seconds=grace, record=self.recorder)
        try:
            self.run(change, expect=UsageError)
        except UsageError:
            assert hold.state in ("releasing", "released")
        else:
            assert hold.state in ("pending", "active")
            hold.state = "releasing"
        if at_once:
            self.a_daemon_ends_releases_whose_grace_is_over()

    @rule(pick=PICK)
    def counsel_reinstates(self, pick):
        if (hold_id := self.picked(pick)) is None:
            return
        hold = self.witness.holds[hold_id]
        change = holds.reinstate(self.database, hold_id, "counsel", "not over", record=self.recorder)
        try:
            found = self.run(change, expect=UsageError)
        except UsageError:
            assert hold.state != "releasing"
        else:
            assert hold.state == "releasing"
            hold.state = "active" if hold.effective else "pending"
            assert found.state == hold.state

    @rule()
    def a_daemon_ends_releases_whose_grace_is_over(self):
        for hold in self.run(holds.finish_releases(self.database, record=self.recorder)):
            assert hold.state is HoldState.RELEASED
            assert self.witness.holds[hold.id].state == "releasing"
            self.witness.holds[hold.id].state = "released"

    # --- The application ---

    @rule(record=st.integers(1, DUE))
    def the_application_refreshes_a_row(self, record):
        """Where nobody has it locked."""
        self.run(self.refresh(record))

    async def refresh(self, record: int) -> None:
        done = await self.witness.target.fetchval(
            "UPDATE logs SET created_at = now() WHERE id ="
            " (SELECT id FROM logs WHERE id = $1 FOR UPDATE SKIP LOCKED) RETURNING id",
            record,
        )
        if done is not None:
            self.witness.rows[record] = Row(self.witness.rows[record].account, due=False)

    @rule(account=st.sampled_from(ACCOUNTS))
    def a_late_row_comes_in(self, account):
        self.late += 1
        self.run(
            self.witness.target.execute(
                "INSERT INTO logs VALUES ($1, $2, now() - interval '399 days')", self.late, account
            )
        )
        self.witness.rows[self.late] = Row(account, due=True)

    @rule(record=st.integers(1, DUE))
    def somebody_else_deletes_a_row(self, record):
        """Native holds refuse it from the moment at which the hold is active; nobody else is refused anything."""
        self.run(self.delete(record))

    async def delete(self, record: int) -> None:
        held = record in self.witness.rows and self.witness.held(record)
        if held and not self.world.native:
            return
        try:
            gone = await self.witness.target.fetchval(
                "DELETE FROM logs WHERE id = (SELECT id FROM logs WHERE id = $1 FOR UPDATE SKIP LOCKED) RETURNING id",
                record,
            )
        except asyncpg.PostgresError as error:
            assert error.sqlstate == HELD, error
            standing = [hold for hold in self.witness.holds.values() if hold.state != "released" or hold.effective]
            assert any(hold.covers(record, self.witness.rows[record]) for hold in standing), "refused for no hold"
            return
        if gone is not None:
            assert not held, f"the database let somebody delete row {record}, which is held"
            del self.witness.rows[record]

    @invariant()
    def the_witness_finds_nothing_wrong(self):
        self.run(self.witness.look(self.crowd.flights()))
