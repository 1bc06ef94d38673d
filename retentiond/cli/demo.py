"""`demo`: everything on one machine, from nothing."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from retentiond.cli.output import EXIT_CODES, as_json, command, json_option


@click.command(epilog=EXIT_CODES)
@click.option("--once", is_flag=True, help="End when all promises are kept, instead of serving until Ctrl-C.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Export the ledger to this folder once they are.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds that the daemon gets to keep them; then the demo ends with exit code 1 and says what is not kept.",
)
@json_option
@command
async def demo(once: bool, evidence: Path | None, time_limit: float, json_: bool) -> int:
    r"""Watch the daemon make the privacy policy true on made data.

    An embedded Postgres gets a company of 20,000 accounts and eight years of records, some of them under a hold, and an
    S3 server (moto's, in memory) a bucket of artifacts. The daemon then erases what is overdue, in about a minute, and
    goes on serving. Needs no configuration and reads none; works in a temporary folder that it removes.

    Ctrl-C ends it at any moment: with exit code 0 once all promises are kept, with 130 before.

    \b
    Examples:
      retentiond demo
      retentiond demo --once --evidence ./evidence

    \b
    JSON: {"kept", "promises": [{"class", "tier", "term", "overdue", "held", "kept", "overdue_before"}]}
    """
    from retentiond.demo.run import Demo, Options, run_demo

    course = Demo(Options(once, time_limit, evidence), Console(highlight=False, stderr=json_))
    code = await run_demo(course)
    if json_:
        as_json(course.document())
    return code


COMMANDS = [demo]
