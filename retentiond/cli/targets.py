"""What commands that look at targets share: the option that names them, and what to say of one that can't be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from retentiond.cli.output import note
from retentiond.desk.targets import Broken
from retentiond.errors import Unreachable

targets_option = click.option(
    "--target", "targets", multiple=True, metavar="T", help="Only this target; repeatable. All of them by default."
)


def show_broken(found: Mapping[str, Broken]) -> None:
    """Say on standard error which targets could not be looked at."""
    for name, broken in found.items():
        note(f"{name}: {broken.error.message}")
        if broken.error.remedy:
            note(f"  remedy: {broken.error.remedy}")


def exit_code(found: Iterable[Broken]) -> int:
    """4 when a target can't be reached, 1 when one can't be judged, 0 when all could be."""
    errors = [broken.error for broken in found]
    if any(isinstance(error, Unreachable) for error in errors):
        return Unreachable.exit_code
    return 1 if errors else 0
