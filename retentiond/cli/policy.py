"""`policy show|diff|approve`: the policy in force, and what a changed configuration would newly erase."""

from __future__ import annotations

import click

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, Group, as_json, command, json_option, settings
from retentiond.control import approvals
from retentiond.daemon import open_app
from retentiond.desk.approving import enter
from retentiond.desk.policy import EVADED_REMEDY, look


@click.group(name="policy", cls=Group, epilog=EXIT_CODES)
def policy() -> None:
    r"""The policy in force, and changes to it.

    A configuration that would newly erase something is not put in force before it is approved.

    \b
    Examples:
      retentiond policy diff
      retentiond policy approve
    """


@policy.command(epilog=EXIT_CODES)
@json_option
@command
async def show(json_: bool) -> int:
    r"""The configuration that is set here, its digest, and the digest in force.

    \b
    Examples:
      retentiond policy show

    \b
    JSON: {"digest", "in_force", "document"}; the digest is over the document: all that enters a verdict.
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        found = await look(app, tx)
    if json_:
        as_json(found.shown())
        return 0
    click.echo(f"configured  {found.digest}")
    click.echo(f"in force    {found.in_force or 'none yet'}")
    for name, data_class in app.spec.policy.classes.items():
        terms = ", ".join(f"{tier} {term}" for tier, term in data_class.terms.items())
        minimum = " (legal minimum)" if data_class.minimum else ""
        after = " after the account's deletion" if data_class.after == "account_deleted" else ""
        click.echo(f"  {name}: {terms}{after}{minimum}")
    return 0


@policy.command(epilog=EXIT_CODES)
@json_option
@command
async def diff(json_: bool) -> int:
    r"""What the configuration set here would newly erase, compared with the one in force.

    The exit code is 3 where there is something: it awaits `retentiond policy approve`, or, where records would get
    from under a hold, a hold under their new name. Once approved it is 0: the configuration is in force from the next
    start on.

    \b
    Examples:
      retentiond policy diff && RETENTIOND_MODE=enforce retentiond run

    \b
    JSON: {"digest", "in_force", "newly_erases": [TEXT], "holds_evaded": [TEXT], "approved"}
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        found = await look(app, tx)
    if json_:
        as_json(found.difference())
    else:
        for line in (*found.newly_erases, *found.evaded) or ("nothing would be newly erased",):
            click.echo(line)
        if found.evaded:
            click.echo(f"no approval lets a hold be evaded: {EVADED_REMEDY}")
        if found.newly_erases and found.approved:
            click.echo("approved: in force at the next start")
    return 3 if (found.newly_erases and not found.approved) or found.evaded else 0


@policy.command(epilog=EXIT_CODES)
@json_option
@command
async def approve(json_: bool) -> int:
    r"""Approve the configuration set here; the next start with it puts it in force.

    From GitOps, set RETENTIOND_POLICY_APPROVED to the digest instead.

    \b
    Examples:
      retentiond policy diff; retentiond policy approve

    \b
    JSON: {"digest"}
    """
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        granted = await approvals.grant(tx, "policy", "", app.spec.digest, None, by_whom())
        await enter(app, tx, granted)
    as_json({"digest": granted.digest}) if json_ else click.echo(f"approved: {granted.digest}")
    return 0


COMMANDS = [policy]
