"""`ledger show|verify|export|accept`: the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import orjson

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, Group, as_json, command, json_option, note, settings, table
from retentiond.control import due, entries
from retentiond.daemon import App, open_app
from retentiond.desk.words import entry_in_words
from retentiond.errors import UsageError
from retentiond.ledger.export import export as export_ledger
from retentiond.ledger.keys import KEY_FILE
from retentiond.ledger.kinds import Kind
from retentiond.ledger.verify import VerifyReport, read_verifier, verify_database, verify_export

_KINDS = f"Only this kind, of {', '.join(Kind)}; repeatable."


@click.group(name="ledger", cls=Group, epilog=EXIT_CODES)
def ledger() -> None:
    r"""The tamper-evident record of what was erased, and why it was allowed.

    \b
    Examples:
      retentiond ledger show --kind outcome
      retentiond ledger export --out evidence
      retentiond ledger verify evidence
    """


@ledger.command(epilog=EXIT_CODES)
@click.option("--after", type=int, default=0, show_default=True, help="Entries after this number.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", type=click.Choice([each.value for each in Kind]), help=_KINDS
)
@json_option
@command
async def show(after: int, limit: int, kinds: tuple[str, ...], json_: bool) -> int:
    r"""Entries of the ledger, oldest first, a line each; no record and no account is named in any.

    \b
    Examples:
      retentiond ledger show --kind outcome --kind hold
      retentiond ledger show --after 1200 --limit 100 --json

    \b
    JSON: {"entries": [ENTRY]}, each with "seq", "at", "kind" and what its kind has; the lines show the main part.
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        rows = await entries.read(tx, after, limit, kinds or None)
    found = [orjson.loads(row.leaf) for row in rows]
    if json_:
        as_json({"entries": found})
        return 0
    lines: list[list[object]] = [
        [str(entry["seq"]), entry["at"], entry["kind"], entry_in_words(entry)] for entry in found
    ]
    table("ledger", ["seq", "at", "kind", "what"], lines)
    if len(found) == limit:
        note(f"there may be more: retentiond ledger show --after {found[-1]['seq']}")
    return 0


@ledger.command(epilog=EXIT_CODES)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="The public key, known from elsewhere.")
@json_option
@command
async def verify(folder: Path | None, key_file: Path | None, json_: bool) -> int:
    r"""Verify an export in FOLDER, offline; without it the ledger in the control database.

    It names the first entry that does not hold together, and then exits with 1. The key in an export shows only that
    the export agrees with itself: give --key with a copy of the public key that was kept elsewhere.

    \b
    Examples:
      retentiond ledger export --out evidence
      retentiond ledger verify evidence --key auditors-copy.pub

    \b
    JSON: {"ok", "size", "root", "key", "key_source", "first_break", …}
    """
    if folder is not None:
        report = verify_export(folder, key_file)
    else:
        async with open_app(settings(), create=False) as app:
            verifier = read_verifier(key_file) if key_file else app.journal.verifier
            report = replace(
                await verify_database(app.database, verifier), key_source=str(key_file) if key_file else _own(app)
            )
    _show(report, json_=json_)
    return 0 if report.ok else 1


def _own(app: App) -> str:
    """Where the key comes from that is used when none is given."""
    if app.settings.ledger.key is not None:
        return f"the setting ledger.key of this host, from {app.settings.source_of('ledger.key')}"
    return f"this host's own, {app.settings.state_folder() / KEY_FILE}"


def _show(report: VerifyReport, *, json_: bool) -> None:
    if json_:
        as_json(report.document())
        return
    if report.first_break is not None:
        click.echo(f"BROKEN: {report.first_break}")
    else:
        click.echo(f"verified: {report.size} entries, root {report.root}")
    click.echo(f"key: {report.key} ({report.key_source})")


@ledger.command(epilog=EXIT_CODES)
@click.option("--out", "out", required=True, type=click.Path(path_type=Path), help="The folder to write to.")
@json_option
@command
async def export(out: Path, json_: bool) -> int:
    r"""Write leaves.jsonl, checkpoint and key.pub: all that `ledger verify` needs.

    \b
    Examples:
      retentiond ledger export --out evidence

    \b
    JSON: {"out", "size", "root"}
    """
    async with open_app(settings(), create=False) as app:
        try:
            out.mkdir(parents=True, exist_ok=True)
            signed = await export_ledger(app.database, out, app.journal.key, app.journal.origin, app.journal.high_water)
        except OSError as error:
            raise UsageError(
                f"the ledger can't be exported to {out}: {error.strerror}",
                remedy="name by --out a folder that can be made or written, with room on its disk",
            ) from error
    document = {"out": str(out), "size": signed.size, "root": signed.root.hex()}
    as_json(document) if json_ else click.echo(f"{signed.size} entries written to {out}")
    return 0


@ledger.command(epilog=EXIT_CODES)
@click.option("--reason", required=True, help="Why the control database is right as it is.")
@json_option
@command
async def accept(reason: str, json_: bool) -> int:
    r"""Take the control database as it is, after a restore that was meant: erasing goes on.

    Where it is older than what was done from this state_dir, holds may be missing from it: look at `hold list` first.
    It is in the ledger, with the checkpoint that is given up. Each host with a state_dir of its own has to be told.

    \b
    Examples:
      retentiond ledger accept --reason "restored from the backup of 3 May; holds were compared"

    \b
    JSON: {"checkpoint": NOTE}
    """
    async with open_app(settings(), create=False) as app:
        signed = await app.journal.accept(app.database, by=by_whom(), reason=reason, key=app.texts_key)
        async with app.database.transaction() as tx:
            await due.make_due(tx)
    as_json({"checkpoint": signed}) if json_ else click.echo(signed, nl=False)
    return 0


COMMANDS = [ledger]
