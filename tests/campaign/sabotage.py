"""The product, broken on purpose in one place: `python -m tests.campaign.sabotage NAME …` is `retentiond …` without it.

To show that a campaign finds what it is there to find. Each breaks a safety, and nothing else is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def barrier() -> None:
    """A hold becomes active without waiting for the batches that were let go before it."""
    from retentiond.control import activation

    _replace(activation, "_clear", lambda *_: True)


def holds() -> None:
    """Batches don't mind holds."""
    from retentiond.stores.postgres import conditions

    _replace(conditions, "held", lambda *_: "false")


def recovery() -> None:
    """What a crash left without an outcome is taken for undone, and nobody is asked."""
    from retentiond.stores.base import Fate
    from retentiond.stores.postgres.store import PostgresStore

    async def undone(*_: object) -> Fate:
        return Fate("aborted")

    _replace(PostgresStore, "fate", undone)


def clock() -> None:
    """A sweep takes an instant a minute from now for the present."""
    from datetime import timedelta

    from retentiond.sweep import engine

    honest = engine.agreed_now

    def ahead(*args: Any, **named: Any) -> Any:
        return honest(*args, **named) + timedelta(seconds=60)

    _replace(engine, "agreed_now", ahead)


SABOTAGE: dict[str, Callable[[], None]] = {each.__name__: each for each in (barrier, holds, recovery, clock)}


def _replace(place: Any, name: str, by: Any) -> None:
    if not hasattr(place, name):
        raise AttributeError(f"{place} has no {name} any more: mend the sabotage")
    setattr(place, name, by)


if __name__ == "__main__":
    SABOTAGE[sys.argv.pop(1)]()
    from retentiond.cli.main import main

    sys.exit(main())
