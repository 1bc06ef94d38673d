"""`demo`: everything on one machine, from nothing."""

from __future__ import annotations

import click
from rich.console import Console

from retentiond.cli.output import EXIT_CODES, as_json, command, json_option


@click.command(epilog=EXIT_CODES)
@click.option("--once", is_flag=True, help="End when all promises are kept, instead of serving until Ctrl-C.")
@json_option
@command
async def demo(once: bool, json_: bool) -> int:
    r"""Watch the daemon make the privacy policy true on made data.

    An embedded Postgres gets a company of 20,000 accounts and eight years of records, some of them under a hold.
    Needs no configuration and reads none; it takes about a minute, works in a temporary folder, and leaves nothing
    behind. While it serves, it prints the variables with which the other commands reach it.

    \b
    Examples:
      retentiond demo
      retentiond demo --once

    \b
    JSON, at the end: {"targets": {T: {"overdue_before", "overdue", "held", "minimum"}}}
    """
    from retentiond.demo.run import run_demo

    code, found = await run_demo(once=once, console=Console(highlight=False, stderr=json_))
    if json_:
        as_json({"targets": found})
    return code


COMMANDS = [demo]
