"""The stretches of walks that a sweep goes, and where it goes on after an earlier one was cut short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Store, Window


def whole(store: Store, plan: TargetPlan) -> tuple[Window, ...]:
    """The walks of the plan, as windows without a size."""
    return tuple(Window(name, None, 0) for name in store.walks(plan))


def resumed(
    store: Store, plan: TargetPlan, legs: Sequence[Window], cursor: Mapping[str, Any] | None
) -> tuple[Window, ...]:
    """The legs from the cursor on, round to it at the end, where it lies in one of them; else the legs as they are.

    What lies before it may have become due since, or have come in late.
    """
    after = tuple(map(str, cursor["after"])) if cursor and cursor.get("after") else None
    at = next((i for i, leg in enumerate(legs) if cursor and leg.walk == cursor.get("walk")), None)
    if cursor is None or after is None or at is None:
        return tuple(legs)
    leg = legs[at]
    order = store.order(plan, leg.walk)
    if not order or tuple(cursor.get("order", ())) != order:
        return tuple(legs)
    return (replace(leg, after=after), *legs[at + 1 :], *legs[:at], replace(leg, until=after))


def cursor_at(
    store: Store, plan: TargetPlan, window: Window, after: tuple[str, ...] | None, so_far: Mapping[str, object]
) -> dict[str, Any]:
    """What is remembered after a window: where the walk goes on, and what the sweep has come to by then."""
    return {
        "walk": window.walk,
        "order": list(store.order(plan, window.walk)),
        "after": list(after) if after else None,
        "so_far": so_far,
    }
