"""What `/readyz` asks: each check raises what is wrong and how to mend it. Nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Iterator

from retentiond.api.health import Check
from retentiond.control import entries, holds
from retentiond.daemon import App
from retentiond.daemon_watch import Watch, target_check
from retentiond.errors import Blind
from retentiond.stores.base import Store

CONTROL, LOOP, MODE, LEDGER, HOLDS, CLOCK, WORK, STOPPING = (
    "control",
    "loop",
    "mode",
    "ledger",
    "hold_activation",
    "clock",
    "work",
    "stopping",
)
"""Names of checks under which the loop and its jobs leave their faults."""

_TICK_OVERDUE_SECONDS = 60.0


def checks(app: App, watch: Watch) -> dict[str, Check]:
    """All checks by name."""

    async def control() -> None:
        async with app.database.transaction(read_only=True) as tx:
            await tx.execute("SELECT 1")
        watch.require(CONTROL)

    async def readable_holds() -> None:
        async with app.database.transaction(read_only=True) as tx:
            await holds.current(tx)

    async def ledger() -> None:
        async with app.database.transaction() as tx:
            await entries.ledger_writable(tx)
        watch.require(LEDGER)

    async def control_state() -> None:
        async with app.database.transaction(read_only=True) as tx:
            await app.journal.require_continued(tx)

    async def clock() -> None:
        watch.require(CLOCK)
        watch.require_guard("clock_skew", "clock_jump")

    async def loop() -> None:
        watch.require(LOOP)
        if time.monotonic() - watch.ticked_at > _TICK_OVERDUE_SECONDS:
            raise Blind(
                f"the loop has looked at nothing for more than {_TICK_OVERDUE_SECONDS:.0f} s",
                remedy="see the check `control`, and restart the daemon where that is well",
            )

    return {
        CONTROL: control,
        LOOP: loop,
        "holds": readable_holds,
        LEDGER: ledger,
        "control_state": control_state,
        CLOCK: clock,
        **{name: _standing(watch, name) for name in (MODE, HOLDS, WORK, STOPPING)},
        **dict(_directory(app, watch)),
        **{target_check(name): _target(store, watch) for name, store in app.engine.stores.items()},
    }


def _standing(watch: Watch, name: str) -> Check:
    async def check() -> None:
        watch.require(name)

    return check


def _directory(app: App, watch: Watch) -> Iterator[tuple[str, Check]]:
    directory = app.engine.directory
    if directory is None:
        return

    async def check() -> None:
        await directory.reach()
        watch.require_guard("directory")

    yield "accounts", check


def _target(store: Store, watch: Watch) -> Check:
    async def check() -> None:
        await store.clock()
        watch.require_swept(store.name)
        await store.require_unchanged()

    return check
