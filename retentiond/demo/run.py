"""The demo's course: make the company, place a hold, approve the first backlog, sweep until every promise is kept.

It leaves its folder behind only while it runs. With `--once` it ends when all promises are kept; else it goes on
serving as the daemon would, until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from retentiond.control import approvals, holds
from retentiond.control.database import Database
from retentiond.control.embedded import EmbeddedPostgres
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import App, enter_mode, open_app
from retentiond.daemon_loop import run_daemon
from retentiond.domain.holds import Scope
from retentiond.settings import load
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due, make_plan

_BY = "demo"
_TARGETS = {
    "request_logs": ("operational_logs", "created_at"),
    "build_logs": ("build_logs", "at"),
    "audit_log": ("audit_log", "at"),
    "invoices": ("invoices", "issued"),
    "prompts": ("prompts", "at"),
    "usage_metrics": ("usage_metrics", "at"),
}
_MAKE_MS = 120_000


def environment(dsn: str, folder: Path) -> dict[str, str]:
    """The daemon's whole configuration, as environment variables."""
    found = {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_STATE_DIR": str(folder),
        "RETENTIOND_ACCOUNTS__DSN": dsn,
        "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
        "RETENTIOND_ACCOUNTS__DELETED_AT": "deleted_at",
        "RETENTIOND_ACCOUNTS__OVERRIDES": "retention",
        "RETENTIOND_ACCOUNTS__TIER_CHANGED_AT": "tier_changed_at",
        "RETENTIOND_LOG_FORMAT": "console",
    }
    for name, (class_name, anchor) in _TARGETS.items():
        prefix = f"RETENTIOND_TARGETS__{name.upper()}__"
        found |= {
            prefix + "STORE": "postgres",
            prefix + "CLASS": class_name,
            prefix + "DSN": dsn,
            prefix + "TABLE": f"public.{name}",
            prefix + "ANCHOR": anchor,
            prefix + "ACCOUNT": "account_id",
        }
    return found


async def run_demo(*, once: bool, console: Console) -> tuple[int, dict[str, object]]:
    """The demo, told to the console; the exit code, and for each target what was due before and what is after."""
    folder = Path(tempfile.mkdtemp(prefix="retentiond-demo-"))
    # The account that runs Postgres for root has to be able to enter it.
    folder.chmod(0o711)
    server = await EmbeddedPostgres.start(folder, create=True)
    try:
        console.print("Making a company: 20,000 accounts, eight years of records …")
        await _make_company(server.dsn)
        variables = environment(server.dsn, folder)
        async with open_app(load(variables), create=True) as app:
            await enter_mode(app, _BY)
            await _place_hold(app, console)
            found = await _keep_promises(app, console)
            async with app.database.transaction() as tx:
                await app.journal.checkpoint(tx)
        if once:
            return 0, found
        _print_hints(console, variables)
        return await run_daemon(load(variables)), found
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _make_company(dsn: str) -> None:
    database = await Database.connect(dsn)
    try:
        async with database.transaction(timeout_ms=_MAKE_MS) as tx:
            await tx.execute(files("retentiond.demo").joinpath("company.sql").read_text())
    finally:
        await database.close()


async def _place_hold(app: App, console: Console) -> None:
    draft = HoldDraft(
        matter="2026-17",
        reason="subpoena (made up)",
        scope=Scope(accounts=tuple(str(n) for n in range(1, 101))),
        review_by=None,
        notice=None,
    )
    placed = await holds.place(app.database, draft, _BY, record=app.hold_recorder(_BY))
    await holds.activate_pending(app.database, app.fences(), record=app.hold_recorder(_BY))
    console.print(f"A legal hold on 100 accounts is active: {placed.id}")


async def _keep_promises(app: App, console: Console) -> dict[str, object]:
    before = await _overdue(app)
    console.print(_promises("Before", before))
    async with asyncio.TaskGroup() as group:
        for target in app.spec.targets:
            group.create_task(_sweep_approved(app, target.name, console))
    after = await _overdue(app)
    console.print(_promises("After", after))
    return {
        name: {"overdue_before": before[name].would, "overdue": left.would, "held": left.held, "minimum": left.minimum}
        for name, left in after.items()
    }


async def _sweep_approved(app: App, name: str, console: Console) -> None:
    target = app.spec.target(name)
    outcome = await app.engine.sweep(target)
    if outcome.outcome == "guarded":
        async with app.database.transaction() as tx:
            awaited = next(w for w in await approvals.waiting(tx) if w.target == name)
            await approvals.grant(tx, "sweep", name, app.spec.digest, awaited.count, _BY)
        console.print(f"{name}: the guard stopped a first backlog of {awaited.count} records; approved")
        outcome = await app.engine.sweep(target)
    acted = "erased" if target.action == "delete" else "anonymised"
    told = f"{outcome.changed} {acted}, {outcome.held} held, in {outcome.seconds:.1f} s"
    console.print(f"{name}: {outcome.outcome}, {told}")


async def _overdue(app: App) -> Mapping[str, Outcome]:
    found = {}
    for target in app.spec.targets:
        store = app.engine.stores[target.name]
        await store.open(app.engine.directory)
        found[target.name] = await count_due(
            store, await make_plan(app.engine.tools, store, target, datetime.now(UTC)), Outcome()
        )
    return found


def _promises(title: str, found: Mapping[str, Outcome]) -> Table:
    shown = Table(title=title, title_justify="left")
    for column in ("target", "overdue", "held", "legal minimum", "promise"):
        shown.add_column(column, justify="left" if column in ("target", "promise") else "right")
    for name, outcome in found.items():
        kept = "[green]kept[/]" if outcome.would == 0 else "[red]behind[/]"
        shown.add_row(name, str(outcome.would), str(outcome.held), str(outcome.minimum), kept)
    return shown


def _print_hints(console: Console, variables: Mapping[str, str]) -> None:
    console.print("\nThe daemon goes on; Ctrl-C ends it. In another terminal:\n")
    for name, value in variables.items():
        console.print(f"  export {name}='{value}'", soft_wrap=True)
    for line in (
        "hold place --matter 2026-18 --reason audit --account 4711",
        "explain request_logs 17",
        "promises",
        "ledger verify",
    ):
        console.print(f"  .venv/bin/retentiond {line}")
