"""How commands speak: one JSON document with `--json`, tables for people, errors on standard error."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import update_wrapper
from typing import Any, TypeVar

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retentiond.errors import ConfigurationError, RetentiondError, quoted
from retentiond.settings import Settings, load

T = TypeVar("T")

EXIT_CODES = """
\b
Exit codes:
  0    done
  1    findings of `check`, a failed sweep, or a target that can't be judged
  2    usage or configuration
  3    refused by a guard, or awaiting approval
  4    something it depends on can't be reached
  130  interrupted by Ctrl-C
"""
_DEFECT, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141  # the latter two as a shell reports SIGINT and SIGPIPE


def settings() -> Settings:
    """The settings of this process's environment; raises ConfigurationError with every problem."""
    return load(os.environ)


def as_json(document: object) -> None:
    """Print one JSON document."""
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def for_people() -> bool:
    """Whether standard output is a terminal: then numbers and dates are shortened and tables drawn."""
    return sys.stdout.isatty()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere; numbers stand at the right."""
    lines = [["" if cell is None else cell for cell in row] for row in rows]
    if not for_people():
        click.echo("\t".join(columns))
        for line in lines:
            click.echo("\t".join(str(cell) for cell in line))
        return
    shown = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(lines) and all(isinstance(line[number], int) or line[number] == "" for line in lines)
        shown.add_column(column, justify="right" if numeric else "left")
    for line in lines:
        shown.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in line))
    Console(highlight=False).print(shown)


def size(count: int) -> str | int:
    """Bytes: in the largest unit on a terminal, the bare number elsewhere."""
    if not for_people():
        return count
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def day(moment: str | None) -> str | None:
    """An RFC 3339 text: its day on a terminal, the whole elsewhere."""
    return moment[:10] if moment is not None and for_people() else moment


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
    """Run a coroutine as a command; whatever ends it ends in a line on standard error and an exit code."""

    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop) as runner:
                code = runner.run(body(*args, **kwargs))
        except RetentiondError as error:
            report(error)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt:
            note("interrupted")
            raise SystemExit(_INTERRUPTED) from None
        except BrokenPipeError:
            raise SystemExit(_reader_gone()) from None
        except Exception as error:
            raise SystemExit(_unexpected(error)) from error
        raise SystemExit(code or 0)

    wrapped = update_wrapper(run, body)
    wrapped.__doc__ = as_written(body.__doc__)
    return wrapped


def _loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def as_written(help_: str | None) -> str | None:
    r"""A help text for click, which leaves what follows a `\b` as it is; a raw docstring has that as two letters."""
    return help_.replace("\\b\n", "\b\n") if help_ else help_


class Group(click.Group):
    """A group whose docstring is taken as those of commands are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = as_written(self.help)


def _reader_gone() -> int:
    """Whoever read our output has gone: what is still buffered goes nowhere, or Python complains of it at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        note("stopped: the output is not read any more")
    return _BROKEN_PIPE


def _unexpected(error: Exception) -> int:
    """Something that nobody foresaw: one line, and the traceback for who asks for it; our own errors in a group too."""
    if isinstance(error, ExceptionGroup):
        ours, others = error.split(RetentiondError)
        if ours is not None and others is None:
            first = next(each for each in _leaves(ours) if isinstance(each, RetentiondError))
            report(first)
            return first.exit_code
    if os.environ.get("RETENTIOND_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    note(f"error: unexpected {told(error)}")
    note("  remedy: this is a defect; RETENTIOND_LOG_LEVEL=debug shows where it came from")
    return _DEFECT


def told(error: Exception) -> str:
    """What an error that is none of ours says, on one line."""
    return " ".join(quoted(error).split())


def _leaves(group: ExceptionGroup[Exception]) -> Iterable[Exception]:
    for each in group.exceptions:
        if isinstance(each, ExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def json_option(body: Callable[..., T]) -> Callable[..., T]:
    """The option that every command has."""
    text = "Print one JSON document on standard output, and nothing else there."
    return click.option("--json", "json_", is_flag=True, help=text)(body)
