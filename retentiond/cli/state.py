"""`pause`, `resume`, `approve`: an operator's word to every replica."""

from __future__ import annotations

import click

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, settings
from retentiond.control import approvals, flags, units
from retentiond.daemon import open_app
from retentiond.errors import UsageError
from retentiond.ledger import kinds
from retentiond.sweep.survey import DIRECTORY

_CLOCK = "clock"


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
            await app.journal.append(tx, kinds.mode("resume", mode=app.settings.mode, by=by_whom(), key=app.texts_key))
            await units.make_due(tx)
    as_json({"paused": False, "changed": done}) if json_ else click.echo("resumed" if done else "was not paused")
    return 0


@click.command(epilog=EXIT_CODES)
@click.argument("target", required=False)
@click.option("--clock", "clock", is_flag=True, help="The clock is right, though it jumped.")
@json_option
@command
async def approve(target: str | None, clock: bool, json_: bool) -> int:
    r"""Let a guarded sweep of TARGET go, once.

    It goes under the policy in force, and for as many records as it asked for. `approve accounts` accepts an account
    directory that the guard took for damaged; `approve --clock` a clock that jumped ahead. Look at
    `retentiond plan` first.

    \b
    Examples:
      retentiond approve request_logs
      retentiond approve --clock

    \b
    JSON: {"kind", "target", "bound", "digest"}; "bound" is the largest number of records that it lets go.
    """
    if (target is None) == (not clock):
        raise UsageError("name a target, or say --clock", remedy="see `retentiond approve --help`")
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        digest = app.spec.digest
        known = {each.name for each in app.spec.targets}
        if clock:
            granted = await approvals.grant(tx, "clock", _CLOCK, "", None, by_whom())
        elif target == DIRECTORY:
            granted = await approvals.grant(tx, "directory", DIRECTORY, digest, None, by_whom())
        else:
            awaited = [w for w in await approvals.waiting(tx) if w.kind == "sweep" and w.target == target]
            if target not in known or not awaited:
                raise UsageError(
                    f"nothing of {target!r} waits for an approval",
                    remedy=f"targets: {', '.join(sorted(known))}; a sweep that a guard stops asks for one",
                )
            granted = await approvals.grant(tx, "sweep", str(target), digest, awaited[0].count, by_whom())
        await app.journal.append(
            tx,
            kinds.approval(
                "granted", subject=granted.kind, target=granted.target, digest=digest, bound=granted.bound, by=by_whom()
            ),
        )
        await units.make_due(tx)
    document = {"kind": granted.kind, "target": granted.target, "bound": granted.bound, "digest": digest}
    as_json(document) if json_ else click.echo(
        f"approved: {granted.kind} {granted.target}" + (f", at most {granted.bound} records" if granted.bound else "")
    )
    return 0


COMMANDS = [pause, resume, approve]
