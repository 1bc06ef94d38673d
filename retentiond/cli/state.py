"""`pause`, `resume`, `approve`: an operator's word to every replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, settings
from retentiond.control import approvals, due, flags
from retentiond.daemon import open_app
from retentiond.errors import UsageError
from retentiond.ledger import kinds
from retentiond.sweep.questions import CLOCK, DIRECTORY

_UNITS: Final[dict[approvals.Kind, str]] = {"sweep": "records", "directory": "accounts", "clock": "seconds ahead"}


@click.command(epilog=EXIT_CODES)
@click.option("--reason", default="", help="Why.")
@json_option
@command
async def pause(reason: str, json_: bool) -> int:
    r"""Stop erasing everywhere, at once, across replicas: no batch begins until `resume`.

    \b
    Examples:
      retentiond pause --reason "restoring a backup"

    \b
    JSON: {"paused": true, "changed"}; "changed" is false where it was paused already.
    """
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        done = await flags.pause(tx, by_whom(), reason)
        if done:
            entry = kinds.mode("pause", mode=app.settings.mode, by=by_whom(), key=app.texts_key, reason=reason)
            await app.journal.append(tx, entry)
    as_json({"paused": True, "changed": done}) if json_ else click.echo("paused" if done else "was paused already")
    return 0


@click.command(epilog=EXIT_CODES)
@json_option
@command
async def resume(json_: bool) -> int:
    r"""Let erasing go on, everywhere.

    \b
    Examples:
      retentiond resume

    \b
    JSON: {"paused": false, "changed"}
    """
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        done = await flags.resume(tx)
        if done:
            # The ledger's head is locked last, as everywhere: sweeps hold their unit when they come to it.
            await due.make_due(tx)
            await app.journal.append(tx, kinds.mode("resume", mode=app.settings.mode, by=by_whom(), key=app.texts_key))
    as_json({"paused": False, "changed": done}) if json_ else click.echo("resumed" if done else "was not paused")
    return 0


@click.command(epilog=EXIT_CODES)
@click.argument("target", required=False)
@click.option("--target", "named", metavar="T", help="The same as TARGET, whatever it is called.")
@click.option("--directory", "directory", is_flag=True, help="The account directory is right, though it looks damaged.")
@click.option("--clock", "clock", is_flag=True, help="The clock is right, though it jumped.")
@json_option
@command
async def approve(target: str | None, named: str | None, directory: bool, clock: bool, json_: bool) -> int:
    r"""Let a guarded sweep of TARGET go, once.

    It goes under the policy in force, and for as many records as it asked for: look at `retentiond plan` first.
    `approve --directory` accepts an account directory that the guard took for damaged, for as many accounts as it asked
    for (`approve accounts` too, where no target is called so); `approve --clock` a clock that jumped ahead.

    \b
    Examples:
      retentiond approve request_logs
      retentiond approve --directory
      retentiond approve --clock

    \b
    JSON: {"kind", "target", "bound", "digest"}; "bound" is the largest number of records that it lets go.
    """
    if sum(map(bool, (target, named, directory, clock))) != 1:
        raise UsageError("name one target, or say --directory or --clock", remedy="see `retentiond approve --help`")
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        if target == DIRECTORY and DIRECTORY not in app.settings.targets:
            directory = True
        elif target == DIRECTORY:
            raise UsageError(
                f"{DIRECTORY} is a target here, and what the account directory was called",
                remedy=f"say `retentiond approve --directory`, or `retentiond approve --target {DIRECTORY}`",
            )
        awaited = _awaited(await approvals.waiting(tx), _meant(target or named, directory=directory), app.spec.digest)
        granted = await approvals.grant(tx, awaited.kind, awaited.target, awaited.digest, awaited.count, by_whom())
        await due.make_due(tx)
        await app.journal.append(
            tx,
            kinds.approval(
                "granted",
                subject=granted.kind,
                target=granted.target,
                digest=granted.digest,
                bound=granted.bound,
                by=by_whom(),
            ),
        )
    document = {"kind": granted.kind, "target": granted.target, "bound": granted.bound, "digest": granted.digest}
    told = f"approved: {granted.kind} {granted.target}, at most {granted.bound} {_UNITS[granted.kind]}"
    as_json(document) if json_ else click.echo(told)
    return 0


def _meant(target: str | None, *, directory: bool) -> tuple[approvals.Kind, str]:
    if directory:
        return "directory", DIRECTORY
    return ("clock", CLOCK) if target is None else ("sweep", target)


def _awaited(waiting: Sequence[approvals.Awaited], meant: tuple[approvals.Kind, str], digest: str) -> approvals.Awaited:
    """The question that is answered; raises UsageError where nobody asks it under the configuration of here."""
    for asked in waiting:
        if (asked.kind, asked.target) == meant and asked.digest in ("", digest):
            return asked
    kind, target = meant
    listed = ", ".join(
        f"--{asked.kind}" if asked.kind != "sweep" else asked.target for asked in waiting if asked.kind != "policy"
    )
    raise UsageError(
        f"{target if kind == 'sweep' else f'the {kind}'} waits for no approval under this configuration",
        remedy=f"what waits: {listed or 'nothing'}; a guard that stops a sweep asks for one",
    )


COMMANDS = [pause, resume, approve]
