"""How many records a hold covers, asked of each target when it is placed, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import click

from retentiond.cli.output import note
from retentiond.daemon import App
from retentiond.domain.holds import Hold, Scope, covers_target
from retentiond.errors import RetentiondError
from retentiond.stores.base import Matches, Store

_COUNT_SECONDS, _LEAST_SECONDS = 20.0, 1.0


async def matches(app: App, placed: Hold) -> dict[str, Matches | None]:
    """How many records the hold covers in each target that it bears on, whatever their verdict; None: can't be read."""
    found: dict[str, Matches | None] = {}
    until = time.monotonic() + _COUNT_SECONDS
    for target in app.spec.targets:
        if not covers_target(placed.scope, target=target.name, class_name=target.data_class.name):
            continue
        store = app.engine.stores[target.name]
        try:
            # What is left of the time, but enough for an estimate.
            found[target.name] = await store.matches(
                await store.hold(placed), seconds=max(until - time.monotonic(), _LEAST_SECONDS)
            )
        except RetentiondError:
            found[target.name] = None
    return found


def summed(found: Mapping[str, Matches | None]) -> dict[str, object]:
    """The counts as they are in the document of `hold place`."""
    counted = {name: each for name, each in found.items() if each is not None}
    return {
        "records_matched": sum(each.records for each in counted.values()),
        "records_matched_estimate": not all(each.exact for each in counted.values()),
        "matches": {name: {"records": each.records, "estimate": not each.exact} for name, each in counted.items()},
        "targets_not_counted": [name for name, each in found.items() if each is None],
    }


def show_matched(matched: Mapping[str, object]) -> None:
    """Print them for people."""
    about = "about " if matched["records_matched_estimate"] else ""
    click.echo(f"{'matches':<16}{about}{matched['records_matched']} records")
    found = matched["matches"]
    for name, each in found.items() if isinstance(found, dict) else ():
        click.echo(f"{'':<16}  {name}: {'about ' if each['estimate'] else ''}{each['records']}")


async def warn_of_unfit(app: App, placed: Hold) -> None:
    """Warn, on standard error, of ids that a target's columns can't take: there that part of the scope holds all."""
    for target in app.spec.targets:
        if not covers_target(placed.scope, target=target.name, class_name=target.data_class.name):
            continue
        store = app.engine.stores[target.name]
        try:
            whole = await store.hold(placed)
            accounts = placed.scope.accounts if target.knows_account and whole.accounts is None else ()
            records = placed.scope.records.get(target.name, ()) if whole.records is None else ()
            unfit = [
                *[(each, "account") for each in accounts if await _is_unfit(store, placed, {"accounts": (each,)})],
                *[
                    (each, "key")
                    for each in records
                    if await _is_unfit(store, placed, {"records": {target.name: [each]}})
                ],
            ]
        except RetentiondError:
            continue  # it was said when it could not be opened
        for text, column in unfit:
            note(
                f"warning: {text} is no id of the type of {target.name}'s {column} column: all records of "
                f"{target.name} that the rest of the scope covers are held"
            )


async def _is_unfit(store: Store, placed: Hold, alone: Mapping[str, object]) -> bool:
    found = await store.hold(replace(placed, scope=Scope.from_document(alone)))
    return found.accounts is None and found.records is None


def warn_of_matched(matched: Mapping[str, object]) -> None:
    """Warn, on standard error, of targets that could not be counted, and of a hold that matches nothing."""
    if blind := matched["targets_not_counted"]:
        assert isinstance(blind, list)
        note(f"warning: {', '.join(blind)} can't be read now and is not counted; the hold covers it all the same")
    if not matched["records_matched"] and not matched["records_matched_estimate"]:
        note("warning: the hold matches no record that there is now")
        note("  remedy: compare its scope with the ids of records; it holds what may come, until it is released")
