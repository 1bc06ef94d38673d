"""`demo`: everything on one machine, from nothing."""

from __future__ import annotations

import click

from retentiond.cli.output import EXIT_CODES, command


@click.command(epilog=EXIT_CODES)
@click.option("--once", is_flag=True, help="End when all promises are kept.")
@command
async def demo(once: bool) -> int:
    """An embedded Postgres with eight years of made data, and the daemon making the privacy policy true on it."""
    from retentiond.demo.run import run_demo

    return await run_demo(once=once)


COMMANDS = [demo]
