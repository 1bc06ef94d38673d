"""The parser: every command, its help, examples and exit codes."""

from __future__ import annotations

import click

from retentiond import __version__
from retentiond.cli import (
    checks,
    demo,
    discover,
    evidence,
    holds,
    permits,
    policy,
    state,
    sweeps,
    tidy,
    tokens,
    views,
    workers,
)
from retentiond.cli.output import EXIT_CODES, Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"Every key of the configuration: docs/configuration.md.\n{EXIT_CODES}",
)
@click.version_option(__version__, prog_name="retentiond")
def main() -> None:
    r"""Make a privacy policy's retention promises true, and prove it.

    Everything is configured by environment variables (RETENTIOND_…), a file named by RETENTIOND_CONFIG_FILE, or both.

    \b
    Examples:
      retentiond check                     is the configuration sound, can every target be swept?
      retentiond plan                      what a sweep would erase now
      retentiond run                       the daemon
      retentiond hold place --matter 2026-17 --reason subpoena --account 4711
    """


for group in (sweeps, views, workers, checks, discover, tidy, state, holds, permits, policy, evidence, tokens, demo):
    for each in group.COMMANDS:
        main.add_command(each)
