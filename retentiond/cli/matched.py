"""What `hold place` says of the records that the hold covers."""

from __future__ import annotations

from collections.abc import Mapping

import click

from retentiond.cli.output import note
from retentiond.desk.base import Desk
from retentiond.desk.matched import unfit_ids
from retentiond.domain.holds import Hold


def show_matched(matched: Mapping[str, object]) -> None:
    """Print them for people."""
    about = "about " if matched["records_matched_estimate"] else ""
    click.echo(f"{'matches':<16}{about}{matched['records_matched']} records")
    found = matched["matches"]
    for name, each in found.items() if isinstance(found, dict) else ():
        click.echo(f"{'':<16}  {name}: {'about ' if each['estimate'] else ''}{each['records']}")


async def warn_of_unfit(desk: Desk, placed: Hold) -> None:
    """Warn, on standard error, of ids that a target's columns can't take: there that part of the scope holds all."""
    async for each in unfit_ids(desk, placed):
        note(
            f"warning: {each.id} is no id of the type of {each.target}'s {each.column} column: all records of "
            f"{each.target} that the rest of the scope covers are held"
        )


def warn_of_matched(matched: Mapping[str, object]) -> None:
    """Warn, on standard error, of targets that could not be counted, and of a hold that matches nothing."""
    if blind := matched["targets_not_counted"]:
        assert isinstance(blind, list)
        note(f"warning: {', '.join(blind)} can't be read now and is not counted; the hold covers it all the same")
    if not matched["records_matched"] and not matched["records_matched_estimate"]:
        note("warning: the hold matches no record that there is now")
        note("  remedy: compare its scope with the ids of records; it holds what may come, until it is released")
