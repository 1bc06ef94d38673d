"""A campaign from its beginning to the verdict: set up, play the schedule, heal, drain, sweep once more, judge."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from tests.campaign import evidence, oracle, report
from tests.campaign.actions import MISSED, Actions, Scene
from tests.campaign.faults import Faults
from tests.campaign.history import History, Violation
from tests.campaign.hosts import hosts
from tests.campaign.schedule import Action, Schedule, draw
from tests.campaign.workers import PRODUCT, Worker
from tests.campaign.world import World, world

_PROGRESS_SECONDS = 10.0
_DRAIN_SECONDS = 240.0
_LAG = timedelta(seconds=20)
"""How far behind daemons may be that are well: a sweep each few seconds, on a machine that has other things to do."""


@dataclass(slots=True)
class Verdict:
    """How a campaign ended."""

    schedule: Schedule
    violations: list[Violation]
    history: History
    folder: Path
    counts: Counter[str]


async def run(seed: int, seconds: float, *, program: tuple[str, ...] = PRODUCT, told: bool = True) -> Verdict:
    """Play the campaign of that seed and judge it; `program` is what is tried, the product unless a test says so."""
    schedule = draw(seed, seconds)
    folder = Path(tempfile.mkdtemp(prefix="rt-campaign-", dir="/tmp"))
    folder.chmod(0o755)
    with world(folder, grace=schedule.grace) as servers:
        random = Random(seed)
        known = await servers.make(random)
        scene = Scene(servers, known, program)
        for account in known:
            await scene.confirm(account, 1)
        await scene.command("sweep", "--json", fine=(0,))
        async with _workers(servers, schedule.workers, program) as workers:
            campaign = Campaign(schedule, scene, workers, known)
            report.begun(schedule, workers, folder, told=told)
            watch = asyncio.create_task(campaign.watch(told=told))
            try:
                await campaign.play()
                history = await campaign.settle()
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            for worker in workers:
                scene.counts.update(worker.struck())
            return Verdict(schedule, oracle.judge(history), history, folder, scene.counts)


class Campaign:
    """One campaign under way."""

    def __init__(self, schedule: Schedule, scene: Scene, workers: Sequence[Worker], known: set[str]) -> None:
        self.schedule, self.scene, self.workers, self.known = schedule, scene, workers, known
        self._does = (Actions(scene), Faults(scene, workers))
        self._began = time.monotonic()
        self._phase = "playing"

    async def play(self) -> None:
        """Carry out the schedule; returns when all that it began has come to an end."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for action in self.schedule.actions:
                await asyncio.sleep(max(0.0, self._began + action.at - time.monotonic()))
                tasks.create_task(self._act(action))
            await asyncio.sleep(max(0.0, self._began + self.schedule.seconds - time.monotonic()))
            self._phase = "ending what was begun"
            self.scene.over.set()

    async def settle(self) -> History:
        """Heal everything, let the daemons come to an end of their work, stop them, sweep once more by hand."""
        self._phase = "healing"
        await self._heal()
        self._phase = "draining"
        await self._drain()
        self._phase = "stopping"
        for worker in self.workers:
            self._note_end(worker)
            if (code := await worker.end(signal.SIGTERM)) != 0:
                self.scene.faults.append(f"worker {worker.name}, healed, answered SIGTERM with exit code {code}")
                await worker.end(signal.SIGKILL)
        at = datetime.now(UTC)
        for _ in range(2):  # an account's row that was written just before the first counts as changed of late in it
            at = datetime.now(UTC)
            swept = await self.scene.command("sweep", "--json", fine=(0,))
            self._require_drained(swept.json["targets"] if swept.code == 0 else {})
        self._phase = "judging"
        return await evidence.complete(self.scene, self.known, at)

    async def watch(self, *, told: bool) -> None:
        """Say how it goes, note workers that have ended by themselves, and keep the servers' logs short."""
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            for worker in self.workers:
                self._note_end(worker)
                if not worker.runs and not worker.busy.locked() and self._phase == "playing":
                    async with worker.busy:
                        await worker.start()
            if self._phase == "playing":
                try:
                    await self.scene.world.read_streams()
                except MISSED:
                    self.scene.counts["log not read"] += 1
            if told:
                report.progress(self._phase, time.monotonic() - self._began, self.scene, self.workers)

    async def _act(self, action: Action) -> None:
        does = next(getattr(each, action.kind) for each in self._does if hasattr(each, action.kind))
        try:
            await does(action)
        except MISSED:
            self.scene.counts["missed"] += 1
        else:
            self.scene.counts[action.kind] += 1

    def _note_end(self, worker: Worker) -> None:
        if (fault := worker.died()) is not None:
            self.scene.faults.append(fault)

    async def _heal(self) -> None:
        """From now on nothing goes wrong; workers that were on their own way are replaced, the others must recover."""
        for worker in self.workers:
            self._note_end(worker)
            for proxy in worker.proxies.values():
                proxy.heal()
            worker.host.plug(on=True)
            if worker.args or worker.clock:
                await worker.end(signal.SIGKILL)
            if not worker.runs:
                await worker.start()

    async def _drain(self) -> None:
        """Until nothing is left that was due a while ago, no hold is pending, and none is in its release."""
        due: list[str] = []
        for _ in range(int(_DRAIN_SECONDS / 3)):
            await asyncio.sleep(3)
            history = await evidence.so_far(self.scene, self.known, datetime.now(UTC) - _LAG)
            due = [str(record) for record in oracle.due_now(history)]
            due += [str(hold) for hold in history.holds if hold.state in ("pending", "releasing")]
            if not due:
                return
        self.scene.faults.append(f"the daemons, healed, have not come to an end: {len(due)} left, such as {due[:3]}")

    def _require_drained(self, targets: dict) -> None:
        for name, outcome in targets.items():
            if outcome["outcome"] != "drained":
                self.scene.faults.append(f"the last sweep of {name}: {outcome}")


@asynccontextmanager
async def _workers(servers: World, count: int, program: tuple[str, ...]) -> AsyncIterator[list[Worker]]:
    """So many workers, running; each on a host of its own, where there can be hosts."""
    with hosts(count) as places:
        workers = [Worker(f"w{index}", servers, host, program) for index, host in enumerate(places)]
        try:
            for worker in workers:
                await worker.connect()
                await worker.start()
            yield workers
        finally:
            for worker in workers:
                await worker.close()


@contextmanager
def kept_if_broken(verdict: Verdict) -> Iterator[None]:
    """The folder with the logs stays where something was broken."""
    try:
        yield
    finally:
        if not verdict.violations:
            shutil.rmtree(verdict.folder, ignore_errors=True)
