"""`workers`: who lives, what each is at, and how far it is."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from retentiond.cli.looking import open_view
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, note, settings, table
from retentiond.control import workers as registry
from retentiond.control.workers import Seen
from retentiond.desk.workers import anchors_of, worker_document


@click.command(epilog=EXIT_CODES)
@json_option
@command
async def workers(json_: bool) -> int:
    r"""Who lives, what each is at, and how far it is.

    Each `retentiond run` on this control database, wherever it runs, and each `sweep` that is at work. A worker that
    was killed is shown as gone, and what it was at is taken over when its lease is over (30 s).

    \b
    Examples:
      retentiond workers
      retentiond workers --json

    \b
    JSON: {"workers": [{"name", "host", "pid", "version", "role", "mode", "alive", "started_at", "seen_at",
      "works": [{"target", "shard", "sweep", "erased", "anonymised", "archived", "held", "batches", "at",
      "lease_seconds", "crashes"}]}]}
      "shard" is empty for a whole target; "at" is the anchor that its walk has come to, where it goes by anchors.
    """
    async with open_view(settings()) as app, app.database.transaction(read_only=True) as tx:
        found = await registry.everybody(tx)
        anchors = anchors_of(app)
    documents = [worker_document(each, anchors) for each in found]
    if json_:
        as_json({"workers": documents})
        return 0
    if not documents:
        note("no worker is known: start one with `retentiond run`")
        return 0
    now = datetime.now(UTC)
    rows: list[list[object]] = []
    for each, document in zip(found, documents, strict=True):
        head = [each.worker.name, each.worker.role, each.worker.version, _state(each, now)]
        for work in document["works"] or [{}]:
            unit = f"{work['target']} {work['shard']}".strip() if work else "-"
            done = work["erased"] + work["anonymised"] + work["archived"] if work else ""
            rows.append([*head, unit, done, work.get("batches", ""), work.get("at") or ""])
            head = ["", "", "", ""]
    table("workers", ["worker", "role", "version", "seen", "at work on", "records", "batches", "come to"], rows)
    return 0


def _state(seen: Seen, now: datetime) -> str:
    seconds = max(int((now - seen.seen_at).total_seconds()), 0)
    return f"{seconds} s ago" if seen.alive else f"gone ({seconds} s)"


COMMANDS = [workers]
