"""The daemon: sweeps what is due, carries on holds, serves health and metrics, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime

import structlog

from retentiond.control import holds, units
from retentiond.daemon import App, enter_mode, open_app
from retentiond.errors import Guarded, RetentiondError
from retentiond.settings import Settings
from retentiond.sweep.events import Event, Failed, SweepDone

log = structlog.get_logger()
_TICK_SECONDS = 1.0
_BY = "daemon"


def log_event(event: Event) -> None:
    """The observer that writes logs: no record ids, no account ids."""
    if isinstance(event, SweepDone):
        log.info("sweep done", sweep=event.sweep, target=event.target.name, outcome=event.outcome["outcome"])
    elif isinstance(event, Failed):
        log.warning("sweep failed", target=event.target, kind=event.kind, message=event.message)


async def run_daemon(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_app(settings, create=True, observer=log_event) as app:
        log.info("ready", mode=settings.mode, targets=len(app.spec.targets), ledger_key=str(app.journal.verifier))
        await _until_stopped(app, stop)
        log.info("stopped")
    return 0


async def _until_stopped(app: App, stop: asyncio.Event) -> None:
    working: dict[str, asyncio.Task[object]] = {}
    entered = False
    while not stop.is_set():
        try:
            if not entered:
                await enter_mode(app, _BY)
                entered = True
            await _carry_holds_on(app)
            await _begin_what_is_due(app, working)
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
    if ended := await holds.finish_releases(app.database, record=record):
        log.info("holds ended", count=len(ended))
        async with app.database.transaction() as tx:
            await units.make_due(tx)


async def _begin_what_is_due(app: App, working: dict[str, asyncio.Task[object]]) -> None:
    for name in [name for name, task in working.items() if task.done()]:
        working.pop(name).result()
        async with app.database.transaction() as tx:
            await app.journal.checkpoint(tx)
    async with app.database.transaction(read_only=True) as tx:
        states = {state.unit.target: state for state in await units.all_states(tx)}
    now = datetime.now(UTC)
    for target in app.spec.targets:
        state = states.get(target.name)
        due = state is None or state.next_due_at is None or state.next_due_at <= now
        if due and target.name not in working:
            working[target.name] = asyncio.create_task(app.engine.sweep(target))
