"""Whether a table is still what its SQL was made for: readiness asks, without disturbing a sweep under way."""

from __future__ import annotations

from retentiond.errors import Blind
from retentiond.stores.postgres.catalog import Table, read_table
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.shape import Shape


async def require_unchanged(connection: Connection, target: str, configured: str, shape: Shape) -> None:
    """Raise Blind where the table, its key or a column that enters the SQL is not as it was when it was opened."""
    table = await read_table(connection, configured, shape.table.key)
    changed = list(_changes(shape, table))
    if changed:
        raise Blind(
            f"the schema of target {target} has changed: {', '.join(changed)}",
            remedy="run `retentiond check`; where the change was meant and the configuration still fits, "
            "the next sweep takes it over",
        )


def _changes(shape: Shape, table: Table) -> list[str]:
    names = {column.name for column in (shape.anchor, shape.account, shape.tier) if column} | set(shape.table.key)
    before, found = shape.table, []
    if (table.oid, table.kind) != (before.oid, before.kind):
        found.append(f"{table.schema}.{table.name} is another table than before")
    for name in sorted(names):
        if name not in table.columns:
            found.append(f"it has no column {name!r} any more")
        elif table.columns[name] != before.columns[name]:
            found.append(f"column {name!r} is of type {table.columns[name].type}, and was {before.columns[name].type}")
    return found
