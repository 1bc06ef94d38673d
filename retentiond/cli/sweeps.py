"""`run`, `sweep`, `plan`, `explain`, `cutoff`, `promises`, `check`: what looks at records and what erases them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import click

from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, note, settings, table
from retentiond.daemon import App, enter_mode, open_app
from retentiond.daemon_loop import run_daemon
from retentiond.domain.duration import cutoff as cutoff_of
from retentiond.domain.duration import instant, parse_term, rfc3339
from retentiond.errors import NotFound, RetentiondError
from retentiond.stores.base import Finding
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due
from retentiond.sweep.spec import Target

_BY = "command line"


def chosen(app: App, names: Sequence[str]) -> list[Target]:
    """The named targets, or all; raises NotFound naming those that exist."""
    known = {target.name: target for target in app.spec.targets}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no target {name!r}", remedy=f"the targets are: {', '.join(known) or 'none'}")
    return [known[name] for name in names] if names else list(known.values())


targets_option = click.option("--target", "targets", multiple=True, metavar="T", help="Only this target; repeatable.")


@click.command(epilog=EXIT_CODES)
@command
async def run() -> int:
    """The daemon: sweeps all targets continuously and serves HTTP, until SIGTERM."""
    return await run_daemon(settings())


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def sweep(targets: tuple[str, ...], json_: bool) -> int:
    r"""One pass over all or the named targets, then exit.

    \b
    Examples:
      retentiond sweep
      retentiond sweep --target request_logs --json
    """
    async with open_app(settings(), create=True) as app:
        wanted = chosen(app, targets)
        await enter_mode(app, _BY)
        sweep_id = str(uuid4())
        began = datetime.now(UTC)
        found: dict[str, Outcome] = {}
        for target in await app.engine.in_order(wanted):
            if not json_:
                note(f"sweeping {target.name}")
            found[target.name] = await app.engine.sweep(target, sweep_id)
        await checkpoint(app)
        documents = {name: outcome.document(plan_mode=not app.spec.enforce) for name, outcome in found.items()}
    if json_:
        as_json({"sweep": sweep_id, "mode": app.settings.mode, "now": rfc3339(began), "targets": documents})
    else:
        _show_outcomes(documents, plan_mode=not app.spec.enforce)
    return _exit_code(found.values())


def _show_outcomes(documents: dict[str, dict[str, object]], *, plan_mode: bool) -> None:
    columns = ["outcome", "erased", "anonymised", "held", "minimum", "unresolved", "failed", "batches", "seconds"]
    if plan_mode:
        columns.insert(1, "would_erase")
    table("sweep", ["target", *columns], [[name, *(d[c] for c in columns)] for name, d in documents.items()])
    for name, document in documents.items():
        error = document["error"]
        if isinstance(error, dict):
            note(f"{name}: {error['message']}")
            if error["remedy"]:
                note(f"  remedy: {error['remedy']}")


def _exit_code(outcomes: Iterable[Outcome]) -> int:
    kinds = {(outcome.outcome, outcome.error["kind"] if outcome.error else None) for outcome in outcomes}
    if any(outcome == "guarded" for outcome, _ in kinds):
        return 3
    if any(kind == "unreachable" for _, kind in kinds):
        return 4
    return 1 if any(outcome in ("failed", "blind") for outcome, _ in kinds) else 0


async def checkpoint(app: App) -> None:
    """Sign the ledger's head."""
    async with app.database.transaction() as tx:
        await app.journal.checkpoint(tx)


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def plan(targets: tuple[str, ...], json_: bool) -> int:
    """What a sweep would erase now, per target and tier; nothing is touched."""
    documents: dict[str, dict[str, object]] = {}
    async with open_app(settings(), create=settings().mode == "plan") as app:
        for target in chosen(app, targets):
            outcome = await _planned(app, target)
            documents[target.name] = {
                "class": target.data_class.name,
                "action": target.action,
                "records": outcome.would,
                "held": outcome.held,
                "minimum": outcome.minimum,
                "unresolved": outcome.unresolved,
                "by_tier": dict(sorted(outcome.by_tier.items())),
                "error": outcome.error,
            }
    if json_:
        as_json({"mode": app.settings.mode, "digest": app.spec.digest, "targets": documents})
    else:
        columns = ["class", "action", "records", "held", "minimum", "unresolved", "by_tier"]
        table("plan", ["target", *columns], [[n, *(d[c] for c in columns)] for n, d in documents.items()])
        for name, document in documents.items():
            if isinstance(error := document["error"], dict):
                note(f"{name}: {error['message']}\n  remedy: {error['remedy']}")
    return 1 if any(document["error"] for document in documents.values()) else 0


async def _planned(app: App, target: Target) -> Outcome:
    store = app.engine.stores[target.name]
    try:
        return await count_due(store, await app.engine.plan(target), Outcome(action=target.action))
    except RetentiondError as error:
        outcome = Outcome(action=target.action)
        outcome.broken(error, "blind")
        return outcome


@click.command(epilog=EXIT_CODES)
@click.argument("target")
@click.argument("record")
@json_option
@command
async def explain(target: str, record: str, json_: bool) -> int:
    """The verdict for one RECORD of TARGET, and every rule and hold considered.

    A record of a composite key is given as its JSON array: '["2026", "17"]'.
    """
    async with open_app(settings(), create=settings().mode == "plan") as app:
        found = chosen(app, [target])[0]
        document = (await app.engine.explain(found, record)).document(found.data_class.name)
    if json_:
        as_json(document)
        return 0
    for name in ("verdict", "reason", "class", "tier", "term", "anchor", "expires_at", "holds"):
        click.echo(f"{name:<11}{document[name] if document[name] not in (None, []) else '-'}")
    click.echo("considered:")
    for line in document["considered"] if isinstance(document["considered"], list) else []:
        click.echo(f"  {line}")
    return 0


@click.command(epilog=EXIT_CODES)
@click.argument("ttl")
@click.option("--now", "now_", metavar="INSTANT", help="RFC 3339; the present by default.")
@json_option
@command
async def cutoff(ttl: str, now_: str | None, json_: bool) -> int:
    r"""The instant before which records of that TTL are expired, in UTC.

    \b
    Example:
      retentiond cutoff P90D --now 2026-05-17T00:00:00Z
    """
    now = instant(now_) if now_ else datetime.now(UTC)
    edge = cutoff_of(now, parse_term(ttl))
    text = rfc3339(edge) if edge else None
    if json_:
        as_json({"ttl": ttl, "now": rfc3339(now), "cutoff": text})
    else:
        click.echo(text or "never")
    return 0


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def promises(targets: tuple[str, ...], json_: bool) -> int:
    """For each class and tier: the promised term, how many records are overdue or held, and whether it is kept."""
    rows: list[dict[str, object]] = []
    async with open_app(settings(), create=settings().mode == "plan") as app:
        for target in chosen(app, targets):
            outcome = await _planned(app, target)
            for tier in app.spec.policy.tiers:
                overdue = outcome.by_tier.get(tier, 0)
                rows.append(
                    {
                        "target": target.name,
                        "class": target.data_class.name,
                        "tier": tier,
                        "term": str(target.data_class.terms[tier]),
                        "overdue": overdue,
                        "held": outcome.held,
                        "kept": outcome.error is None and overdue == 0,
                        "error": outcome.error,
                    }
                )
    if json_:
        as_json({"promises": rows})
    else:
        columns = ["target", "class", "tier", "term", "overdue", "held", "kept"]
        table("promises", columns, [[row[column] for column in columns] for row in rows])
    return 0


@click.command(epilog=EXIT_CODES)
@json_option
@command
async def check(json_: bool) -> int:
    """Connections, grants, indexes, foreign keys, triggers, RLS: each finding with its remedy."""
    findings: list[Finding] = []
    async with open_app(settings(), create=settings().mode == "plan") as app:
        for target in app.spec.targets:
            store = app.engine.stores[target.name]
            try:
                await store.open(app.engine.directory)
                findings += await store.check()
            except RetentiondError as error:
                findings.append(Finding("error", target.name, error.message, error.remedy or ""))
    if json_:
        as_json(
            {
                "findings": [
                    {"severity": f.severity, "subject": f.subject, "message": f.message, "remedy": f.remedy}
                    for f in findings
                ]
            }
        )
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.subject}: {finding.message}")
            if finding.remedy:
                click.echo(f"  remedy: {finding.remedy}")
        if not findings:
            click.echo("no findings")
    return 1 if any(finding.severity != "info" for finding in findings) else 0


COMMANDS = [run, sweep, plan, explain, cutoff, promises, check]
