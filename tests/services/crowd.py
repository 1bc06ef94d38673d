"""Workers on one control database and one table, each a process of its own as far as the servers can tell.

Two of the three have the same name: the same process, which takes its unit again while an earlier sweep of its own is
still stopped somewhere.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg

from retentiond.control import natives
from retentiond.daemon import App
from retentiond.domain.permit import Unit
from retentiond.ledger.verify import verify_database
from retentiond.sweep.engine import Engine
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Health
from tests.services.postgres import Server
from tests.services.stops import Flight, StoppedStore, Stops
from tests.services.sweeping import Rig
from tests.services.witness import Row, Witness

OWNERS = ("one", "one", "other")
ACCOUNTS = (1, 2, 3)
DUE, YOUNG = 9, 3
UNITS = (Unit("logs"), Unit("logs", "1/2"), Unit("logs", "2/2"))
_TABLE = """
CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);
CREATE INDEX ON logs (created_at);
"""
_FILL = f"""
TRUNCATE logs;
INSERT INTO logs SELECT i, 1 + i % 3, now() - interval '400 days' + i * interval '1 minute' FROM generate_series(1, {DUE}) i;
INSERT INTO logs SELECT 1000 + i, i, now() - interval '1 day' FROM generate_series(1, {YOUNG}) i;
"""
_PATIENCE = 120.0


@dataclass
class Worker:
    """One process, or one of two sweeps of a process: stopped, or without a sweep."""

    app: App
    engine: Engine
    stops: Stops
    stack: AsyncExitStack
    task: asyncio.Task[Outcome | None] | None = None

    async def start(self, unit: Unit, *, careful: bool) -> None:
        """Begin a sweep; it goes as far as its first stop."""
        self.stops.careful, self.stops.fault = careful, None
        self.task = asyncio.create_task(self._sweep(unit))
        await self._stopped()

    async def go(self, until: str) -> None:
        """Go on until that step, the end, or where somebody else has to be waited for."""
        while self.task is not None:
            self.stops.go()
            await self._stopped()
            if self.stops.at in (until, "waiting"):
                return

    async def _stopped(self) -> None:
        assert self.task is not None
        reached = asyncio.create_task(self.stops.reached.wait())
        await asyncio.wait({self.task, reached}, return_when=asyncio.FIRST_COMPLETED, timeout=_PATIENCE)
        reached.cancel()
        if self.task.done():
            task, self.task, self.stops.at = self.task, None, None
            self.stops.reached.clear()
            require_no_defect(task.result())
        else:
            assert self.stops.at is not None, "the sweep neither stopped nor ended"

    async def _sweep(self, unit: Unit) -> Outcome | None:
        self.stops.belong_to_this_task()
        if unit.shard:
            return await self.engine.sweep_shard(unit)
        return await self.engine.sweep_if_free(self.app.spec.target(unit.target))


def require_no_defect(outcome: Outcome | None) -> None:
    """A sweep may be fenced, cut off, or refused; an error that is not ours is a defect."""
    error = outcome.error if outcome is not None else None
    assert error is None or error["kind"] != "unexpected", (error, outcome.trace)


class Crowd:
    """The servers' side, the workers, counsel's own App, and the witness. `joined`: control state beside the table."""

    def __init__(self, server: Server, *, native: bool = False, joined: bool = False) -> None:
        self.native, self.joined = native, joined
        self.workers: list[Worker] = []
        self.app: App
        self.witness: Witness
        self._server, self._stack = server, AsyncExitStack()
        self._rig: Rig

    async def build(self) -> None:
        """Databases of its own, a table, a configuration in force."""
        target = await self._database()
        control = target if self.joined else await self._database()
        connections = [await asyncpg.connect(dsn) for dsn in (target, control)]
        for connection in connections:
            self._stack.push_async_callback(connection.close)
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._rig = Rig(target, connections[0], Path(folder), control, accounts=None)
        await connections[0].execute(_TABLE + _FILL + "ANALYZE logs")
        pace = {"duty": 1.0, "max_batch": 3, "shards": 2}
        self._rig.target("logs", tier="free", pace=pace, native_holds=self.native)
        self.app = await self._stack.enter_async_context(self._rig.app())
        await self.app.engine.open(self.app.spec.target("logs"))
        self.witness = Witness(*connections)
        self.workers = [await self._worker(owner) for owner in OWNERS]

    async def begin(self) -> None:
        """A table as at first, nobody's units, a witness that knows of nothing yet."""
        await self.witness.target.execute(_FILL)
        await self.witness.control.execute(
            "UPDATE retentiond.units SET owner = NULL, lease_until = NULL, cursor = NULL, sweep = NULL, outcome = NULL"
        )
        self.witness = Witness(self.witness.target, self.witness.control)
        await self.witness.begin(
            {i: Row(1 + i % 3, due=True) for i in range(1, DUE + 1)}
            | {1000 + i: Row(i, due=False) for i in range(1, YOUNG + 1)}
        )

    async def close(self) -> None:
        """Cut everybody off, and remove the databases."""
        for number in range(len(self.workers)):
            await self._gone(number)
        await self._stack.aclose()

    def flights(self) -> list[Flight]:
        """The batches that have begun and are not over."""
        return [worker.stops.flight for worker in self.workers if worker.stops.flight is not None]

    async def cut(self, pid: int) -> None:
        """End a backend, and return when it is gone."""
        await self.witness.target.execute("SELECT pg_terminate_backend($1, 5000)", pid)

    async def crash(self, number: int) -> None:
        """The process dies at this instant, and another one starts under the same name."""
        owner = self.workers[number].engine.tools.worker
        await self._gone(number)
        self.workers[number] = await self._worker(owner)

    async def let_the_lease_run_out(self, unit: Unit) -> None:
        await self.witness.control.execute(
            "UPDATE retentiond.units SET lease_until = clock_timestamp() - interval '1 second'"
            " WHERE owner IS NOT NULL AND target = $1 AND shard = $2",
            unit.target,
            unit.shard,
        )
        if (owned := self.witness.units.get((unit.target, unit.shard))) is not None:
            owned.runs = False

    async def finish(self) -> None:
        """All that was stopped goes on to its end; then others recover what is left, and sweep until nothing is due."""
        for _ in range(200):
            if not any(worker.task for worker in self.workers):
                break
            for worker in self.workers:
                await worker.go("end")
                await self.witness.look(self.flights())
        await self.settle_native_holds()
        for _ in range(8):
            for unit in UNITS:
                await self.let_the_lease_run_out(unit)
            await self.workers[-1].start(UNITS[0], careful=False)
            await self._to_the_end(self.workers[-1])
            await self.witness.look([])
            if not self.witness.still_due() and await self._is_settled():
                break
        assert not self.witness.still_due(), f"no sweep takes {self.witness.still_due()}"
        await self.witness.finished()

    async def settle_native_holds(self) -> None:
        """As a daemon does whenever it looks; nobody writes meanwhile."""
        for _ in range(1200):
            # After a try that had to wait for writers it lets them have the table for a while; there are none now.
            for native in self.app.native.values():
                native._not_before = 0.0
            if not (left := await natives.settle(self.app.database, self.app.natives())):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"native holds are not in step: {left}")

    async def _to_the_end(self, worker: Worker) -> None:
        for _ in range(2000):
            await worker.go("end")
            if worker.task is None:
                return
            await asyncio.sleep(0.02)  # a server may have to notice yet that its client is gone
        held = await self.witness.target.fetch(
            "SELECT l.pid, a.state, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory'"
        )
        raise AssertionError(f"recovery waits for ever; fences: {held}; units: {await self.witness._units()}")

    async def verify_the_ledger(self) -> None:
        async with self.app.database.transaction() as tx:
            await self.app.journal.checkpoint(tx)
        report = await verify_database(self.app.database, self.app.journal.verifier)
        assert report.ok, report.first_break

    async def _is_settled(self) -> bool:
        return not await self.witness.control.fetchval("SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL")

    async def _worker(self, owner: str) -> Worker:
        stack = AsyncExitStack()
        app = await stack.enter_async_context(self._rig.app(enter=False))
        witness: Callable[[], Witness] = lambda: self.witness  # noqa: E731 - each example has a new one
        # Beside an outcome that is written in the batch's own transaction everybody else waits for the ledger's head.
        leave_out = frozenset({"prepared"}) if self.joined else frozenset()
        stops = Stops(
            now=lambda: witness().step,
            committed=lambda flight: witness().committed(flight),
            cut=self.cut,
            leave_out=leave_out,
        )
        # How this machine is, and who else tests here, is no concern of these sweeps.
        targets = tuple(replace(target, health=Health()) for target in app.spec.targets)
        tools = replace(app.engine.tools, worker=owner, spec=replace(app.spec, targets=targets))
        stores = {name: StoppedStore(store, stops) for name, store in app.engine.stores.items()}
        engine = Engine(tools, stores, None, b"k" * 32)
        return Worker(app, engine, stops, stack)

    async def _gone(self, number: int) -> None:
        worker = self.workers[number]
        pools = [
            worker.app.database._pool,
            *(store._database._pool._pool for store in worker.app.engine.stores.values()),
        ]
        connections = [holder._con for pool in pools if pool is not None for holder in pool._holders]
        pids = [each.get_server_pid() for each in connections if each is not None and not each.is_closed()]
        for pool in pools:
            if pool is not None:
                pool.terminate()
        for pid in pids:
            await self.cut(pid)
        if worker.stops.flight is not None:
            worker.stops.flight.over = True
        if worker.task is not None:
            worker.task.cancel()
            with suppress(asyncio.CancelledError):
                await worker.task
            worker.task = None
        await worker.stack.aclose()

    async def _database(self) -> str:
        name = f"crowd_{uuid.uuid4().hex[:12]}"

        async def administer(statement: str) -> None:
            connection = await asyncpg.connect(self._server.dsn())
            await connection.execute(statement)
            await connection.close()

        await administer(f'CREATE DATABASE "{name}"')
        self._stack.push_async_callback(administer, f'DROP DATABASE "{name}" WITH (FORCE)')
        return self._server.dsn(name)
