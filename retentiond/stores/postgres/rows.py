"""The statement that counts a window: what its records come to, in all and by tier."""

from __future__ import annotations

import asyncpg
import orjson

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Tally, TierTally
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.queries import BLOCKED, DUE, HELD, MINIMUM, UNRESOLVED, judged
from retentiond.stores.postgres.shape import Context, Params, Shape
from retentiond.stores.postgres.walks import Walk

_STATES = {"held": HELD, "minimum": MINIMUM, "selected": DUE, "unresolved": UNRESOLVED, "blocked": BLOCKED}
_INSTANT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""


def count_sql(
    shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, change: Change | None
) -> str:
    """One row: what the window's records come to by tier and in all."""
    base = judged(shape, plan, params, walk, context, change)
    due = f"FILTER (WHERE state = {DUE})"
    # What is blocked stays, and its promise is broken all the same.
    late = f"FILTER (WHERE state IN ({DUE}, {BLOCKED}))"
    counts = ", ".join(f"count(*) FILTER (WHERE state = {number}) AS {name}" for name, number in _STATES.items())
    sums = ", ".join(f"COALESCE(sum({name}), 0)::bigint AS {name}" for name in ("scanned", *_STATES, "bytes"))
    figures = ", ".join(f"'{name}', {name}" for name in _STATES if name != "selected")
    moments = ", ".join(f"'{name}', {instant_sql(name)}" for name in ("oldest", "newest", "first"))
    return (
        f"WITH j AS MATERIALIZED (SELECT q.*, {past_term(plan, params)} AS past FROM ({base}) q),"
        f" t AS MATERIALIZED (SELECT label, count(*) AS scanned, {counts},"
        f" COALESCE(sum(size) {due}, 0)::bigint AS bytes, min(anchor) {due} AS oldest, max(anchor) {due} AS newest,"
        f" min(anchor) AS first, COALESCE(max(past) {late}, 0) AS overdue_seconds FROM j GROUP BY label)"
        f" SELECT {sums}, {instant_sql('min(oldest)')} AS oldest, {instant_sql('max(newest)')} AS newest,"
        " COALESCE(max(overdue_seconds), 0)::float8 AS overdue_seconds,"
        " (jsonb_object_agg(label, selected) FILTER (WHERE selected > 0))::text AS by_tier,"
        f" jsonb_object_agg(label, jsonb_build_object('due', selected, {figures}, 'bytes', bytes, {moments},"
        " 'overdue_seconds', overdue_seconds))::text AS tiers FROM t"
    )


def past_term(plan: TargetPlan, params: Params) -> str:
    """How many seconds a record is past its term, or its account past the grace of its deletion: the larger."""
    # A term that never ends has the cutoff -infinity, from which nothing can be subtracted.
    past = "CASE WHEN isfinite({0}) AND isfinite({1}) THEN {0} - {1} END"
    parts = [past.format("cutoff", "deleted_at" if plan.counts_from_deletion else "anchor")]
    if plan.knows_account and plan.has_directory and not plan.data_class.minimum:
        parts.append(past.format(f"({params.moment(plan.deletion_cutoff)})", "deleted_at"))
    # A term that is not over gives a negative number, which is never the larger of a due record's.
    return f"EXTRACT(epoch FROM GREATEST({', '.join(parts)}))"


def instant_sql(moment: str) -> str:
    """RFC 3339 in UTC; an instant outside of the years 1 to 9999, which that can't say, becomes the nearest one."""
    within = f"LEAST(GREATEST({moment}, timestamptz '0001-01-01 00:00+00'), timestamptz '9999-12-31 23:59+00')"
    return f"CASE WHEN {moment} IS NOT NULL THEN to_char({within} AT TIME ZONE 'UTC', {_INSTANT}) END"


def tally(row: asyncpg.Record) -> Tally:
    """The row as a Tally."""
    tiers = orjson.loads(row["tiers"]) if row["tiers"] else {}
    return Tally(
        scanned=row["scanned"],
        selected=row["selected"],
        held=row["held"],
        minimum=row["minimum"],
        unresolved=row["unresolved"],
        blocked=row["blocked"],
        bytes=row["bytes"],
        oldest=row["oldest"],
        newest=row["newest"],
        by_tier=orjson.loads(row["by_tier"]) if row["by_tier"] else {},
        tiers={label: TierTally(**found) for label, found in tiers.items()},
        overdue_seconds=row["overdue_seconds"],
    )
