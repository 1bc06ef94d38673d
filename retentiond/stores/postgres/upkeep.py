"""What a large sweep leaves behind: dead rows until a VACUUM, and indexes that are emptier than they were.

The emptiness of an index is an estimate: what its live entries would take, by the planner's statistics of its columns'
widths, against its pages. Only `pgstattuple`, where it is installed and may be used, measures it, by reading all of it;
so that is done for indexes of moderate size alone. Equal entries, which an index keeps once, make the estimate too low.
"""

from __future__ import annotations

from typing import Any

from retentiond.errors import Blind, Refused
from retentiond.stores.base import Index, Upkeep
from retentiond.stores.postgres.connection import Connection, TargetDatabase, translated

_MEASURED_BYTES = 2**30
_TABLES = """
WITH RECURSIVE part AS (
    SELECT $1::bigint::oid AS oid
    UNION SELECT i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid
)
SELECT p.oid, c.oid::regclass::text AS name, GREATEST(c.reltuples, 0)::float8 AS tuples,
       COALESCE(s.n_dead_tup, 0) AS dead, COALESCE(s.n_live_tup, 0) AS live
FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid AND c.relkind = 'r'
LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = p.oid ORDER BY 2
"""
# An entry takes a line pointer (4), a header (8, with nulls 16) and its values, in steps of 8; a leaf page has 8192
# bytes less 24 and 16, of which the fill factor is used. The pages above the leaves are few. Columns of expressions
# have statistics under the index's own name.
_INDEXES = """
SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_relation_size(c.oid) AS bytes, m.amname AS kind,
       i.indpred IS NOT NULL AS partial,
       COALESCE((SELECT split_part(o, '=', 2)::float8 FROM unnest(c.reloptions) o WHERE o LIKE 'fillfactor=%'), 90)
           AS fill,
       (SELECT sum(COALESCE(s.avg_width * (1 - s.null_frac), NULLIF(a.attlen, -1)))::float8
        FROM pg_catalog.pg_attribute a
        LEFT JOIN LATERAL (
            SELECT p.avg_width, p.null_frac FROM pg_catalog.pg_stats p JOIN pg_catalog.pg_namespace n
                ON n.nspname = p.schemaname
            WHERE n.oid = t.relnamespace AND NOT p.inherited AND (p.tablename, p.attname) = (
                CASE WHEN i.indkey[a.attnum - 1] = 0 THEN c.relname ELSE t.relname END,
                CASE WHEN i.indkey[a.attnum - 1] = 0 THEN a.attname ELSE (SELECT b.attname
                    FROM pg_catalog.pg_attribute b WHERE b.attrelid = t.oid AND b.attnum = i.indkey[a.attnum - 1]) END)
        ) s ON true
        WHERE a.attrelid = c.oid) AS width,
       (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attlen = -1 AND NOT EXISTS (
            SELECT 1 FROM pg_catalog.pg_stats p JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
            WHERE n.oid = t.relnamespace AND p.tablename IN (t.relname, c.relname))) AS unknown
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE i.indrelid = $1::bigint::oid AND i.indisvalid ORDER BY 2
"""
_MEASURE = """
SELECT p.oid::regprocedure::text AS name, n.nspname AS schema
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgstattuple'
WHERE p.proname = 'pgstatindex' AND p.proargtypes[0] = 'pg_catalog.regclass'::pg_catalog.regtype
  AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
"""
_PAGE, _OVERHEAD, _POINTER, _HEADER = 8192, 40, 4, 8


async def read(database: TargetDatabase, oid: int, table: str) -> Upkeep:
    """What is left in the table of that oid (`table` is its quoted name) and its parts; raises Blind, Refused."""
    await database.flush_statistics()
    async with database.transaction() as connection:
        tables = await connection.fetch(_TABLES, oid)
        schema = await connection.fetchval(f"SELECT q.schema FROM ({_MEASURE}) q")
        indexes = [
            await _index(connection, row, live=_live(part), schema=schema)
            for part in tables
            for row in await connection.fetch(_INDEXES, part["oid"])
        ]
    return Upkeep(
        dead=sum(row["dead"] for row in tables),
        live=sum(row["live"] for row in tables),
        indexes=tuple(indexes),
        advice=vacuum_sql(table) + ";",
    )


def _live(part: Any) -> float:
    """Rows by the statistics; where those know of none, alive or dead, they were reset, and the planner's are taken."""
    return float(part["live"] if part["live"] or part["dead"] else part["tuples"])


async def _index(connection: Connection, row: Any, *, live: float, schema: str | None) -> Index:
    size = int(row["bytes"])
    if row["kind"] != "btree":
        return Index(row["name"], size, None)
    if schema is not None and size <= _MEASURED_BYTES:
        quoted = '"' + schema.replace('"', '""') + '"'
        found = await connection.fetchrow(
            f"SELECT avg_leaf_density AS density, leaf_pages, deleted_pages, empty_pages"
            f" FROM {quoted}.pgstatindex($1::bigint::oid::regclass)",
            row["oid"],
        )
        if found is not None:
            return Index(row["name"], size, _measured(found, float(row["fill"])), measured=True)
    return Index(row["name"], size, _estimated(row, size, live))


def _measured(found: Any, fill: float) -> int:
    density = float(found["density"])
    spare = max(1 - density / fill, 0) if density == density else 0.0  # noqa: PLR0124 - NaN: it has no leaves
    return int((found["leaf_pages"] * spare + found["deleted_pages"] + found["empty_pages"]) * _PAGE)


def _estimated(row: Any, size: int, live: float) -> int | None:
    """The bytes that its live entries would not need; None where nothing is known of their width or number."""
    if row["partial"] or row["width"] is None or row["unknown"]:
        return None
    entry = _POINTER + -(-(_HEADER + float(row["width"])) // 8) * 8
    needed = (1 + live * entry / ((_PAGE - _OVERHEAD) * float(row["fill"]) / 100)) * _PAGE
    return max(size - int(needed), 0)


def vacuum_sql(table: str) -> str:
    """The statement that makes the space of dead rows usable again."""
    return f"VACUUM (ANALYZE) {table}"


async def vacuum(database: TargetDatabase, table: str, seconds: float) -> None:
    """Vacuum the table, outside of any transaction; raises Blind where that is not allowed, Refused, Unreachable.

    Postgres does not refuse what the role may not vacuum: it warns and leaves it out.
    """
    warned: list[str] = []

    def listen(_: object, message: Any) -> None:
        if message.severity_en in ("WARNING", "ERROR"):
            warned.append(str(message.message))

    async with database.raw() as (connection,):
        connection.add_log_listener(listen)
        try:
            with translated(f"VACUUM {table}"):
                await _bounded(connection, vacuum_sql(table), seconds)
        finally:
            connection.remove_log_listener(listen)
    if warned:
        raise Blind(
            f"VACUUM {table}: {warned[0]}",
            remedy="GRANT pg_maintain, or MAINTAIN on the table (PostgreSQL 17), or own it",
        )


async def _bounded(connection: Connection, sql: str, seconds: float) -> None:
    """What takes longer, or is cancelled here, asyncpg cancels on the server as well."""
    try:
        await connection.execute(sql, timeout=seconds)
    except TimeoutError as error:
        raise Refused(f"{sql} took longer than {seconds:.0f} s", remedy="run it by hand at a quiet time") from error
