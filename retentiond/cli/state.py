"""`pause`, `resume`, `approve`: an operator's word to every replica."""

from __future__ import annotations

from typing import Final

import click

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, settings
from retentiond.control.approvals import Kind, groups_of
from retentiond.daemon import open_app
from retentiond.desk import approving
from retentiond.desk import state as desk
from retentiond.errors import UsageError
from retentiond.sweep.questions import DIRECTORY

_UNITS: Final[dict[Kind, str]] = {"sweep": "records", "directory": "accounts", "clock": "seconds ahead"}


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
    async with open_app(settings(), create=False) as app:
        done = await desk.pause(app, by_whom(), reason)
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
    async with open_app(settings(), create=False) as app:
        done = await desk.resume(app, by_whom())
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
    JSON: {"kind", "target", "bound", "digest"}; "bound" is the largest number of records that it lets go,
    with the groups of records whose retention becomes shorter.
    """
    if sum(map(bool, (target, named, directory, clock))) != 1:
        raise UsageError("name one target, or say --directory or --clock", remedy="see `retentiond approve --help`")
    async with open_app(settings(), create=False) as app:
        if target == DIRECTORY and DIRECTORY not in app.settings.targets:
            directory = True
        elif target == DIRECTORY:
            raise UsageError(
                f"{DIRECTORY} is a target here, and what the account directory was called",
                remedy=f"say `retentiond approve --directory`, or `retentiond approve --target {DIRECTORY}`",
            )
        kind: Kind = "directory" if directory else "clock" if clock else "sweep"
        granted = await approving.approve(app, kind, target or named, by_whom())
    document = approving.granted_document(granted)
    groups = groups_of(granted.digest)
    told = f"approved: {granted.kind} {granted.target}, at most {(granted.bound or 0) - groups} {_UNITS[granted.kind]}"
    if groups:
        told += f", and a shorter retention of {groups} groups"
    as_json(document) if json_ else click.echo(told)
    return 0


COMMANDS = [pause, resume, approve]
