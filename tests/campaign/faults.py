"""What goes wrong in a campaign: with workers, with the network between them and the servers, with the servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

from tests.campaign.actions import Scene
from tests.campaign.proxy import Armed, Fault, Proxy
from tests.campaign.rules import TARGETS
from tests.campaign.schedule import CLOCKS, ROLES, Action
from tests.campaign.workers import Worker
from tests.services import postgres
from tests.services.postgres import Server

_BEING_CHANGED = (
    "SELECT DISTINCT c.relname FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation"
    " WHERE a.state = 'idle in transaction' AND a.application_name = 'retentiond' AND l.mode = 'RowExclusiveLock'"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.relname = ANY($1)"
)


class Faults:
    """The faults, by the names of the schedule's kinds. One that finds its victim in the hands of another is skipped."""

    def __init__(self, scene: Scene, workers: Sequence[Worker]) -> None:
        self._scene, self._workers = scene, workers
        self.servers = {"app": asyncio.Lock(), "control": asyncio.Lock()}

    # --- Workers ---

    async def kill(self, action: Action) -> None:
        await self._replaced(action, signal.SIGKILL)

    async def terminate(self, action: Action) -> None:
        await self._replaced(action, signal.SIGTERM)

    async def stop(self, action: Action) -> None:
        """Stopped, mostly for a moment and now and then for longer than a permit or a lease lives; and then goes on."""
        random, worker = action.random(), self._worker(action)
        if worker.busy.locked() or not worker.runs:
            return self._skipped()
        async with worker.busy:
            worker.signal(signal.SIGSTOP)
            shortest, longest = random.choice([(1, 5), (1, 5), (5, 20), (31, 45)])
            await self._scene.sleep(random.uniform(shortest, longest))
            worker.signal(signal.SIGCONT)
        return None

    async def _replaced(self, action: Action, number: signal.Signals) -> None:
        random, worker = action.random(), self._worker(action)
        if worker.busy.locked() or not worker.runs:
            return self._skipped()
        async with worker.busy:
            ready = worker.ready
            code = await worker.end(number)
            if number is signal.SIGTERM and ready and code != 0:
                self._scene.faults.append(f"worker {worker.name} answered SIGTERM with exit code {code}")
                await worker.end(signal.SIGKILL)
            await self._scene.sleep(random.uniform(0.2, 8))
            await worker.start(random.choice(ROLES), random.choice(CLOCKS))
        return None

    # --- The network ---

    async def cut(self, action: Action) -> None:
        self._proxy(action).cut()

    async def partition(self, action: Action) -> None:
        proxy = self._proxy(action)
        proxy.partition(on=True)
        await self._scene.sleep(action.random().uniform(1, 20))
        proxy.partition(on=False)

    async def freeze(self, action: Action) -> None:
        proxy = self._proxy(action)
        proxy.freeze(on=True)
        await self._scene.sleep(action.random().uniform(1, 20))
        proxy.freeze(on=False)

    async def unplug(self, action: Action) -> None:
        """A host's cable is pulled, where workers have hosts of their own."""
        host = self._worker(action).host
        if host.cable is None:
            return self._skipped()
        host.plug(on=False)
        await self._scene.sleep(action.random().uniform(2, 25))
        host.plug(on=True)
        return None

    async def lose_commit(self, action: Action) -> None:
        self._arm(action, "lose")

    async def late_commit(self, action: Action) -> None:
        self._arm(action, "late")

    async def drop_commit(self, action: Action) -> None:
        self._arm(action, "drop")

    async def hold_in_a_batch(self, action: Action) -> None:
        """A hold comes on the records of a batch whose COMMIT is on its way and arrives seconds later."""
        random, armed = action.random(), Armed("late", 7.0)  # a transaction may be idle for 8
        target = random.choice([each for each in TARGETS.values() if each.database == "app"])
        proxies = [worker.proxies["app"] for worker in self._workers]
        for proxy in proxies:
            proxy.armed.appendleft(armed)
        try:
            await self._scene.world.insert(target, self._scene.accounts, 60, random)
            async with asyncio.timeout(30):
                while all(armed in proxy.armed for proxy in proxies):
                    await asyncio.sleep(0.05)
        finally:
            for proxy in proxies:
                if armed in proxy.armed:
                    proxy.armed.remove(armed)
        async with self._scene.world.connection("app") as connection:
            targets = [row["relname"] for row in await connection.fetch(_BEING_CHANGED, list(TARGETS))]
        if not targets:  # it has ended meanwhile
            return self._skipped()
        scope = [each for target in targets for each in ("--target", target)]
        if (hold := await self._scene.hold(*scope)) is not None:
            await self._scene.command("hold", "release", hold, "--reason", "r")
        return None

    # --- Servers ---

    async def crash_target(self, action: Action) -> None:
        await self._crash("app", self._scene.world.app, action.random())

    async def crash_control(self, action: Action) -> None:
        await self._crash("control", self._scene.world.control, action.random())

    async def _crash(self, name: str, server: Server, random: Random) -> None:
        if self.servers[name].locked():
            return self._skipped()
        async with self.servers[name]:
            await asyncio.to_thread(postgres.crash, server)
            self._scene.crashes.append(("app" if name == "app" else "far", datetime.now(UTC)))
            await self._scene.sleep(random.uniform(0, 4))
            await asyncio.to_thread(postgres.restart, server)
        return None

    # --- Whom it strikes ---

    def _worker(self, action: Action) -> Worker:
        return self._workers[action.seed % len(self._workers)]

    def _proxy(self, action: Action) -> Proxy:
        return self._worker(action).proxies["control" if action.random().random() < 0.35 else "app"]

    def _arm(self, action: Action, fault: Fault) -> None:
        """The next COMMIT; of a target more often than of the control state."""
        self._proxy(action).armed.append(Armed(fault, action.random().uniform(0.5, 12)))

    def _skipped(self) -> None:
        self._scene.counts["skipped"] += 1
