"""How many records a hold covers, asked of each target when it is placed, and which ids its columns can't take."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import structlog

from retentiond.desk.base import Desk
from retentiond.domain.holds import Hold, Scope, covers_target
from retentiond.errors import RetentiondError
from retentiond.stores.base import Matches, Store

log = structlog.get_logger()
COUNT_SECONDS = 20.0
_LEAST_SECONDS = 1.0


async def matches(desk: Desk, placed: Hold, seconds: float = COUNT_SECONDS) -> dict[str, Matches | None]:
    """How many records the hold covers in each target that it bears on, whatever their verdict; None: can't be read."""
    found: dict[str, Matches | None] = {}
    await count_into(found, desk, placed, seconds)
    return found


def covered(desk: Desk, placed: Hold) -> list[str]:
    """The targets that the hold bears on."""
    return [
        target.name
        for target in desk.spec.targets
        if covers_target(placed.scope, target=target.name, class_name=target.data_class.name)
    ]


async def count_into(found: dict[str, Matches | None], desk: Desk, placed: Hold, seconds: float) -> None:
    """The same, one target after another into `found`, so that who does not wait for the end has what there is."""
    until = time.monotonic() + seconds
    for name in covered(desk, placed):
        try:
            store = desk.engine.stores[name]
            await desk.engine.open(desk.spec.target(name))
            # What is left of the time, but enough for an estimate.
            found[name] = await store.matches(
                await store.hold(placed), seconds=max(until - time.monotonic(), _LEAST_SECONDS)
            )
        except RetentiondError:
            found[name] = None
        except Exception as error:
            # The hold is placed whatever becomes of the count: a defect here must not tell that it is not.
            log.error("unexpected", target=name, exc_info=error)
            found[name] = None


def summed(found: Mapping[str, Matches | None]) -> dict[str, object]:
    """The counts as they are in the document of `hold place`."""
    counted = {name: each for name, each in found.items() if each is not None}
    return {
        "records_matched": sum(each.records for each in counted.values()),
        "records_matched_estimate": not all(each.exact for each in counted.values()),
        "matches": {name: {"records": each.records, "estimate": not each.exact} for name, each in counted.items()},
        "targets_not_counted": [name for name, each in found.items() if each is None],
    }


@dataclass(frozen=True, slots=True)
class Unfit:
    """An id of a scope that a target's column can't take: there that part of the scope holds all."""

    target: str
    id: str
    column: str


async def unfit_ids(desk: Desk, placed: Hold) -> AsyncIterator[Unfit]:
    """Those of the hold's scope; of targets that can be read."""
    for target in desk.spec.targets:
        if not covers_target(placed.scope, target=target.name, class_name=target.data_class.name):
            continue
        store = desk.engine.stores[target.name]
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
            yield Unfit(target.name, text, column)


async def _is_unfit(store: Store, placed: Hold, alone: Mapping[str, object]) -> bool:
    found = await store.hold(replace(placed, scope=Scope.from_document(alone)))
    return found.accounts is None and found.records is None
