"""How commands speak: one JSON document with `--json`, tables for people, errors on standard error."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import update_wrapper
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retentiond.errors import ConfigurationError, RetentiondError
from retentiond.settings import Settings, load

T = TypeVar("T")

EXIT_CODES = """
\b
Exit codes:
  0  done
  1  findings of `check`, or a failed sweep
  2  usage or configuration
  3  refused by a guard, or awaiting approval
  4  something it depends on can't be reached
"""


def settings() -> Settings:
    """The settings of this process's environment; raises ConfigurationError with every problem."""
    return load(os.environ)


def as_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def console() -> Console:
    """Standard output for people; plain where it is no terminal, NO_COLOR honoured."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join("" if cell is None else str(cell) for cell in row))
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    console().print(shown)


def note(text: str) -> None:
    """A line on standard error: progress, hints."""
    click.echo(text, err=True)


def report(error: RetentiondError) -> None:
    """An error with its remedy, on standard error."""
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            where = f" ({problem.source})" if problem.source else ""
            note(f"error: {problem.key}{where}: {problem.message}\n  remedy: {problem.remedy}")
        return
    note(f"error: {error.message}")
    if error.remedy:
        note(f"  remedy: {error.remedy}")


def command(body: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Run a coroutine as a command: our errors end it with their exit code, everything else is a defect."""

    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = asyncio.run(body(*args, **kwargs))
        except RetentiondError as error:
            report(error)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        raise SystemExit(code or 0)

    return update_wrapper(run, body)


def json_option(body: Callable[..., T]) -> Callable[..., T]:
    """The option that every command has."""
    return click.option("--json", "json_", is_flag=True, help="Print one JSON document on standard output.")(body)
