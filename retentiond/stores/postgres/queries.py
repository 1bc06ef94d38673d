"""SQL derived from the plan: one `judged` relation that counting, deleting and anonymising all build on.

A window is the next `size` records in the order of the walk, whatever their verdict, so each statement's cost is
bounded also where nothing is due. Each is joined with the account directory and gets a state (`STATES`), by the same
rules as `verdict.judge`: terms come in as cutoffs that the domain has resolved; SQL parses no duration.

Two walks reach everything that can be due: `term` goes over the anchors before the plan's horizon, `erasure` over the
records of accounts that are due for erasure and are outside of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from retentiond.domain.accounts import Resolution
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import Group, TargetPlan
from retentiond.stores.postgres.catalog import Column, Table, quote

KEEP, HELD, MINIMUM, DUE, UNRESOLVED, BLOCKED = range(6)
_NOBODY, _NOT_FOUND, _NEW = -2, -3, -1
_EPOCH_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SECONDS_RANGE = (-62_135_596_800, 253_402_300_799)
_INTEGERS = ("int2", "int4", "int8")
_NUMBERS = (*_INTEGERS, "numeric", "float4", "float8")


@dataclass(slots=True)
class Params:
    """The values of a statement's placeholders, in order."""

    values: list[object] = field(default_factory=list)

    def add(self, value: object, cast: str) -> str:
        """A placeholder for the value with its type."""
        self.values.append(value)
        return f"${len(self.values)}::{cast}"

    def moment(self, value: datetime | None) -> str:
        """A placeholder for an instant; None is SQL's null."""
        return self.add(value, "timestamptz")


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """The account directory as a relation of this database: `relation` and the expressions of its columns.

    `changed_at` is absent where the directory does not date its tier changes; `xmin` then says which rows changed
    after it was last surveyed.
    """

    relation: str
    id: str
    tier: str
    deleted_at: str | None = None
    overrides: str | None = None
    changed_at: str | None = None
    has_xmin: bool = True


@dataclass(frozen=True, slots=True)
class Looked:
    """What a directory in another database said of the accounts of a window, a column a field.

    `asked` has the accounts that were looked up; a record of any other is kept.
    """

    asked: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    tiers: tuple[str | None, ...] = ()
    overrides: tuple[str | None, ...] = ()
    deleted_at: tuple[datetime | None, ...] = ()
    in_grace: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a statement knows beside the plan: tier changes of late, the age of rows newer than the last survey.

    `recent` are accounts whose tier changed within the downgrade grace by our own memory; `age` is how many
    transactions ago the directory was surveyed (None: its rows carry no such mark); `looked` stands in for a directory
    of another database.
    """

    recent: tuple[str, ...] = ()
    age: int | None = None
    looked: Looked | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a target that enter its SQL."""

    table: Table
    anchor: Column
    account: Column | None
    tier: Column | None
    timezone: str
    unit: str | None
    directory: DirectorySource | None

    def key_of(self, *names: str) -> str:
        """The record's id as text over the given column expressions: a JSON array of texts for a composite key."""
        columns = [self.table.columns[name] for name in self.table.key]
        texts = [canonical(column, name) for column, name in zip(columns, names, strict=True)]
        return texts[0] if len(texts) == 1 else f"pg_catalog.jsonb_build_array({', '.join(texts)})::text"

    @property
    def key_text(self) -> str:
        """The record's id as text, over the columns k1…kn of a window."""
        return self.key_of(*(f"k{i}" for i in range(1, len(self.table.key) + 1)))


def anchor_expression(shape: Shape, alias: str = "r") -> str:
    """The anchor as timestamptz, null where it can't be told; a date is the end of its day in the target's zone."""
    raw = f"{alias}.{quote(shape.anchor.name)}"
    zone = "'" + shape.timezone.replace("'", "''") + "'"
    base = shape.anchor.base
    if base == "timestamptz":
        moment = raw
    elif base == "timestamp":
        moment = f"({raw} AT TIME ZONE {zone})"
    elif base == "date":
        moment = f"CASE WHEN isfinite({raw}) THEN (({raw} + 1)::timestamp AT TIME ZONE {zone}) END"
    else:
        unit = _EPOCH_UNITS[shape.unit or "s"]
        low, high = (edge / unit for edge in _SECONDS_RANGE)
        return (
            f"CASE WHEN {raw}::float8 BETWEEN {low!r} AND {high!r} THEN"
            f" timestamptz 'epoch' + ({raw}::float8 * {unit!r}) * interval '1 second' END"
        )
    return f"CASE WHEN isfinite({raw}) THEN {moment} END" if base != "date" else moment


def raw_bound(shape: Shape, moment: datetime, params: Params) -> str:
    """A bound in the anchor's own type, at or after every raw value whose anchor is before `moment`.

    Local times repeat when clocks go back, so the bound of a naive column is a day wide; the exact test follows.
    """
    base = shape.anchor.base
    wide = moment + timedelta(days=2) if base in ("timestamp", "date") else moment
    if base == "timestamptz":
        return params.moment(moment)
    if base in ("timestamp", "date"):
        return f"({params.moment(wide)} AT TIME ZONE 'UTC')::{base}"
    scale = 1 / _EPOCH_UNITS[shape.unit or "s"]
    if base in _INTEGERS:
        return params.add(int(moment.timestamp() * scale) + 1, "int8")
    return f"{params.add(moment.timestamp() * scale + scale, 'float8')}::{base}"


def is_epoch(column: Column) -> bool:
    """Whether the anchor is a number that counts from 1970."""
    return column.base in _NUMBERS


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a window lies: its condition over `r`, its order, its size."""

    condition: str
    order: str
    size: int
    leading: str = "raw"

    def position(self, keys: int) -> tuple[str, ...]:
        """The window's columns that say where the walk goes on: what it is ordered by, then the key."""
        return (*((self.leading,) if self.leading else ()), *(f"k{i}" for i in range(1, keys + 1)))


def judged(
    shape: Shape, plan: TargetPlan, params: Params, walk: Walk, context: Context, done: str, also: str = ""
) -> str:
    """The relation of a window's records, each with its keys, anchor, account, state, label and cutoff.

    `done` is the condition over `r` by which a record has nothing left to be done with it; `also` are more columns over
    `r`, each with a leading comma.
    """
    seen = _seen(shape, walk, params, done, also, deletes=plan.action == "delete")
    known = _with_account(shape, plan, params, context)
    number = _group_number(shape, plan, params, context)
    cutoff, fault, label = _resolved(plan, params)
    state = _state(shape, plan, params)
    # OFFSET 0 keeps the planner from copying each CASE into every place that uses it.
    return (
        f"SELECT z.*, {state} AS state FROM (SELECT y.*, {cutoff} AS cutoff, {fault} AS fault, {label} AS label"
        f" FROM (SELECT x.*, {number} AS n FROM (SELECT s.*, {known} OFFSET 0) x OFFSET 0) y OFFSET 0) z"
    ).replace("@seen", f"({seen})")


def _seen(shape: Shape, walk: Walk, params: Params, done: str, also: str, *, deletes: bool) -> str:
    keys = ", ".join(f"r.{quote(name)} AS k{i}" for i, name in enumerate(shape.table.key, 1))
    account = f"r.{quote(shape.account.name)}" if shape.account else "NULL::text"
    tier = f"r.{quote(shape.tier.name)}::text" if shape.tier else "NULL::text"
    return (
        f"SELECT r.ctid AS tid, r.tableoid AS part, {keys}, r.{quote(shape.anchor.name)} AS raw,"
        f" {anchor_expression(shape)} AS anchor, {account} AS account, {tier} AS own_tier,"
        f" {_blocked(shape) if deletes else 'false'} AS blocked, {done} AS done{also}"
        f" FROM {shape.table.sql} r WHERE {walk.condition} ORDER BY {walk.order} LIMIT {params.add(walk.size, 'int8')}"
    )


def _blocked(shape: Shape) -> str:
    """Whether a child still refers to the record: a cascade would ignore the child's own term and holds."""
    tests = [
        f"EXISTS (SELECT 1 FROM {child.table} c WHERE "
        + " AND ".join(
            f"c.{quote(mine)} = r.{quote(theirs)}"
            for mine, theirs in zip(child.columns, child.parent_columns, strict=True)
        )
        + ")"
        for child in shape.table.children
    ]
    return f"({' OR '.join(tests)})" if tests else "false"


def _with_account(shape: Shape, plan: TargetPlan, params: Params, context: Context) -> str:
    source = shape.directory
    if context.looked is not None and shape.account is not None:
        return _with_looked(shape.account, plan, params, context.looked)
    if source is None or shape.account is None:
        return (
            "false AS found, s.own_tier AS tier, NULL::text AS override, NULL::timestamptz AS deleted_at,"
            " false AS in_grace FROM @seen s"
        )
    override = override_expression(source, plan.data_class.name, params)
    deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
    relation = (
        f"SELECT d.{source.id} AS id, d.{source.tier}::text AS tier, {override} AS override, {deleted} AS deleted_at,"
        f" {_grace(source, plan, params, context)} AS in_grace FROM {source.relation} d"
    )
    tier = "s.own_tier" if plan.tier_source == "record" else "a.tier"
    return (
        f"(a.id IS NOT NULL) AS found, {tier} AS tier, a.override, a.deleted_at,"
        f" COALESCE(a.in_grace, false) AS in_grace FROM @seen s LEFT JOIN ({relation}) a ON a.id = s.account"
    )


def _with_looked(account: Column, plan: TargetPlan, params: Params, looked: Looked) -> str:
    arrays = ", ".join(
        [
            f"{params.add(list(looked.ids), 'text[]')}::{account.type}[]",
            params.add(list(looked.tiers), "text[]"),
            params.add(list(looked.overrides), "text[]"),
            params.add(list(looked.deleted_at), "timestamptz[]"),
            params.add(list(looked.in_grace), "bool[]"),
        ]
    )
    tier = "s.own_tier" if plan.tier_source == "record" else "a.tier"
    return (
        f"(a.id IS NOT NULL) AS found, {tier} AS tier, a.override, a.deleted_at,"
        f" COALESCE(a.in_grace, false) AS in_grace FROM @seen s"
        f" LEFT JOIN unnest({arrays}) a(id, tier, override, deleted_at, in_grace) ON a.id = s.account"
    )


def override_expression(source: DirectorySource, class_name: str, params: Params) -> str:
    """The override text of a class; what is no JSON object is text that no duration matches."""
    if source.overrides is None:
        return "NULL::text"
    column = f"d.{source.overrides}::jsonb"
    name = params.add(class_name, "text")
    return (
        f"CASE pg_catalog.jsonb_typeof({column}) WHEN 'object' THEN {column} ->> {name}"
        f" WHEN 'null' THEN NULL ELSE CASE WHEN {column} IS NOT NULL THEN '(no JSON object)' END END"
    )


def _grace(source: DirectorySource, plan: TargetPlan, params: Params, context: Context) -> str:
    edge = plan.grace_cutoff
    if edge is None or plan.tier_source != "directory":
        return "false"
    if source.changed_at:
        return f"COALESCE(d.{source.changed_at}::timestamptz > {params.moment(edge)}, false)"
    lately = f"d.{source.id}::text = ANY({params.add(list(context.recent), 'text[]')})"
    if context.age is None or not source.has_xmin:
        return lately
    return f"({lately} OR pg_catalog.age(d.xmin) <= {params.add(context.age, 'int8')})"


def _groups(plan: TargetPlan) -> dict[Group, Resolution]:
    found = dict(plan.resolutions())
    if plan.tier_source == "constant":
        found = {Group(None, group.override): resolution for group, resolution in found.items()}
        found[Group(None)] = plan.resolve(Group(None))
    return found


def _group_number(shape: Shape, plan: TargetPlan, params: Params, context: Context) -> str:
    tier = "NULL::text" if plan.tier_source == "constant" else "x.tier"
    match = " ".join(
        f"WHEN {tier} IS NOT DISTINCT FROM {params.add(group.tier, 'text')}"
        f" AND x.override IS NOT DISTINCT FROM {params.add(group.override, 'text')} THEN {n}"
        for n, group in enumerate(_groups(plan))
    )
    number = f"CASE {match} ELSE {_NEW} END" if match else str(_NEW)
    if plan.tier_source == "constant":
        return number
    if plan.tier_source == "record":
        # A raw tier that nothing maps is an unknown tier; an override that nobody resolved is a fault.
        return number.replace(f"ELSE {_NEW}", f"ELSE CASE WHEN x.override IS NULL THEN {_NOT_FOUND} ELSE {_NEW} END")
    if shape.account is None or not plan.has_directory:
        return str(_NOT_FOUND)
    if context.looked is not None:
        asked = params.add(list(context.looked.asked), "text[]")
        return (
            f"CASE WHEN x.account IS NULL THEN {_NOBODY} WHEN x.found THEN {number}"
            f" WHEN x.account::text = ANY({asked}) THEN {_NOT_FOUND} ELSE {_NEW} END"
        )
    return f"CASE WHEN x.account IS NULL THEN {_NOBODY} WHEN NOT x.found THEN {_NOT_FOUND} ELSE {number} END"


def _resolved(plan: TargetPlan, params: Params) -> tuple[str, str, str]:
    """The expressions of cutoff, fault and tier label by the group's number `y.n`; an unseen pair is a fault."""
    table = [*enumerate(_groups(plan).values()), (_NOBODY, plan.of_nobody()), (_NOT_FOUND, plan.of_unknown())]
    faults = ", ".join(str(n) for n in [_NEW, *(n for n, found in table if found.fault is not None)])
    fault = f"(y.n IN ({faults}))"
    cutoffs = " ".join(f"WHEN {n} THEN {params.moment(found.cutoff)}" for n, found in table)
    labels = " ".join(f"WHEN {n} THEN {params.add(found.tier, 'text')}" for n, found in table)
    grace = params.moment(plan.in_grace().cutoff)
    cutoff = f"CASE WHEN y.in_grace AND y.n >= 0 AND NOT {fault} THEN {grace} ELSE CASE y.n {cutoffs} END END"
    return cutoff, fault, f"CASE y.n {labels} ELSE 'unknown' END"


def expired_condition(plan: TargetPlan) -> str:
    """Whether the term is over, over the columns of `z`."""
    base = "z.deleted_at" if plan.counts_from_deletion else "z.anchor"
    finite = "AND isfinite(z.deleted_at)" if plan.counts_from_deletion else ""
    return f"COALESCE(NOT z.fault AND {base} < z.cutoff {finite}, false)"


def erasing_condition(plan: TargetPlan, params: Params) -> str:
    """Whether the account's erasure is due, over the columns of `z`."""
    if not (plan.knows_account and plan.has_directory):
        return "false"
    edge = params.moment(plan.deletion_cutoff)
    return f"COALESCE(z.account IS NOT NULL AND isfinite(z.deleted_at) AND z.deleted_at < {edge}, false)"


def _state(shape: Shape, plan: TargetPlan, params: Params) -> str:
    expired = expired_condition(plan)
    erasing = erasing_condition(plan, params)
    due = expired if plan.data_class.minimum else f"({expired} OR {erasing})"
    held = held_condition(shape, plan, params, account="z.account", key=shape.key_text, anchor="z.anchor")
    horizon = plan.horizon()
    open_ended = f"(z.anchor IS NULL OR z.anchor < {params.moment(horizon)})" if horizon else "(z.anchor IS NULL)"
    unresolved = f"(z.fault OR z.anchor IS NULL) AND {open_ended}" if not plan.counts_from_deletion else "z.fault"
    rows = [
        f"WHEN z.done THEN {KEEP}",
        f"WHEN {due} THEN CASE WHEN {held} THEN {HELD} WHEN z.blocked THEN {BLOCKED} ELSE {DUE} END",
    ]
    if plan.data_class.minimum:
        rows.append(f"WHEN {erasing} THEN CASE WHEN {held} THEN {HELD} ELSE {MINIMUM} END")
    rows.append(f"WHEN {unresolved} THEN CASE WHEN {held} THEN {HELD} ELSE {UNRESOLVED} END")
    return f"CASE {' '.join(rows)} ELSE {KEEP} END"


def held_condition(shape: Shape, plan: TargetPlan, params: Params, *, account: str, key: str, anchor: str) -> str:
    """Whether any hold of the plan covers the record."""
    tests = [hold_condition(shape, hold, params, account=account, key=key, anchor=anchor) for hold in plan.holds]
    return f"({' OR '.join(tests)})" if tests else "false"


def hold_condition(shape: Shape, hold: TargetHold, params: Params, *, account: str, key: str, anchor: str) -> str:
    """Whether this hold covers the record."""
    parts = []
    if hold.accounts is not None and shape.account is not None:
        ids = params.add(sorted(hold.accounts), "text[]")
        parts.append(f"COALESCE({canonical(shape.account, account)} = ANY({ids}), false)")
    if hold.by_item:
        named = f"{key} = ANY({params.add(sorted(hold.records or ()), 'text[]')})"
        starts = [f"pg_catalog.starts_with({key}, {params.add(prefix, 'text')})" for prefix in hold.prefixes]
        parts.append(f"({' OR '.join([named, *starts])})")
    if hold.since is not None:
        parts.append(f"COALESCE({anchor} >= {params.moment(hold.since)}, true)")
    if hold.until is not None:
        parts.append(f"COALESCE({anchor} < {params.moment(hold.until)}, true)")
    return f"({' AND '.join(parts) or 'true'})"


def canonical(column: Column, expression: str) -> str:
    """The text by which ids of this column are compared: equal where the type says equal."""
    if column.base == "citext":
        return f"pg_catalog.lower({expression}::text)"
    if column.base == "numeric":
        return f"pg_catalog.trim_scale({expression})::text"
    return f"{expression}::text"
