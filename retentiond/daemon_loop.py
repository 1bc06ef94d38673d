"""The daemon: sweeps what is due, carries on holds, serves health and metrics, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from datetime import UTC, datetime

import structlog

from retentiond import __version__, logs
from retentiond.api.app import make_app, serve
from retentiond.api.health import Check, Health
from retentiond.control import entries, flags, holds, permits, units
from retentiond.daemon import App, enter_mode, make_spec, open_app
from retentiond.errors import Blind, Guarded, RetentiondError
from retentiond.metrics import Metrics
from retentiond.settings import Settings
from retentiond.stores.postgres.store import PostgresStore
from retentiond.sweep.events import Event, Failed, SweepDone

log = structlog.get_logger()
_TICK_SECONDS = 1.0
_BY = "daemon"


class Watch:
    """The daemon's observer: metrics, logs without record or account ids, and the last outcome of each target."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.outcomes: dict[str, SweepDone] = {}

    def __call__(self, event: Event) -> None:
        """Count, note and log the event."""
        self.metrics(event)
        if isinstance(event, SweepDone):
            self.outcomes[event.target.name] = event
            log.info("sweep done", sweep=event.sweep, target=event.target.name, outcome=event.outcome["outcome"])
        elif isinstance(event, Failed):
            log.warning("sweep failed", target=event.target, kind=event.kind, message=event.message)

    def require_well(self, target: str) -> None:
        """Raise what ended the target's last sweep, if something did."""
        done = self.outcomes.get(target)
        error = done.outcome["error"] if done else None
        if isinstance(error, dict):
            raise Blind(str(error["message"]), remedy=str(error["remedy"] or ""))


async def run_daemon(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    logs.configure(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    spec = make_spec(settings, settings.digest_document())
    metrics = Metrics(spec.targets, spec.policy.tiers, version=__version__, mode=settings.mode)
    watch = Watch(metrics)
    async with open_app(settings, create=True, observer=watch, patient=lambda: not stop.is_set()) as app:
        web = make_app(Health(checks(app, watch)), metrics.exposition)
        async with serve(web, settings.http.host, settings.http.port) as address:
            log.info("ready", http=address, mode=settings.mode, ledger_key=str(app.journal.verifier))
            await _until_stopped(app, metrics, stop)
    log.info("stopped")
    return 0


def checks(app: App, watch: Watch) -> dict[str, Check]:
    """What `/readyz` asks."""

    async def control() -> None:
        async with app.database.transaction(read_only=True) as tx:
            await holds.current(tx)

    async def control_state() -> None:
        async with app.database.transaction(read_only=True) as tx:
            await app.journal.require_continued(tx)

    async def ledger() -> None:
        async with app.database.transaction() as tx:
            await entries.ledger_writable(tx)

    def of_target(store: PostgresStore) -> Check:
        async def reach() -> None:
            await store.clock()
            watch.require_well(store.name)

        return reach

    targets = {f"target {name}": of_target(store) for name, store in app.engine.stores.items()}
    return {"control": control, "control_state": control_state, "ledger": ledger, **targets}


async def _until_stopped(app: App, metrics: Metrics, stop: asyncio.Event) -> None:
    working: dict[str, asyncio.Task[object]] = {}
    entered = False
    while not stop.is_set():
        try:
            await _carry_holds_on(app)
            if not entered:
                await enter_mode(app, _BY)
                entered = True
                async with app.database.transaction() as tx:
                    await app.journal.checkpoint(tx)
            await _begin_what_is_due(app, metrics, working)
            await _observe(app, metrics)
        except Guarded as error:
            log.warning("waiting", guard=error.guard, message=error.message, remedy=error.remedy)
        except RetentiondError as error:
            log.warning("control", kind=error.kind, message=error.message)
        try:
            await asyncio.wait_for(stop.wait(), _TICK_SECONDS)
        except TimeoutError:
            continue
    await _drain(app, working)


async def _drain(app: App, working: dict[str, asyncio.Task[object]]) -> None:
    app.engine.drain()
    if working:
        _, late = await asyncio.wait(working.values(), timeout=app.settings.shutdown_grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def _carry_holds_on(app: App) -> None:
    record = app.hold_recorder(_BY)
    await holds.activate_pending(app.database, app.fences(), record=record)
    if ended := await holds.finish_releases(app.database, until=datetime.now(UTC), record=record):
        log.info("holds ended", count=len(ended))
        async with app.database.transaction() as tx:
            await units.make_due(tx)


async def _begin_what_is_due(app: App, metrics: Metrics, working: dict[str, asyncio.Task[object]]) -> None:
    for name in [name for name, task in working.items() if task.done()]:
        working.pop(name).result()
        async with app.database.transaction() as tx:
            await app.journal.checkpoint(tx)
        async with app.database.transaction() as tx:
            await permits.prune(tx)
    async with app.database.transaction(read_only=True) as tx:
        states = {state.unit.target: state for state in await units.all_states(tx)}
    now = datetime.now(UTC)
    for target in app.spec.targets:
        state = states.get(target.name)
        next_due = state.next_due_at if state else None
        metrics.observe_next(target.name, next_due)
        if (next_due is None or next_due <= now) and target.name not in working:
            working[target.name] = asyncio.create_task(app.engine.sweep(target))


async def _observe(app: App, metrics: Metrics) -> None:
    async with app.database.transaction(read_only=True) as tx:
        found = await holds.list_all(tx)
        state = await flags.read(tx)
        head = await entries.head(tx)
    now = datetime.now(UTC)
    metrics.observe_state(
        holds=Counter(str(hold.state) for hold in found),
        reviews_overdue=sum(1 for hold in found if hold.holds and hold.review_by and hold.review_by < now),
        paused=state.paused,
        ledger_entries=head.tree.size,
    )
