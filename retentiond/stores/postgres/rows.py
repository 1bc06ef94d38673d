"""The statement that counts a window."""

from __future__ import annotations

import asyncpg
import orjson

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.queries import BLOCKED, DUE, HELD, MINIMUM, UNRESOLVED, judged
from retentiond.stores.postgres.shape import Context, Params, Shape
from retentiond.stores.postgres.walks import Walk

_STATES = {"held": HELD, "minimum": MINIMUM, "selected": DUE, "unresolved": UNRESOLVED, "blocked": BLOCKED}
_INSTANT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def count_sql(
    shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, change: Change | None
) -> str:
    """One row: how many records of the window are in each state, and what is due by tier."""
    states = ", ".join(f"count(*) FILTER (WHERE state = {number}) AS {name}" for name, number in _STATES.items())
    window = judged(shape, plan, params, walk, context, change)
    return (
        f"WITH j AS MATERIALIZED ({window})"
        f" SELECT count(*) AS scanned, {states}, {instant_sql(f'min(anchor) FILTER (WHERE state = {DUE})')} AS oldest,"
        f" {instant_sql(f'max(anchor) FILTER (WHERE state = {DUE})')} AS newest,"
        f" (SELECT jsonb_object_agg(label, c) FROM"
        f" (SELECT label, count(*) AS c FROM j WHERE state = {DUE} GROUP BY 1) t)::text AS by_tier FROM j"
    )


def instant_sql(moment: str) -> str:
    """An instant as RFC 3339 text in UTC."""
    return f"to_char({moment} AT TIME ZONE 'UTC', {_INSTANT})"


def tally(row: asyncpg.Record) -> Tally:
    """The row as a Tally."""
    return Tally(
        scanned=row["scanned"],
        selected=row["selected"],
        held=row["held"],
        minimum=row["minimum"],
        unresolved=row["unresolved"],
        blocked=row["blocked"],
        oldest=row["oldest"],
        newest=row["newest"],
        by_tier=orjson.loads(row["by_tier"]) if row["by_tier"] else {},
    )
