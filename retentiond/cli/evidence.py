"""`ledger show|verify|export|accept`: the evidence."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, settings
from retentiond.control import entries, units
from retentiond.daemon import open_app
from retentiond.ledger.export import export as export_ledger
from retentiond.ledger.verify import VerifyReport, verify_database, verify_export


@click.group(name="ledger", epilog=EXIT_CODES)
def ledger() -> None:
    """The tamper-evident record of what was erased, and why it was allowed."""


@ledger.command(epilog=EXIT_CODES)
@click.option("--after", type=int, default=0, help="Entries after this number.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--kind", "kinds", multiple=True, help="Only this kind; repeatable.")
@json_option
@command
async def show(after: int, limit: int, kinds: tuple[str, ...], json_: bool) -> int:
    """Entries of the ledger, oldest first."""
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        rows = await entries.read(tx, after, limit, kinds or None)
    found = [orjson.loads(row.leaf) for row in rows]
    if json_:
        as_json({"entries": found})
        return 0
    for entry in found:
        told = {k: v for k, v in entry.items() if k not in ("seq", "at", "kind", "prev", "version") and v is not None}
        click.echo(f"{entry['seq']:>6} {entry['at']} {entry['kind']:<9} {orjson.dumps(told).decode()}")
    return 0


@ledger.command(epilog=EXIT_CODES)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="The public key, known from elsewhere.")
@json_option
@command
async def verify(folder: Path | None, key_file: Path | None, json_: bool) -> int:
    r"""Verify an export in FOLDER, offline; without it the control database.

    \b
    Examples:
      retentiond ledger export --out evidence
      retentiond ledger verify evidence --key auditors-copy.pub
    """
    if folder is not None:
        report = verify_export(folder, key_file)
    else:
        async with open_app(settings(), create=False) as app:
            verifier = key_file.read_text().strip() if key_file else app.journal.verifier
            report = await verify_database(app.database, verifier)
    _show(report, json_=json_)
    return 0 if report.ok else 1


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
    """Write leaves.jsonl, checkpoint and key.pub: all that `ledger verify` needs."""
    async with open_app(settings(), create=False) as app:
        out.mkdir(parents=True, exist_ok=True)
        signed = await export_ledger(app.database, out, app.journal.key, app.journal.origin, app.journal.high_water)
    document = {"out": str(out), "size": signed.size, "root": signed.root.hex()}
    as_json(document) if json_ else click.echo(f"{signed.size} entries written to {out}")
    return 0


@ledger.command(epilog=EXIT_CODES)
@click.option("--reason", required=True, help="Why the control database is right as it is.")
@json_option
@command
async def accept(reason: str, json_: bool) -> int:
    """Take the control database as it is, after a restore that was meant: erasing goes on.

    Where it is older than what was done from this state_dir, holds may be missing from it: look at `hold list` first.
    It is in the ledger, with the checkpoint that is given up. Each host with a state_dir of its own has to be told.
    """
    async with open_app(settings(), create=False) as app:
        note = await app.journal.accept(app.database, by=by_whom(), reason=reason, key=app.texts_key)
        async with app.database.transaction() as tx:
            await units.make_due(tx)
    as_json({"checkpoint": note}) if json_ else click.echo(note, nl=False)
    return 0


COMMANDS = [ledger]
