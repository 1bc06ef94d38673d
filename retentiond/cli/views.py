"""`plan` and `promises`: what is due, by target, class and tier. Both count by the statements that sweeps go by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from retentiond.cli.lasting import ceilings_told, lasting
from retentiond.cli.looking import open_view
from retentiond.cli.output import EXIT_CODES, as_json, command, day, json_option, note, settings, size, table
from retentiond.cli.progress import Progress
from retentiond.cli.targets import exit_code, show_broken, targets_option
from retentiond.desk.plans import KEPT, Planned, has_something, judged, looked_ahead, plan_document, sum_of
from retentiond.desk.plans import horizon as parse_horizon
from retentiond.desk.promises import Promise, promised
from retentiond.desk.targets import Broken, chosen
from retentiond.domain.duration import rfc3339
from retentiond.stores.base import EXACT_BELOW, TierTally
from retentiond.sweep.spec import Target


@click.command(epilog=EXIT_CODES)
@targets_option
@click.option("--horizon", metavar="DURATION", help="Also what comes due until then, such as P30D.")
@json_option
@command
async def plan(targets: tuple[str, ...], horizon: str | None, json_: bool) -> int:
    r"""What a sweep would erase now, and what comes due within a horizon; nothing is touched.

    By target, class and tier: the records that are due, their bytes as stored, the oldest and newest of their
    anchors; and of what is due but stays: held (by a legal hold), minimum (a legal minimum), unresolved (its anchor,
    tier or override can't be told) and blocked (another table's rows refer to it).

    With --horizon a forecast: what is due by then if nothing is swept and no account changes. It is an estimate.

    \b
    Examples:
      retentiond plan
      retentiond plan --target request_logs --horizon P30D
      retentiond plan --json | jq '.targets.request_logs.by_tier.free.records'

    \b
    JSON: {"mode", "digest", "horizon", "targets": {T: {"class", "action", "error", "now", "as_of",
      "total": {"records", "estimate"}, FIGURES, "by_tier": {TIER: {FIGURES}},
      "by_horizon": {"estimate": true, FIGURES, "by_tier"}, all that is due then, also what is due now;
      "coming": {"estimate": true, "records", "bytes", "by_tier"}, what comes due between now and then}}}
      FIGURES: "records", "bytes", "oldest", "newest", "overdue_seconds", "held", "minimum", "unresolved",
      "blocked". Instants are RFC 3339. by_horizon and coming are null without --horizon; "as_of" is when
      the inventory was begun that a bucket is judged by, null where it is judged by what there is now. A target
      that can't be read has its error and none of the figures.
    """
    ahead = parse_horizon(horizon, "--horizon") if horizon is not None else None
    found: dict[str, Planned | Broken] = {}
    async with open_view(settings()) as app:
        wanted = chosen(app, targets)
        with Progress(json=json_) as progress:
            for target in wanted:
                found[target.name] = await looked_ahead(app, target, ahead, progress)
    broken = {name: each for name, each in found.items() if isinstance(each, Broken)}
    if json_:
        documents = {t.name: plan_document(t, found[t.name], app.spec.policy.tiers) for t in wanted}
        mode, digest = app.settings.mode, app.spec.digest
        as_json({"mode": mode, "digest": digest, "horizon": horizon, "targets": documents})
    else:
        _show_plan([(t, each) for t in wanted if isinstance(each := found[t.name], Planned)])
        show_broken(broken)
    return exit_code(broken.values())


def _show_plan(found: Sequence[tuple[Target, Planned]]) -> None:
    ahead = any(planned.later for _, planned in found)
    columns = ["target", "class", "tier", "due", "bytes", "oldest", "newest", *KEPT]
    if ahead:
        until = next(planned.until for _, planned in found if planned.until)
        columns += [f"due by {rfc3339(until)[:10]} (estimate)", "bytes then"]
    table("plan", columns, [row for target, planned in found for row in _plan_rows(target, planned)])
    for target, planned in found:
        about = "about " if planned.total >= EXACT_BELOW else ""
        note(f"{target.name} has {about}{planned.total:,} records; `due` are those that a sweep would {target.action}")
        if planned.as_of is not None:
            note(f"{target.name} is judged by its inventory, as of {rfc3339(planned.as_of)}")
        if takes := lasting(sum_of(planned.due).due, target.pace):
            note(f"{target.name}: what is due takes {takes} at {target.pace.records_per_second:g} records a second")
        for told in ceilings_told(planned.due.ceilings, "would be"):
            note(f"{target.name}: {told}")


def _plan_rows(target: Target, planned: Planned) -> Iterable[list[object]]:
    now, then = planned.due.tiers, planned.later.tiers if planned.later else {}
    rows = [(name, now.get(name, TierTally()), then.get(name, TierTally())) for name in sorted({*now, *then})]
    rows = [row for row in rows if has_something(row[1]) or has_something(row[2])]
    if len(rows) != 1:
        rows.append(("all", sum_of(planned.due), sum_of(planned.later) if planned.later else TierTally()))
    for name, tally, later in rows:
        row: list[object] = [target.name, target.data_class.name, name, tally.due, size(tally.bytes)]
        row += [day(tally.oldest), day(tally.newest), *(getattr(tally, kept) for kept in KEPT)]
        yield [*row, later.due, size(later.bytes)] if planned.later else row


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def promises(targets: tuple[str, ...], json_: bool) -> int:
    r"""Do we keep what we promised?

    For each class and tier: its term, its oldest record, and what is overdue, held or a legal minimum. A promise is
    kept when nothing is past its term but what is on hold or a legal minimum. That one is not kept is an answer, no
    failure: the exit code stays 0. A class that no target enforces can't be said to be kept.

    \b
    Examples:
      retentiond promises
      retentiond promises --json | jq '.promises[] | select(.kept == false)'

    \b
    JSON: {"mode", "digest", "promises": [{"class", "tier", "targets", "term", "after", "legal_minimum",
      "oldest", "oldest_age_days", "oldest_known", "overdue", "overdue_seconds", "blocked", "held", "minimum",
      "unresolved", "kept"}], "errors": {T: {"kind", "message", "remedy"}}}
      "oldest" is the anchor of the oldest record, due or not: null where there is none, or with
      "oldest_known": false where it takes too long to find out. "kept" is null where a target can't be read, also
      while a partition of it is detached by a sweep that was cut short.
    """
    found: dict[str, Promise | Broken] = {}
    async with open_view(settings()) as app:
        wanted = chosen(app, targets)
        with Progress(json=json_) as progress:
            for target in wanted:
                found[target.name] = await judged(app, target, progress)
    classes = {target.data_class.name for target in wanted} if targets else set(app.spec.policy.classes)
    rows = promised(app.spec.policy, classes, wanted, found)
    broken = {name: each for name, each in found.items() if isinstance(each, Broken)}
    if json_:
        errors = {name: each.document() for name, each in broken.items()}
        as_json({"mode": app.settings.mode, "digest": app.spec.digest, "promises": rows, "errors": errors})
    else:
        _show_promises(rows)
        show_broken(broken)
    return exit_code(broken.values())


def _show_promises(rows: Sequence[dict[str, object]]) -> None:
    columns = ["class", "tier", "term", "oldest", "days", "overdue", "held", "minimum", "unresolved", "kept"]
    shown = [row for row in rows if row["targets"]]
    table("promises", columns, [_promise_row(row) for row in shown])
    if loose := list(dict.fromkeys(str(row["class"]) for row in rows if not row["targets"])):
        note(f"no target enforces: {', '.join(loose)}")


def _promise_row(row: dict[str, object]) -> list[object]:
    after = " after deletion" if row["after"] == "account_deleted" else ""
    oldest, age = (row["oldest"], row["oldest_age_days"]) if row["oldest_known"] else ("not known", None)
    kept = {True: "kept", False: "behind", None: "not known"}[row["kept"]]  # type: ignore[index]  # bool or None
    days = None if age is None else f"{age:.1f}"
    counts = (row[name] for name in ("overdue", "held", "minimum", "unresolved"))
    shown = day(str(oldest)) if oldest else None
    return [row["class"], row["tier"], f"{row['term']}{after}", shown, days, *counts, kept]


COMMANDS = [plan, promises]
