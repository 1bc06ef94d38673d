"""What native holds are made of: a trigger function whose text has the holds in it, and the triggers that call it.

The holds are code, not rows that code reads: a transaction under an old snapshot (REPEATABLE READ, SERIALIZABLE) would
not see a row that was written since, but it runs a function and its triggers as they are now. So the function reads no
table, needs nobody's rights but those of who calls it, and finds its operators in `pg_catalog` first.

A row trigger has a condition of its own (WHEN), which costs a fraction of a call: it lets by most of what no hold
covers. It is the same condition (`conditions.covers`) of holds made wider: without long lists, which each statement
would parse anew, and without keys whose text hangs on the session's settings. The function, under settings of its own,
says exactly. The triggers come AFTER the row: they see what other triggers have made of it, and a DELETE that another
trigger turns into nothing is refused by none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from retentiond.domain.holds import TargetHold
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import NATIVE_SCHEMA, quote
from retentiond.stores.postgres.conditions import covers
from retentiond.stores.postgres.shape import Params, Shape

SQLSTATE: Final = "RH001"
"""What a statement is refused with: in a class of our own, `RH`."""

KINDS: Final = ("delete", "update", "truncate")
"""A trigger of each on every table that the records lie in."""

_MANY = 100
_EVERYTHING = "(true)"
# Types whose text is the same under all settings of a session.
_SETTLED = frozenset({"int2", "int4", "int8", "numeric", "text", "varchar", "bpchar", "citext", "name", "uuid", "bool"})
# As `connection.settings`: keys must be told alike by everybody.
_SETTINGS = (
    """SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, YMD' SET "IntervalStyle" = 'postgres'"""
    " SET extra_float_digits = 1 SET bytea_output = 'hex'"
)


@dataclass(frozen=True, slots=True)
class Held:
    """A hold as it is in force natively: its matter, and what it covers in the target's own text."""

    matter: str
    covers: TargetHold


@dataclass(frozen=True, slots=True)
class Names:
    """What is ours in the target's database, named for one target of one control database (`space`)."""

    function: str
    trigger: str

    @classmethod
    def of(cls, space: str, target: str) -> Names:
        """The names; others for another control database, which may have holds on the same table."""
        tag = hashlib.sha256(f"{space}:{target}".encode()).hexdigest()[:12]
        return cls(f"keep_{tag}", f"retentiond_hold_{tag}")

    @property
    def function_sql(self) -> str:
        """The function's quoted name."""
        return f"{quote(NATIVE_SCHEMA)}.{quote(self.function)}"

    def trigger_of(self, kind: str) -> str:
        """The name of the trigger of one kind."""
        return f"{self.trigger}_{kind}"


class Literals(Params):
    """Values written into a definition, which takes no placeholders."""

    def add(self, value: object, cast: str) -> str:
        """The value as a constant of its type."""
        if isinstance(value, list):
            return f"{literal(_array([str(each) for each in value]))}::{cast}"
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        return f"{literal(text)}::{cast}"


def _array(texts: Sequence[str]) -> str:
    """An array's text form: one constant, which costs less to read than as many."""
    quoted = (each.replace("\\", "\\\\").replace('"', '\\"') for each in texts)
    return "{" + ",".join(f'"{each}"' for each in quoted) + "}"


def literal(text: str) -> str:
    """A text as an SQL constant, whatever `standard_conforming_strings` is."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"


def guarded(shape: Shape, change: Change | None) -> tuple[str, ...]:
    """The columns an UPDATE of which may be refused: what holds depend on, and what anonymising changes."""
    names = [*shape.table.key, shape.anchor.name, *([shape.account.name] if shape.account else [])]
    return tuple(dict.fromkeys([*names, *changed(change)]))


def changed(change: Change | None) -> tuple[str, ...]:
    """The columns that anonymising changes, its marker among them."""
    if change is None:
        return ()
    return (*(column.name for column, _ in change.columns), *([change.marker.name] if change.marker else []))


def wider(shape: Shape, hold: TargetHold) -> TargetHold:
    """A hold that covers all that this one does, and is cheap to tell for any session."""
    settled = all(shape.table.columns[name].base in _SETTLED for name in shape.table.key)
    if hold.by_item and (not settled or len(hold.records or ()) + len(hold.prefixes) > _MANY):
        hold = replace(hold, records=None, prefixes=())
    if hold.accounts is not None and len(hold.accounts) > _MANY:
        hold = replace(hold, accounts=None)
    return hold


def function_sql(
    names: Names, shape: Shape, change: Change | None, holds: Mapping[str, Held], schemas: Sequence[str]
) -> str:
    """The function's definition; `schemas` has those of the key's and the account's types."""
    path = ", ".join(["pg_catalog", *map(quote, schemas), "pg_temp"])
    body = _body(shape, change, sorted(holds.items()))
    return (
        f"CREATE OR REPLACE FUNCTION {names.function_sql}() RETURNS trigger LANGUAGE plpgsql"
        f" SET search_path = {path} {_SETTINGS} AS {literal(body)}"
    )


def row_triggers_sql(
    names: Names, table: str, shape: Shape, change: Change | None, holds: Mapping[str, Held]
) -> Sequence[str]:
    """The triggers on the rows of a table; a partitioned one hands them on to its partitions."""
    exact = [held.covers for _, held in sorted(holds.items())]
    wide = [wider(shape, hold) for hold in exact]
    conditions = [covers(shape, hold, Literals(), "OLD") for hold in wide]
    held = f"({' OR '.join(dict.fromkeys(conditions))})"
    # Comparing columns costs each statement something: it is worth it where the condition lets much through.
    narrow = wide == exact and _EVERYTHING not in conditions
    lost = held if narrow else f"({held} AND {_differs(guarded(shape, change))})"
    return (
        _trigger(names, "delete", f"AFTER DELETE ON {table} FOR EACH ROW WHEN ({held})"),
        _trigger(names, "update", f"AFTER UPDATE ON {table} FOR EACH ROW WHEN ({lost})"),
    )


def truncate_trigger_sql(names: Names, table: str) -> str:
    """The trigger that keeps a table from being emptied; none is handed on to partitions."""
    return _trigger(names, "truncate", f"BEFORE TRUNCATE ON {table} FOR EACH STATEMENT")


def _trigger(names: Names, kind: str, when: str) -> str:
    return f"CREATE OR REPLACE TRIGGER {quote(names.trigger_of(kind))} {when} EXECUTE FUNCTION {names.function_sql}()"


def _differs(columns: Iterable[str]) -> str:
    """Whether any of the columns is another after an UPDATE, to the byte: not every type knows equality."""
    old, new = (", ".join(f"{row}.{quote(name)}" for name in columns) for row in ("OLD", "NEW"))
    return f"((ROW({old})::record) OPERATOR(pg_catalog.*<>) (ROW({new})::record))"


def _body(shape: Shape, change: Change | None, holds: Sequence[tuple[str, Held]]) -> str:
    deleted, updated = [], []
    columns = changed(change)
    for hold_id, held in holds:
        old, new = (covers(shape, held.covers, Literals(), row) for row in ("OLD", "NEW"))
        lost = f"NOT {new}" if not columns else f"({_differs(columns)} OR NOT {new})"
        found = _found([(hold_id, held)])
        deleted.append(f"IF {old} THEN {found} END IF;")
        updated.append(f"IF {old} AND {lost} THEN {found} END IF;")
    return _BODY.format(
        all=_found(holds), deleted="\n    ".join(deleted), updated="\n    ".join(updated), state=literal(SQLSTATE)
    )


def _found(holds: Sequence[tuple[str, Held]]) -> str:
    matters = ", ".join(literal(held.matter) for _, held in holds)
    ids = ", ".join(literal(hold_id) for hold_id, _ in holds)
    return f"matters := matters || ARRAY[{matters}]::text[]; ids := ids || ARRAY[{ids}]::text[];"


_BODY = """
DECLARE
  matters text[] := ARRAY[]::text[];
  ids text[] := ARRAY[]::text[];
  detail text := 'A record under a legal hold is kept as it is until the hold is released';
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    detail := 'TRUNCATE can''t tell the records that are held from others; DELETE can';
    {all}
  ELSIF TG_OP = 'DELETE' THEN
    {deleted}
  ELSE
    {updated}
  END IF;
  IF pg_catalog.cardinality(ids) > 0 THEN
    RAISE EXCEPTION USING ERRCODE = {state},
      MESSAGE = pg_catalog.format('%s on %I.%I is refused by a legal hold: matter %s',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME, pg_catalog.array_to_string(matters, ', ')),
      DETAIL = pg_catalog.format('%s (hold %s).', detail, pg_catalog.array_to_string(ids, ', ')),
      HINT = pg_catalog.format('Ask who has charge of the matter; "retentiond hold release %s" ends it.', ids[1]),
      SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
  END IF;
  RETURN NULL;
END
"""
