"""What `check` says of a table: what stops a sweep, and what makes it slow or surprising; each with what mends it.

A remedy is SQL to paste: the administrator who runs it is not the role of the dsn, so that one is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from retentiond.stores.base import Finding
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.catalog import Child, quote
from retentiond.stores.postgres.connection import Connection, one
from retentiond.stores.postgres.shape import Shape

_SITUATION = """
SELECT current_user AS role, pg_catalog.pg_is_in_recovery() AS replica,
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only') AS read_only,
       (SELECT c.relrowsecurity AND pg_catalog.row_security_active(c.oid) FROM pg_catalog.pg_class c
        WHERE c.oid = $1::bigint::oid) AS policed,
       (SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = $1::bigint::oid) AS heirs
"""
_INDEXES = """
SELECT i.indexrelid::regclass::text AS name, i.indisvalid AS valid, i.indpred IS NOT NULL AS partial,
       (SELECT a.attname FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0]) AS leading
FROM pg_catalog.pg_index i WHERE i.indrelid = $1::bigint::oid ORDER BY 1
"""
_FIXED = """
SELECT a.attname AS name, a.attnotnull OR t.typnotnull AS not_null, a.attgenerated <> '' OR a.attidentity = 'a' AS made
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What all findings of one target speak of."""

    name: str
    shape: Shape
    role: str

    @property
    def table(self) -> str:
        """The table's name for people."""
        return f"{self.shape.table.schema}.{self.shape.table.name}"

    def finds(self, message: str, remedy: str) -> Finding:
        """An error."""
        return Finding("error", self.name, message, remedy)

    def warns(self, message: str, remedy: str) -> Finding:
        """A warning."""
        return Finding("warning", self.name, message, remedy)

    def notes(self, message: str, remedy: str) -> Finding:
        """Something to know."""
        return Finding("info", self.name, message, remedy)


async def findings(
    connection: Connection, name: str, shape: Shape, action: str, change: Change | None
) -> list[Finding]:
    """All findings of one target's table."""
    found = await one(connection, _SITUATION, shape.table.oid)
    subject = _Subject(name, shape, quote(found["role"]))
    return [
        *_server(subject, found),
        *_grants(subject, action),
        *await _readable_children(connection, subject),
        *_heirs(subject, found["heirs"]),
        *_indexes(subject, await connection.fetch(_INDEXES, shape.table.oid)),
        *_children(subject),
        *_triggers(subject),
        *_change(subject, await connection.fetch(_FIXED, shape.table.oid), change),
        *_stays(subject, change),
        *await _joinable(connection, subject),
    ]


def _server(subject: _Subject, found: asyncpg.Record) -> list[Finding]:
    listed = []
    if found["replica"]:
        listed.append(subject.finds("the dsn leads to a replica, where nothing can be erased", "use the primary's dsn"))
    if found["read_only"] == "on":
        listed.append(
            subject.finds(
                f"transactions of role {subject.role} are read-only by default",
                f"ALTER ROLE {subject.role} SET default_transaction_read_only = off;",
            )
        )
    if found["policed"]:
        listed.append(
            subject.finds(
                f"row level security hides rows of {subject.table} from this role: it is blind",
                f"ALTER ROLE {subject.role} BYPASSRLS;",
            )
        )
    return listed


def _grants(subject: _Subject, action: str) -> list[Finding]:
    table = subject.shape.table
    needed = {"SELECT": table.can_select}
    needed.update({"UPDATE": table.can_update} if action == "anonymise" else {"DELETE": table.can_delete})
    found = [
        subject.finds(
            f"the role of the dsn may not {right} {subject.table}", f"GRANT {right} ON {table.sql} TO {subject.role};"
        )
        for right, granted in needed.items()
        if not granted
    ]
    if action != "anonymise" and not table.can_update:
        remedy = f"GRANT UPDATE ({quote(table.key[0])}) ON {table.sql} TO {subject.role};"
        if table.children:
            why = f"rows that {table.children[0].table} may refer to are locked before they go"
            found.append(subject.finds(f"SELECT … FOR UPDATE on {subject.table} is refused: {why}", remedy))
        else:
            why = "rows that the application has locked can't be skipped, and a batch waits for them"
            found.append(subject.warns(f"SELECT … FOR UPDATE on {subject.table} is refused: {why}", remedy))
    return found


async def _readable_children(connection: Connection, subject: _Subject) -> list[Finding]:
    tables = sorted({child.table for child in subject.shape.table.children})
    rows = await connection.fetch(
        "SELECT t FROM unnest($1::text[]) t WHERE NOT pg_catalog.has_table_privilege(t, 'SELECT')", tables
    )
    return [
        subject.finds(
            f"the role of the dsn may not SELECT {row['t']}, whose rows refer to {subject.table}",
            f"GRANT SELECT ON {row['t']} TO {subject.role};",
        )
        for row in rows
    ]


def _heirs(subject: _Subject, count: int) -> list[Finding]:
    table = subject.shape.table
    if not count or table.partitioned:
        return []
    return [
        subject.warns(
            f"{count} tables inherit from {subject.table} and are swept with it; a key is unique in each alone, so "
            "that a hold on one record holds all of that key, and explain tells of one",
            f"see SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table.sql}'::regclass; "
            "keep keys apart, or partition the table",
        )
    ]


def _indexes(subject: _Subject, indexes: list[asyncpg.Record]) -> list[Finding]:
    shape = subject.shape
    table = shape.table
    found = [
        subject.warns(
            f"index {index['name']} is not valid: it is kept up to date and serves nobody",
            f"REINDEX INDEX CONCURRENTLY {index['name']};",
        )
        for index in indexes
        if not index["valid"]
    ]
    wanted = [(shape.anchor, "a sweep reads the whole table")]
    if shape.account is not None:
        wanted.append((shape.account, "the erasure of an account reads the whole table"))
    for column, cost in wanted:
        if column.name in table.leading:
            continue
        partial = [index["name"] for index in indexes if index["partial"] and index["leading"] == column.name]
        but = f" (only the partial {', '.join(partial)}, which leaves records out)" if partial else ""
        found.append(
            subject.warns(
                f"no index of {subject.table} begins with {column.name!r}{but}: {cost}",
                _create_index(table.sql, quote(column.name), partitioned=table.partitioned),
            )
        )
    return found


def _create_index(table: str, columns: str, *, partitioned: bool) -> str:
    if partitioned:
        return (
            f"CREATE INDEX ON {table} ({columns});  -- writers wait meanwhile: partitioned tables have no CONCURRENTLY"
        )
    return f"CREATE INDEX CONCURRENTLY ON {table} ({columns});"


def _children(subject: _Subject) -> list[Finding]:
    found = []
    for child in subject.shape.table.children:
        columns = ", ".join(quote(column) for column in child.columns)
        if not child.indexed:
            found.append(
                subject.warns(
                    f"foreign key {child.name} of {child.table} has no index: each batch reads all of it",
                    _create_index(child.table, columns, partitioned=child.partitioned),
                )
            )
        if child.changes_children:
            found.append(
                subject.warns(
                    f"deleting here changes rows of {child.table} by foreign key {child.name}; a record that is still "
                    "referred to is kept, but a child inserted while its batch runs is not seen and follows its parent",
                    _no_action(subject, child, columns),
                )
            )
    return found


def _no_action(subject: _Subject, child: Child, columns: str) -> str:
    parents = ", ".join(quote(column) for column in child.parent_columns)
    name = quote(child.name)
    return (
        f"ALTER TABLE {child.table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} FOREIGN KEY ({columns})"
        f" REFERENCES {subject.shape.table.sql} ({parents});"
    )


def _triggers(subject: _Subject) -> list[Finding]:
    table = subject.shape.table
    return [
        subject.notes(
            f"trigger {trigger} fires on deletes or updates and may refuse them",
            f"SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = '{table.sql}'::regclass AND tgname = "
            f"'{trigger}';",
        )
        for trigger in table.triggers
    ]


def _change(subject: _Subject, columns: list[asyncpg.Record], change: Change | None) -> list[Finding]:
    """What would make each anonymising UPDATE fail."""
    traits = {row["name"]: row for row in columns}
    found = []
    for column, rule in change.columns if change else ():
        name = quote(column.name)
        if traits[column.name]["made"]:
            found.append(
                subject.finds(
                    f"column {name} of {subject.table} is generated, and is to be anonymised: it can't be set",
                    f"anonymise the columns that it is made of, and take {column.name} out of anonymise.columns",
                )
            )
        elif traits[column.name]["not_null"] and rule.method == "null":
            found.append(
                subject.finds(
                    f"column {name} of {subject.table} is NOT NULL, and anonymising sets it to null",
                    f"ALTER TABLE {subject.shape.table.sql} ALTER COLUMN {name} DROP NOT NULL;",
                )
            )
    return found


def _stays(subject: _Subject, change: Change | None) -> list[Finding]:
    """What an anonymised record still tells: without `anonymise.columns` only the account reference goes."""
    if change is None:
        return []
    shape = subject.shape
    changed = [column.name for column, _ in change.columns]
    fixed = {shape.anchor.name, *shape.table.key, *(each.name for each in (shape.tier, change.marker) if each)}
    stay = [name for name in shape.table.columns if name not in {*changed, *fixed}]
    if not stay:
        return []
    return [
        subject.notes(
            f"anonymising changes {', '.join(changed)} of {subject.table} and nothing else; these stay as they are: "
            f"{', '.join(stay)}",
            f"name those that tell of a person in targets.{subject.name}.anonymise.columns",
        )
    ]


async def _joinable(connection: Connection, subject: _Subject) -> list[Finding]:
    """Whether the account column can be compared with the directory's id, where both are in this database."""
    account, directory = subject.shape.account, subject.shape.directory
    if account is None or directory is None:
        return []
    join = f"d.{directory.id} = r.{quote(account.name)}"
    try:
        async with connection.transaction():
            await connection.fetch(
                f"EXPLAIN SELECT 1 FROM {subject.shape.table.sql} r JOIN {directory.relation} d ON {join}"
            )
    except asyncpg.UndefinedFunctionError:
        return [
            subject.finds(
                f"column {account.name!r} is of type {account.type}, which can't be compared with accounts.id",
                f"use accounts.query with the id cast: SELECT {directory.id}::{account.type} AS id, …",
            )
        ]
    except asyncpg.PostgresError:
        return []  # the directory itself is at fault, which its own check says
    return []
