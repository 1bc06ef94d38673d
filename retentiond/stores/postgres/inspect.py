"""What `check` says of a table: what stops a sweep, and what makes it slow or surprising; each with its SQL."""

from __future__ import annotations

from retentiond.stores.base import Finding
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Shape

_POLICED = "SELECT c.relrowsecurity AND row_security_active(c.oid) FROM pg_class c WHERE c.oid = $1::bigint::oid"


async def findings(connection: Connection, name: str, shape: Shape, action: str) -> list[Finding]:
    """All findings of one target's table."""
    return [
        *_grants(name, shape, action),
        *await _row_security(connection, name, shape),
        *_indexes(name, shape),
        *_children(name, shape),
        *_triggers(name, shape),
    ]


def _grants(name: str, shape: Shape, action: str) -> list[Finding]:
    table = shape.table
    needed = {"SELECT": table.can_select}
    needed.update({"UPDATE": table.can_update} if action == "anonymise" else {"DELETE": table.can_delete})
    return [
        Finding(
            "error",
            name,
            f"the role of the dsn may not {right} {table.schema}.{table.name}",
            f"GRANT {right} ON {table.sql} TO CURRENT_USER;",
        )
        for right, granted in needed.items()
        if not granted
    ]


async def _row_security(connection: Connection, name: str, shape: Shape) -> list[Finding]:
    if not await connection.fetchval(_POLICED, shape.table.oid):
        return []
    return [
        Finding(
            "error",
            name,
            f"row level security hides rows of {shape.table.schema}.{shape.table.name} from this role: it is blind",
            "ALTER ROLE … BYPASSRLS; for the role of the dsn",
        )
    ]


def _indexes(name: str, shape: Shape) -> list[Finding]:
    table = shape.table
    found = []
    if shape.anchor.name not in table.leading:
        found.append((shape.anchor.name, "a sweep reads the whole table"))
    if shape.account is not None and shape.account.name not in table.leading:
        found.append((shape.account.name, "the erasure of an account reads the whole table"))
    return [
        Finding(
            "warning",
            name,
            f"no index of {table.schema}.{table.name} begins with {column!r}: {cost}",
            f"CREATE INDEX CONCURRENTLY ON {table.sql} ({quote(column)});",
        )
        for column, cost in found
    ]


def _children(name: str, shape: Shape) -> list[Finding]:
    found = []
    for child in shape.table.children:
        columns = ", ".join(quote(column) for column in child.columns)
        if not child.indexed:
            found.append(
                Finding(
                    "warning",
                    name,
                    f"foreign key {child.name} of {child.table} has no index: each batch reads all of it",
                    f"CREATE INDEX CONCURRENTLY ON {child.table} ({columns});",
                )
            )
        if child.changes_children:
            found.append(
                Finding(
                    "warning",
                    name,
                    f"deleting here changes rows of {child.table} by foreign key {child.name}; a record that is still "
                    "referred to is kept, but a child inserted while its batch runs is not seen and follows its parent",
                    f"ALTER TABLE {child.table} … ON DELETE NO ACTION for {child.name}, or don't enforce here yet",
                )
            )
    return found


def _triggers(name: str, shape: Shape) -> list[Finding]:
    return [
        Finding("info", name, f"trigger {trigger} fires on deletes or updates and may refuse them", "")
        for trigger in shape.table.triggers
    ]
