"""The daemon's loop: once a second it looks at the control database and begins what is due; nothing in it may end it.

A sweep or a job that fails is a fault of its check, is logged and counted, and is tried again; so is a tick. While the
control database is away nothing is begun, and no batch gets a permit; when it is back, work goes on by itself.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from retentiond import __version__, logs
from retentiond.control import overview
from retentiond.control.overview import Overview
from retentiond.control.workers import Role
from retentiond.daemon import App, enter_mode, open_app
from retentiond.daemon_crew import Crew
from retentiond.daemon_http import serving
from retentiond.daemon_jobs import BY, Jobs
from retentiond.daemon_ready import CLOCK, CONTROL, LOOP, MODE, STOPPING, WORK
from retentiond.daemon_signals import Signals
from retentiond.daemon_spec import make_spec
from retentiond.daemon_watch import LOOK, Watch, target_check
from retentiond.daemon_work import Work
from retentiond.domain.clock import ClockReading, agreed_now, skew
from retentiond.domain.permit import Unit
from retentiond.errors import Guarded, PlanMode, PolicySuperseded, Unreachable
from retentiond.ledger.keys import origin_of
from retentiond.metrics import Metrics
from retentiond.settings import Settings
from retentiond.sweep.events import CONTROL_ID, HOLD_NAMES, POLICY, GuardState, OldestSeen
from retentiond.sweep.scheduler import Turns

log = structlog.get_logger()
_TICK_SECONDS = 1.0
_ENTER_SECONDS = 5.0
_ABANDON_SECONDS = 5.0
_LOOK_SECONDS = 60.0
_LOOKS = 8
_NEVER = datetime.min.replace(tzinfo=UTC)


async def run_daemon(settings: Settings, role: Role = "all") -> int:
    """Run in that role until SIGTERM or SIGINT.

    The exit code: 0 after a drain, 128 + the signal's number after a second signal.
    """
    logs.configure(settings.log_format, settings.log_level)
    signals = Signals()
    signals.install()
    spec = make_spec(settings, settings.digest_document())
    watch = Watch(Metrics(spec.targets, spec.policy.tiers, version=__version__, mode=settings.mode))
    asyncio.get_running_loop().set_exception_handler(lambda _, context: _forgotten(watch, context))
    async with open_app(settings, create=True, observer=watch, patient=lambda: not signals.stopping) as app:
        daemon = Daemon(app, watch, role)
        async with serving(app, watch, signals.nudge) as address:
            await daemon.start()
            log.info("ready", http=address, mode=settings.mode, role=role, ledger_key=str(app.journal.verifier))
            while not await signals.stopped_within(_TICK_SECONDS):
                await daemon.tick()
            await daemon.drain(signals)
    log.info("stopped")
    return signals.exit_code


def _forgotten(watch: Watch, context: dict[str, object]) -> None:
    """What asyncio finds nobody waited for: its own message quotes results, so only the error is told."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        watch.defect(error)
    else:
        log.warning("asyncio", message=str(context.get("message")))


@dataclass(slots=True)
class Daemon:
    """One daemon: `tick` announces and begins what is due, `drain` ends it all."""

    app: App
    watch: Watch
    role: Role = "all"
    _jobs: Jobs = field(init=False)
    _turns: Turns = field(init=False)
    _work: Work = field(init=False)
    _crew: Crew = field(init=False)
    _looking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _eyes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LOOKS))
    _finished: dict[str, datetime | None] = field(default_factory=dict)
    _unseen: dict[str, float] = field(default_factory=dict)
    _entered: bool = False
    _asked: tuple[object, ...] | None = None
    _ask_again: float = 0.0
    _activated: datetime | None = None
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """The parts that stand on the app."""
        self._jobs = Jobs(self.app, self.watch, self.role)
        self._turns = Turns(self.app.spec, self.app.engine.tools.worker)
        self._work = Work(self.app, self.watch, self._turns)
        self._crew = Crew(self.app.spec)

    async def start(self) -> None:
        """Take over what the last sweeps said before this start; then the first tick."""
        self._unseen = dict.fromkeys((target.name for target in self.app.spec.targets), 0.0)
        await self.tick()

    async def tick(self) -> None:
        """Look at the control database and begin what is due; never raises."""
        try:
            seen = await self._look_around()
            if self.watch.clear(CONTROL):
                self._turns.forgive()
            self._work.now = seen.now
            self._work.allowed = await self._may_sweep(seen) and not (seen.paused and self.app.spec.enforce)
            if self._work.allowed:
                await self._begin_sweeps(seen)
            else:
                self._work.refrain()
            self._judge_crew(seen)
            self._begin_looks(seen)
            self._jobs.consider(seen, sweeping=bool(self._work.working), entered=self._entered)
            self.watch.clear(LOOP, "tick")
            self.watch.ticked_at = time.monotonic()
        except Unreachable as error:
            self.watch.fault(CONTROL, error)
        except Exception as error:
            self.watch.fault(LOOP, error, part="tick")

    async def drain(self, signals: Signals) -> None:
        """Let batches in flight finish within `shutdown_grace`, abandon what has not by then, sign the ledger."""
        self.watch.stand(STOPPING, Unreachable("the daemon is stopping", remedy="nothing to do: another one goes on"))
        await self._jobs.close()
        await self._work.stop()
        self.app.engine.drain()
        under_way = [*self._work.working.values(), *self._looking.values()]
        late = await signals.wait(under_way, self.app.settings.shutdown_grace)
        if late:
            log.warning("abandoned", sweeps=len(late))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_ABANDON_SECONDS)
        await self._work.close(_ABANDON_SECONDS)
        if not signals.hurried:
            await self._jobs.last_checkpoint()

    async def _look_around(self) -> Overview:
        before = datetime.now(UTC)
        async with self.app.database.transaction(read_only=True) as tx:
            seen = await overview.read(tx, self._activated)
        host = before + (datetime.now(UTC) - before) / 2
        reading = {"control database": ClockReading(seen.now, host, same_machine=False)}
        self._judge_clock(reading, host)
        for each in seen.activations:
            self.watch.metrics.observe_activation(each.seconds)
        await self._show_outcomes(seen)
        self._activated = seen.activations[-1].effective_at if seen.activations else self._activated or seen.now
        self._show(seen, skew(reading).total_seconds())
        return seen

    async def _show_outcomes(self, seen: Overview) -> None:
        """Take over how sweeps ended, whoever has swept: each process shows all targets."""
        units = {target.name: seen.units.get(target.name) for target in self.app.spec.targets}
        finished = {name: unit.finished_at for name, unit in units.items() if unit is not None}
        changed = [name for name, at in finished.items() if at != self._finished.get(name, _NEVER)]
        if not changed:
            return
        async with self.app.database.transaction(read_only=True) as tx:
            found = await overview.outcomes(tx, changed)
        for name, outcome in found.items():
            self.watch.restore(name, outcome)
        self._finished = finished

    def _judge_clock(self, reading: dict[str, ClockReading], host: datetime) -> None:
        try:
            agreed_now(reading, host=host, max_skew=self.app.spec.limits.max_clock_skew)
        except Guarded as error:
            self.watch.fault(CLOCK, error)
            self.watch(GuardState(error.guard, tripped=True))
            return
        if self.watch.clear(CLOCK):
            self.watch(GuardState("clock_skew", tripped=False))

    def _show(self, seen: Overview, skew_seconds: float) -> None:
        metrics = self.watch.metrics
        metrics.observe_state(
            holds=seen.holds,
            reviews_overdue=seen.reviews_overdue,
            pending_seconds=max((hold.seconds for hold in seen.pending), default=0.0),
            paused=seen.paused,
            ledger_entries=seen.ledger_entries,
            skew_seconds=skew_seconds,
            workers=seen.workers,
        )
        for target in self.app.spec.targets:
            unit = seen.units.get(target.name)
            metrics.observe_target(
                target.name,
                next_due=unit.next_due_at if unit else None,
                last_success=unit.last_success_at if unit else None,
                awaiting=seen.waiting.get(target.name),
            )

    async def _may_sweep(self, seen: Overview) -> bool:
        """Whether this is our control database and the configuration is in force; the fault stands where it is not."""
        asked = (seen.allowed, seen.digest)
        if not self._entered and asked == self._asked and time.monotonic() < self._ask_again:
            return False
        try:
            self._require_same_control(seen)
            if self._entered:
                self._require_in_force(seen)
            else:
                self._asked, self._ask_again = asked, time.monotonic() + _ENTER_SECONDS
                await self._enter()
        except (Guarded, PlanMode, PolicySuperseded) as error:
            self.watch.fault(MODE, error)
            return False
        self.watch.clear(MODE)
        return True

    def _require_same_control(self, seen: Overview) -> None:
        same = origin_of(seen.control_id) == self.app.journal.origin
        self.watch(GuardState(CONTROL_ID, tripped=not same))
        if not same:
            raise Guarded(
                CONTROL_ID,
                f"the control database is another one than at the start ({seen.control_id}): holds may be missing",
                remedy="let control.dsn name the right one; if this is the right one, restart the daemon",
            )

    async def _enter(self) -> None:
        """Put the configuration in force; asked again when something was approved, else once a minute."""
        try:
            await enter_mode(self.app, BY)
        except Guarded as error:
            for guard in (POLICY, HOLD_NAMES):
                self.watch(GuardState(guard, tripped=guard == error.guard))
            raise
        self._entered = True
        for guard in (POLICY, HOLD_NAMES):
            self.watch(GuardState(guard, tripped=False))

    def _require_in_force(self, seen: Overview) -> None:
        """Raise where another process has put another mode or policy in force since: then no batch gets a permit."""
        spec = self.app.spec
        if not spec.enforce:
            return
        if seen.mode != "enforce":
            raise PlanMode(
                "another process has set the mode to plan: nothing is erased",
                remedy="see where retentiond runs with `mode: plan` on this control database, then restart the daemon",
            )
        if seen.digest != spec.digest:
            raise PolicySuperseded(
                f"the policy in force is {seen.digest}, and this daemon has {spec.digest}: it erases nothing",
                remedy="restart it with the approved configuration, or run `retentiond policy approve` for its own",
            )

    async def _begin_sweeps(self, seen: Overview) -> None:
        if not self.app.spec.enforce:
            # Nothing is erased, and nothing written: each process counts for itself.
            for name in self._turns.due(seen, self._work.targets):
                if not self._work.has_room:
                    break
                self._turns.began(name, seen)
                self._work.begin(Unit(name))
            return
        if self.role != "scheduler":
            self._work.listen()
            self._work.take_over(seen)
        if self.role != "worker":
            due = [*map(Unit, self._turns.due(seen, self._work.targets)), *self._turns.shards_due(seen)]
            new = await self.app.engine.announce(due)
            for unit in due:
                self._turns.announced(unit, seen, new=unit in new)

    def _judge_crew(self, seen: Overview) -> None:
        if (error := self._crew.judge(seen, allowed=self._work.allowed)) is not None:
            self.watch.fault(WORK, error)
        else:
            self.watch.clear(WORK)

    def _begin_looks(self, seen: Overview) -> None:
        """Look at targets that were not swept since the start: how old their oldest record is, and whether they fit."""
        now = time.monotonic()
        for name in self._work.swept:
            self._unseen.pop(name, None)
        for name in self._soon_swept(seen):
            self._unseen[name] = max(
                self._unseen.get(name, now), min(now + _LOOK_SECONDS, self._started + _LOOK_SECONDS)
            )
        for name in [name for name, at in self._unseen.items() if at <= now and name not in self._looking]:
            self._unseen[name] = now + _LOOK_SECONDS
            self._looking[name] = asyncio.create_task(self._look(name))

    def _soon_swept(self, seen: Overview) -> list[str]:
        """The targets that wait for a look and are about to be swept, or are being swept: that tells it all."""
        if not self._work.allowed:
            return []
        units = {name: seen.units.get(name) for name in self._unseen}
        return [
            name
            for name, unit in units.items()
            if unit is None or unit.owner is not None or unit.next_due_at is None or unit.next_due_at <= seen.now
        ]

    async def _look(self, name: str) -> None:
        target, store, engine = self.app.spec.target(name), self.app.engine.stores[name], self.app.engine
        try:
            async with self._eyes:
                plan = await engine.plan(target)
                self.watch(OldestSeen(target, await store.oldest(plan)))
            self._unseen.pop(name, None)
            self.watch.clear(target_check(name), LOOK)
        except Exception as error:
            self.watch.fault(target_check(name), error, part=LOOK)
        finally:
            self._looking.pop(name, None)
