"""The columns of a target that enter its SQL, and the small expressions over them that every statement shares.

Every identifier comes out of the catalogue and is quoted by one function; every value is a placeholder's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from retentiond.stores.postgres.catalog import Column, Table, quote

_EPOCH_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SECONDS_RANGE = (-62_135_596_800, 253_402_300_799)
_DECIMALS = 9
_INTEGERS = ("int2", "int4", "int8")
_NUMBERS = (*_INTEGERS, "numeric", "float4", "float8")
_TIMES: Mapping[str, Callable[[str], date]] = {
    "timestamptz": datetime.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
}
_MOST_ARGUMENTS = 90


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

    def typed(self, text: str, column: Column) -> str:
        """A placeholder for a value of a column, from its text in the ISO style.

        Times go as such: PostgreSQL would turn their text into a time once for every row.
        """
        read = _TIMES.get(column.base)
        try:
            return self.add(read(text), column.base) if read else f"{self.add(text, 'text')}::{column.type}"
        except ValueError:  # before the year 1 or after 9999, which Python can't say
            return f"{self.add(text, 'text')}::{column.type}"


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
    """What a statement knows beside the plan: tier changes of late, and which rows are newer than the last survey.

    `recent` are accounts whose tier changed within the downgrade grace by our own memory; `since` is the first
    transaction, as an xid, that the survey may not have seen (None: its rows carry no such mark); `looked` stands in
    for a directory of another database. `gone` are keys of objects that are there no more (None: nobody has looked).
    """

    recent: tuple[str, ...] = ()
    since: str | None = None
    looked: Looked | None = None
    gone: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a target that enter its SQL; `pair` has the keys of objects that its rows own."""

    table: Table
    anchor: Column
    account: Column | None
    tier: Column | None
    timezone: str
    unit: str | None
    directory: DirectorySource | None
    pair: Column | None = None

    def key_of(self, alias: str) -> str:
        """The record's id as text: a JSON array of texts for a composite key."""
        return self._key([f"{alias}.{quote(name)}" for name in self.table.key])

    @property
    def keys(self) -> tuple[str, ...]:
        """The names under which statements return the key's columns: k1…kn."""
        return tuple(f"k{i}" for i in range(1, len(self.table.key) + 1))

    @property
    def key_text(self) -> str:
        """The record's id as text over k1…kn."""
        return self._key(self.keys)

    def _key(self, names: Sequence[str]) -> str:
        columns = [self.table.columns[name] for name in self.table.key]
        texts = [canonical(column, name) for column, name in zip(columns, names, strict=True)]
        return texts[0] if len(texts) == 1 else f"pg_catalog.jsonb_build_array({', '.join(texts)})::text"


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
        low, high = (_edge(shape, edge) for edge in _SECONDS_RANGE)
        # A numeric may lie beyond every float8, or nearer to 0 than any but 0: the cast of either is an error, which
        # would stop the target. So it is compared as what it is, and rounded before it is cast.
        number = f"pg_catalog.round({raw}, {_DECIMALS})::float8" if base == "numeric" else f"{raw}::float8"
        return (
            f"CASE WHEN {raw} BETWEEN {low} AND {high} THEN"
            f" timestamptz 'epoch' + ({number} * {unit!r}) * interval '1 second' END"
        )
    return f"CASE WHEN isfinite({raw}) THEN {moment} END" if base != "date" else moment


def _edge(shape: Shape, seconds: int) -> str:
    """An end of the times that there can be, as a literal that numbers of the anchor's type are compared with."""
    edge = round(seconds / _EPOCH_UNITS[shape.unit or "s"])
    return f"{edge}" if shape.anchor.base in (*_INTEGERS, "numeric") else f"({edge})::float8"


def raw_bound(shape: Shape, moment: datetime, params: Params) -> str:
    """A bound in the anchor's own type, at or after every raw value whose anchor is before `moment`.

    Zones are up to a day off and local times repeat when clocks go back, so the bound of a naive column is two days
    wide; the exact test follows.
    """
    base = shape.anchor.base
    if base == "timestamptz":
        return params.moment(moment)
    wide = moment + timedelta(days=2)
    if base in ("timestamp", "date"):
        return f"({params.moment(wide)} AT TIME ZONE 'UTC')::{base}"
    scale = 1 / _EPOCH_UNITS[shape.unit or "s"]
    if base in _INTEGERS:
        return params.add(int(moment.timestamp() * scale) + 1, "int8")
    bound = params.add(moment.timestamp() * scale + scale, "float8")
    # As a float4 it could be rounded to below values that it is to be after.
    return f"{bound}::numeric" if base == "numeric" else bound


def sayable(moment: str) -> str:
    """An instant kept within what Python can say, which orders it against every cutoff as it was."""
    within = f"LEAST(GREATEST({moment}, timestamptz '0001-01-02 00:00+00'), timestamptz '9999-12-30 00:00+00')"
    return f"CASE WHEN {moment} IS NOT NULL THEN {within} END"


def beyond_time(shape: Shape) -> str:
    """Whether the anchor is later than any instant can be: infinite, or a number that is no time."""
    name = f"r.{quote(shape.anchor.name)}"
    if shape.anchor.base not in _NUMBERS:
        return f"{name} = 'infinity'"
    return f"{name} > {_edge(shape, _SECONDS_RANGE[1])}"


def before(shape: Shape, cutoff: str) -> str:
    """Whether the anchor of `r` is a finite instant before the cutoff; null or false where it can't be told."""
    if shape.anchor.base == "timestamptz":
        name = f"r.{quote(shape.anchor.name)}"
        return f"({name} < {cutoff} AND isfinite({name}))"
    return f"({anchor_expression(shape)} < {cutoff})"


def same_as_any(column: Column, expression: str, texts: Collection[str], params: Params) -> str:
    """Whether the value is one of these ids, compared as the column's own type does; false for null."""
    return f"COALESCE({expression} = ANY({params.add(sorted(texts), 'text[]')}::{column.type}[]), false)"


def stored_bytes(table: Table) -> str:
    """The bytes of a record's values over `r`, as they are stored: nothing is fetched from TOAST, a null takes none."""
    varying, certain = [], 0
    fixed: dict[int, list[str]] = {}
    for column in table.columns.values():
        name = f"r.{quote(column.name)}"
        if column.width < 0:
            varying.append(f"COALESCE(pg_catalog.pg_column_size({name}), 0)")
        elif column.not_null:
            certain += column.width
        elif column.width:
            fixed.setdefault(column.width, []).append(name)
    # `num_nonnulls` takes at most 100 arguments.
    counted = [
        f"{width} * num_nonnulls({', '.join(names[start : start + _MOST_ARGUMENTS])})"
        for width, names in fixed.items()
        for start in range(0, len(names), _MOST_ARGUMENTS)
    ]
    return f"({' + '.join([str(certain), *varying, *counted])})::bigint"


def canonical(column: Column, expression: str) -> str:
    """The text by which ids of this column are compared: equal where the type says equal."""
    if column.base == "citext":
        return f"pg_catalog.lower({expression}::text)"
    if column.base == "numeric":
        return f"pg_catalog.trim_scale({expression})::text"
    return f"{expression}::text"
