"""The relation of a window's records with their states, that counting builds on; erasing builds on the same parts.

Each record is joined with what the account directory says and gets a state by the same steps as `verdict.judge`.
"""

from __future__ import annotations

from retentiond.domain.plan import TargetPlan
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.conditions import blocked, can_be_blocked, erasing, expired, held
from retentiond.stores.postgres.missing import missing_rows
from retentiond.stores.postgres.shape import Context, Params, Shape, anchor_expression, stored_bytes
from retentiond.stores.postgres.terms import UNTOLD, Terms, accounts_sql, number_sql, number_terms
from retentiond.stores.postgres.walks import Walk

KEEP, HELD, MINIMUM, DUE, UNRESOLVED, BLOCKED = range(6)
_NO_ACCOUNTS = (
    "SELECT NULL::text AS id, NULL::text AS tier, NULL::text AS override, NULL::timestamptz AS deleted_at,"
    " false AS in_grace WHERE false"
)


def judged(
    shape: Shape,
    plan: TargetPlan,
    params: Params,
    walk: Walk,
    context: Context,
    change: Change | None,
    *,
    more: str = "",
) -> str:
    """A relation of the walk's records: anchor, cutoff, deleted_at, size in bytes, label (the tier) and state.

    `more` are further columns of `r`.
    """
    terms = number_terms(plan)
    accounts = accounts_sql(shape, plan, params, context)
    account = f"r.{quote(shape.account.name)}" if accounts and shape.account else None
    match = f"a.id = {account}" if account else "false"
    lost, deleted = "", "a.deleted_at"
    if account and shape.account and plan.missing:
        lost = f" LEFT JOIN {missing_rows(plan, shape.account, params)} ON m.id = {account}"
        deleted = "CASE WHEN a.id IS NULL THEN m.since ELSE a.deleted_at END"
    number = _number(shape, plan, terms, params, context, joined=accounts is not None)
    cutoff = cutoff_sql(plan, terms, "y.n", params)
    state = _state(shape, plan, params, context, cutoff, deleted, change)
    # OFFSET 0 keeps the planner from copying the CASE of the number into every place that uses it.
    return (
        f"SELECT {anchor_expression(shape)} AS anchor, {cutoff} AS cutoff, {deleted} AS deleted_at,"
        f" {stored_bytes(shape.table)} AS size,"
        f" {terms.label('y.n', params)} AS label, {state} AS state{more}"
        f" FROM {shape.table.sql} r LEFT JOIN ({accounts or _NO_ACCOUNTS}) a ON {match}{lost}"
        f" CROSS JOIN LATERAL (SELECT {number} AS n OFFSET 0) y WHERE {walk.condition}"
    )


def cutoff_sql(plan: TargetPlan, terms: Terms, number: str, params: Params) -> str:
    """The cutoff of a record by its number, and by whether its account `a` is in its downgrade grace."""
    cutoff = terms.cutoff(number, params)
    if plan.tier_source != "directory" or plan.grace_cutoff is None:
        return cutoff
    grace = params.moment(plan.in_grace().cutoff)
    return f"CASE WHEN a.in_grace AND {number} <> {UNTOLD} THEN {grace} ELSE {cutoff} END"


def own_tier(shape: Shape) -> str:
    """The record's own raw tier."""
    return f"r.{quote(shape.tier.name)}::text" if shape.tier else "NULL::text"


def _number(shape: Shape, plan: TargetPlan, terms: Terms, params: Params, context: Context, *, joined: bool) -> str:
    """The number of a record's term, whether or not its account is known."""
    if plan.tier_source == "none" or (plan.tier_source == "directory" and not joined):
        return str(terms.absent)
    known = plan.tier_source == "directory"
    tier = "a.tier" if known else own_tier(shape)
    number = number_sql(terms, plan, params, tier=tier, override="a.override")
    if shape.account is None or not joined:
        return number
    account = f"r.{quote(shape.account.name)}"
    asked = "true"
    if context.looked is not None:
        # An account that came in since the directory was asked: nothing is known of it, not even that it is unknown.
        asked = f"{account} = ANY({params.add(list(context.looked.asked), 'text[]')}::{shape.account.type}[])"
    nobody, absent = (str(terms.nobody), str(terms.absent)) if known else (number, number)
    return (
        f"CASE WHEN {account} IS NULL THEN {nobody} WHEN a.id IS NOT NULL THEN {number}"
        f" WHEN {asked} THEN {absent} ELSE {UNTOLD} END"
    )


def _state(
    shape: Shape, plan: TargetPlan, params: Params, context: Context, cutoff: str, deleted: str, change: Change | None
) -> str:
    over = expired(shape, plan, cutoff, deleted)
    going = erasing(plan, params, deleted)
    due = over if plan.data_class.minimum else f"({over} OR {going})"
    hold = held(shape, plan, params)
    anchor = anchor_expression(shape)
    untold = f"y.n = {UNTOLD}"
    if not plan.counts_from_deletion:
        horizon = plan.horizon()
        early = f" OR {anchor} < {params.moment(horizon)}" if horizon else ""
        untold = f"({untold} OR {anchor} IS NULL) AND ({anchor} IS NULL{early})"
    steps = [] if change is None else [f"WHEN {change.done(params)} THEN {KEEP}"]
    blocks = ""
    if plan.action != "anonymise" and can_be_blocked(shape):
        blocks = f" WHEN {blocked(shape, context, params)} THEN {BLOCKED}"
    steps.append(f"WHEN {due} THEN CASE WHEN {hold} THEN {HELD}{blocks} ELSE {DUE} END")
    if plan.data_class.minimum:
        steps.append(f"WHEN {going} THEN CASE WHEN {hold} THEN {HELD} ELSE {MINIMUM} END")
    steps.append(f"WHEN {untold} THEN CASE WHEN {hold} THEN {HELD} ELSE {UNRESOLVED} END")
    return f"CASE {' '.join(steps)} ELSE {KEEP} END"
