"""`tidy`: what batches that came to nothing have left in archives."""

from __future__ import annotations

from collections.abc import Sequence

import click

from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, note, settings, table
from retentiond.cli.targets import exit_code, show_broken, targets_option
from retentiond.control import entries, permits
from retentiond.daemon import App, open_app
from retentiond.desk.targets import Broken, chosen
from retentiond.stores.archive import Kept
from retentiond.stores.postgres.store import PostgresStore


@click.command(epilog=EXIT_CODES)
@targets_option
@json_option
@command
async def tidy(targets: tuple[str, ...], json_: bool) -> int:
    r"""Which objects in archives are of batches that deleted nothing? Lists them, and removes none.

    A batch that is undone removes what it has written; where it can't, since its process was killed or the network was
    gone, that is left: a copy of records that are in the table still, or in a later archive. What has an outcome in the
    ledger is an archive. A control database that was restored from a backup lacks the latest outcomes: compare with
    `retentiond ledger verify` and the last checkpoint before anything is removed by hand.

    \b
    Examples:
      retentiond tidy
      retentiond tidy --target request_logs --json

    \b
    JSON: {"targets": {T: {"objects": n, "left": [{"batch", "key", "bytes"}]}}}
    """
    broken: dict[str, Broken] = {}
    found: dict[str, tuple[int, list[Kept]]] = {}
    async with open_app(settings(), create=False, reading=True) as app:
        for target in chosen(app, targets):
            store = app.engine.stores[target.name]
            if not isinstance(store, PostgresStore) or not store.archives:
                continue
            try:
                kept = [each async for each in store.kept()]
                found[target.name] = len(kept), await _left(app, kept)
            except Exception as error:
                broken[target.name] = Broken.by(target.name, error)
    show_broken(broken)
    if json_:
        as_json(
            {
                "targets": {
                    name: {
                        "objects": objects,
                        "left": [{"batch": each.batch, "key": each.key, "bytes": each.size} for each in left],
                    }
                    for name, (objects, left) in found.items()
                }
            }
        )
        return exit_code(broken.values())
    if not found and not broken:
        note("no target is archived")
    lines = [[name, each.batch, each.key, each.size] for name, (_, left) in found.items() for each in left]
    table("left by batches that deleted nothing", ["target", "batch", "key", "bytes"], lines)
    return exit_code(broken.values())


async def _left(app: App, kept: Sequence[Kept]) -> list[Kept]:
    """Those whose batch deleted nothing for sure.

    The objects were listed first: so each has had its permit, which is open, or has ended with all that the ledger is
    told of it.
    """
    async with app.database.transaction(read_only=True) as tx:
        undecided = {permit.batch for permit in await permits.open_permits(tx)}
        told = await entries.batches_told(tx, {each.batch for each in kept})
    return [each for each in kept if each.batch not in undecided | told]


COMMANDS = [tidy]
