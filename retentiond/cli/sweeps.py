"""`run`, `sweep`, `explain`, `cutoff`: what erases records, and why one goes or stays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import click

from retentiond.cli.lasting import ceilings_told
from retentiond.cli.looking import open_view
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, note, settings, table
from retentiond.cli.progress import Progress
from retentiond.cli.targets import targets_option
from retentiond.control.workers import Role, present
from retentiond.daemon import App, enter_pass, open_app
from retentiond.desk.targets import chosen
from retentiond.domain.duration import cutoff as cutoff_of
from retentiond.domain.duration import instant, parse_term, rfc3339
from retentiond.errors import Paused, Strained, UsageError
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Target

_BY = "command line"


@click.command(epilog=EXIT_CODES)
@click.option("--worker-only", is_flag=True, help="Sweep what others announce; announce nothing.")
@click.option("--scheduler-only", is_flag=True, help="Announce what is due; sweep nothing.")
@json_option
@command
async def run(worker_only: bool, scheduler_only: bool, json_: bool) -> int:
    r"""The daemon: sweeps all targets continuously and serves HTTP, until SIGTERM or Ctrl-C.

    It then finishes the batch in flight, or abandons it after shutdown_grace (20 s), and exits with 0. Logs go to
    standard error, as JSON lines or for people (RETENTIOND_LOG_FORMAT=console).

    Any number of them on one control database, on any number of machines, share the work: nothing else has to be
    started, and `retentiond workers` lists them. Each announces what is due and sweeps what is announced; the two can
    be split, with at least one process of each kind.

    \b
    Examples:
      retentiond run                          in plan mode: judges, erases nothing
      RETENTIOND_MODE=enforce retentiond run  makes the policy true
      retentiond run --worker-only            one more pair of hands beside a `run` or a `run --scheduler-only`
      curl http://127.0.0.1:8087/readyz       is it well? (/metrics is for Prometheus)

    \b
    JSON, when it has stopped: {"mode", "role", "stopped": true}
    """
    if worker_only and scheduler_only:
        raise UsageError("--worker-only and --scheduler-only exclude each other", remedy="leave both out to do both")
    from retentiond.daemon_loop import run_daemon

    role: Role = "worker" if worker_only else "scheduler" if scheduler_only else "all"
    found = settings()
    code = await run_daemon(found, role)
    if json_:
        as_json({"mode": found.mode, "role": role, "stopped": True})
    return code


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def sweep(targets: tuple[str, ...], json_: bool) -> int:
    r"""One pass over all or the named targets, then exit.

    In enforce mode what is due is erased; in plan mode (the default) it is counted. Beside a running daemon it shares
    the daemon's leases: a target that another worker has is waited for.

    \b
    Examples:
      retentiond sweep
      RETENTIOND_MODE=enforce retentiond sweep --target request_logs --json

    \b
    JSON: {"sweep", "mode", "now", "targets": {T: {"outcome", "erased", "anonymised", "archived", "bytes", "held",
      "minimum", "unresolved", "blocked", "orphans", "locked", "failed", "in_doubt", "requested", "batches",
      "seconds", "overdue_seconds", "oldest", "newest", "error", "upkeep", "by_tier", in plan mode also "would_erase",
      "would_erase_bytes"}}}
      "outcome" is drained, capped (stopped early), paused, guarded (waits for `retentiond approve`), blind (can't be
      judged) or failed; "requested" counts what a store has taken on to erase later by itself;
      "overdue_seconds" is null where it is not known. "upkeep", after a sweep that erased many, has
      "dead_rows", "live_rows", "indexes", "vacuumed", "advice" (SQL), "error", "remedy"; else it is null.
    """
    progress = Progress(json=json_)
    found_settings = settings()
    together = found_settings.workers.concurrency
    async with open_app(found_settings, create=True, observer=progress, shards_at_once=together) as app:
        wanted = chosen(app, targets)
        await enter_pass(app, _BY)
        sweep_id = str(uuid4())
        began = datetime.now(UTC)
        found: dict[str, Outcome] = {}
        async with present(app.database, app.presence("sweep")):
            with progress:
                for target in await app.engine.in_order(wanted):
                    found[target.name] = await _swept(app, target, sweep_id, progress)
        await checkpoint(app)
        documents = {name: outcome.document(plan_mode=not app.spec.enforce) for name, outcome in found.items()}
    if json_:
        as_json({"sweep": sweep_id, "mode": app.settings.mode, "now": rfc3339(began), "targets": documents})
    else:
        _show_outcomes(documents, plan_mode=not app.spec.enforce)
    if any(outcome.error and outcome.error["kind"] == Paused().kind for outcome in found.values()):
        note("paused: nothing is erased before `retentiond resume`")
    return _exit_code(found.values())


async def _swept(app: App, target: Target, sweep_id: str, progress: Progress) -> Outcome:
    acted = {"anonymise": "anonymised", "archive": "archived"}.get(target.action, "erased")
    if app.spec.enforce:
        progress.begin(target.name, "sweeping", acted)
    else:
        progress.begin(target.name, "judging", "")
    outcome = await app.engine.sweep(target, sweep_id)
    told = f"{outcome.changed} {acted}" if app.spec.enforce else f"{outcome.would} would be {acted}"
    more = ceilings_told(outcome.ceilings, "were" if app.spec.enforce else "would be")
    progress.end(target.name, "; ".join([f"{outcome.outcome}, {told}, in {outcome.seconds:.1f} s", *more]))
    return outcome


def _show_outcomes(documents: dict[str, dict[str, object]], *, plan_mode: bool) -> None:
    columns = ["outcome", "erased", "anonymised", "archived", "held", "minimum", "unresolved", "blocked", "locked"]
    columns += ["failed", "batches", "seconds"]
    if plan_mode:
        columns.insert(1, "would_erase")
    table("sweep", ["target", *columns], [[name, *(d[c] for c in columns)] for name, d in documents.items()])
    for name, document in documents.items():
        if document["orphans"]:
            note(f"{name}: {document['orphans']} objects have no row of the paired target that owns them, and are kept")
        error = document["error"]
        if isinstance(error, dict):
            note(f"{name}: {error['message']}")
            if error["remedy"]:
                note(f"  remedy: {error['remedy']}")
        if isinstance(upkeep := document["upkeep"], dict):
            _show_upkeep(name, upkeep)


def _show_upkeep(name: str, upkeep: dict[str, Any]) -> None:
    """What a large sweep has left behind; bytes of indexes are told as the estimates that they are."""
    if upkeep["dead_rows"] is not None:
        done = "vacuumed; " if upkeep["vacuumed"] else ""
        note(f"{name}: {done}{upkeep['dead_rows']} dead rows by the statistics, beside {upkeep['live_rows']}")
    for index in upkeep["indexes"]:
        if index["empty"]:
            how = "" if index["measured"] else ", estimated"
            note(f"{name}: {index['empty']} of {index['bytes']} bytes of index {index['name']} are empty{how}")
    if upkeep["error"]:
        note(f"{name}: {upkeep['error']}")
        note(f"  remedy: {upkeep['remedy']}")
    if upkeep["advice"]:
        note(f"{name}: to make the space usable again: {upkeep['advice']}")


def _exit_code(outcomes: Iterable[Outcome]) -> int:
    kinds = {(outcome.outcome, outcome.error["kind"] if outcome.error else None) for outcome in outcomes}
    if any(outcome == "guarded" for outcome, _ in kinds):
        return 3
    if any(kind == "unreachable" for _, kind in kinds):
        return 4
    return 1 if any(outcome in ("failed", "blind") or kind == Strained().kind for outcome, kind in kinds) else 0


async def checkpoint(app: App) -> None:
    """Sign the ledger's head."""
    async with app.database.transaction() as tx:
        await app.journal.checkpoint(tx)


@click.command(epilog=EXIT_CODES)
@click.argument("target")
@click.argument("record")
@json_option
@command
async def explain(target: str, record: str, json_: bool) -> int:
    r"""The verdict for one RECORD of TARGET, and every rule and hold considered.

    RECORD is the value of the key; one of a composite key is written as its JSON array.

    \b
    Examples:
      retentiond explain request_logs 4711
      retentiond explain prompts '["2026", "17"]' --json

    \b
    JSON: {"verdict", "reason", "class", "tier", "term", "anchor", "expires_at", "holds": [ID], "considered": [TEXT]}
      "verdict" is held, minimum, erase, unresolved or keep.
    """
    async with open_view(settings()) as app:
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

    TTL is an ISO 8601 duration or `forever`. Needs no configuration.

    \b
    Examples:
      retentiond cutoff P90D --now 2026-05-17T00:00:00Z
      retentiond cutoff P1Y6M --json

    \b
    JSON: {"ttl", "now", "cutoff"}; "cutoff" is null for `forever`, which has none ("never").
    """
    now = instant(now_) if now_ else datetime.now(UTC)
    edge = cutoff_of(now, parse_term(ttl))
    text = rfc3339(edge) if edge else None
    if json_:
        as_json({"ttl": ttl, "now": rfc3339(now), "cutoff": text})
    else:
        click.echo(text or "never")
    return 0


COMMANDS = [run, sweep, explain, cutoff]
