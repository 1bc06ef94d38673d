"""Connections to a target's database, safe behind a transaction pooler.

No prepared statements are kept, every query runs inside an explicit transaction, and every setting is local to it
(4-safety, "Postgres, what bites" 6 and 7). asyncpg's errors become ours in one place.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime

import asyncpg

from retentiond.domain.clock import ClockReading
from retentiond.domain.permit import SAME_DATABASE
from retentiond.errors import Blind, Conflict, Hostile, Late, Refused, Unreachable, quoted
from retentiond.stores.postgres.pools import Connection, Pools

__all__ = ["Connection", "TargetDatabase"]

# What the text of a value depends on: keys of holds, positions of walks and batches must all be told alike.
_TEXT_SETTINGS = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres';"
    " SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'"
)


def settings(*, statement_ms: int, idle_ms: int, lock_ms: int | None = None) -> str:
    """What every transaction begins with; never a limit of 0, which would mean none."""
    lock = "" if lock_ms is None else f"; SET LOCAL lock_timeout = {max(1, lock_ms)}"
    return (
        f"{_TEXT_SETTINGS}; SET LOCAL row_security = off; SET LOCAL statement_timeout = {max(1, statement_ms)};"
        f" SET LOCAL idle_in_transaction_session_timeout = {max(1, idle_ms)}{lock}"
    )


def open_with(connection: Connection, settings: str) -> None:
    """Let the next transaction of the connection begin with these; raises InterfaceError where it was lost."""
    connection.is_closed()  # The pool takes a lost one back at once; of the methods only asyncpg's own tell that.
    connection.open_with(settings)  # type: ignore[union-attr]  # passed on to what the pool makes


# What only a server that has just rolled back says of a COMMIT: data, constraints, rollback, names and rights, views,
# triggers. A pooler that lost the server answers too, with classes of its own (pgcat: 58000).
_ROLLED_BACK = frozenset({"22", "23", "40", "42", "44", "P0"})
_NOBODY_KNOWS = "40003"
_TIMELINE = "pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)"
_LINES = (f"((SELECT system_identifier::text FROM pg_catalog.pg_control_system()) || '/' || {_TIMELINE})", _TIMELINE)
SAME_SERVER = f"({SAME_DATABASE})"
"""The line where nothing better can be read: it ends with every restart."""

# Of a server that may tell it in a moment: the connection, rollback, resources, state (recovery), intervention, system.
_PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what asyncpg raises into Blind (the database refuses) or Unreachable (it does not answer)."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        remedy = "GRANT the privilege to the role of the dsn; row level security needs BYPASSRLS or a policy for it"
        raise Blind(f"{what}: {quoted(error)}", remedy=remedy) from error
    except (
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.InterfaceError,
        asyncpg.InvalidPasswordError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        OSError,
        TimeoutError,
    ) as error:
        raise Unreachable(f"{what}: {quoted(error)}", remedy="check the dsn and the server") from error
    except (
        asyncpg.UndefinedTableError,
        asyncpg.UndefinedColumnError,
        asyncpg.UndefinedFunctionError,
        asyncpg.DatatypeMismatchError,
    ) as error:
        raise Blind(f"{what}: the schema has changed: {quoted(error)}", remedy="run `retentiond check`") from error
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
        remedy = "see pg_locks and pg_stat_activity for what is in the way, then run it again"
        raise Late(f"{what} did not answer in time: {type(error).__name__}", remedy=remedy) from error
    except asyncpg.DataError as error:
        remedy = "see the records' values in the columns that the target names, and `retentiond check`"
        raise Hostile(f"{what}: {quoted(error)}", remedy=remedy) from error
    except asyncpg.PostgresError as error:
        remedy = "see the log of that database, and `retentiond check`"
        raise Refused(f"{what}: {quoted(error)}", remedy=remedy) from error


@contextmanager
def committing(what: str) -> Iterator[None]:
    """As `translated`, for a COMMIT: Refused only where it surely was rolled back, else Unreachable."""
    with translated(what):
        try:
            yield
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
            raise
        except asyncpg.PostgresError as error:
            state = str(error.sqlstate)
            if state[:2] in _ROLLED_BACK and state != _NOBODY_KNOWS:
                raise Refused(f"{what}: {quoted(error)}", remedy="see the table's triggers and constraints") from error
            remedy = "nothing to do: the next sweep asks the server what became of the batch"
            raise Unreachable(f"{what}: the answer to COMMIT is in doubt: {quoted(error)}", remedy=remedy) from error


class TargetDatabase:
    """One target's database; it shares the pool of its address with the others who were given the same `pools`."""

    def __init__(self, dsn: str, *, what: str, pools: Pools | None = None) -> None:
        self._what = what
        self._pool = (pools or Pools()).of(dsn)
        self._line_sql: str | None = None
        self._choosing_line = asyncio.Lock()

    async def close(self) -> None:
        """Give up all connections to that address."""
        self._pool.close()

    @asynccontextmanager
    async def transaction(
        self,
        *,
        statement_ms: int = 60_000,
        lock_ms: int = 1_000,
        idle_ms: int = 15_000,
        read_only: bool = True,
        urgent: bool = False,
    ) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction with local settings; rolled back unless the block ends well."""
        with translated(self._what):
            async with self._pool.taken(urgent=urgent) as (connection,):
                open_with(connection, settings(statement_ms=statement_ms, lock_ms=lock_ms, idle_ms=idle_ms))
                async with connection.transaction(isolation="read_committed", readonly=read_only):
                    yield connection

    @asynccontextmanager
    async def raw(self, count: int = 1) -> AsyncIterator[Sequence[Connection]]:
        """Connections whose transactions the caller controls, all taken in one step."""
        with translated(self._what):
            async with self._pool.taken(count) as connections:
                yield connections

    async def flush_statistics(self) -> None:
        """Let our idle sessions tell at once what they have changed, which they may keep to themselves for 10 s.

        PostgreSQL 15 has a function for it. Before that, and behind a pooler, statistics are as late as they are.
        """
        async with self.raw(self._pool.idle) as connections:
            for connection in connections:
                async with connection.transaction(readonly=True):
                    if await connection.fetchval("SELECT to_regprocedure('pg_catalog.pg_stat_force_next_flush()')"):
                        await connection.execute("SELECT pg_catalog.pg_stat_force_next_flush()")

    async def identity(self) -> str:
        """What tells this database from every other while the server runs."""
        async with self.transaction() as connection:
            return str(await connection.fetchval(SAME_DATABASE))

    async def line_sql(self) -> str:
        """An expression for "the same server, not failed over": a transaction's id means something only there.

        The best that this server lets us read: not every provider has timelines, or shows the system's identifier.
        Whoever asks at the same time is told the same: a batch must be named as it is looked for later.
        """
        async with self._choosing_line:
            if self._line_sql is None:
                async with self.transaction() as connection:
                    self._line_sql = await _best_line(connection, self._what)
            return self._line_sql

    async def clock(self) -> ClockReading:
        """The database's clock; raises Unreachable."""
        async with self.transaction() as connection:
            before = datetime.now(UTC)
            row = await one(
                connection,
                "SELECT clock_timestamp() AS now, host(inet_server_addr()) AS address, pg_is_in_recovery() AS replica",
            )
            after = datetime.now(UTC)
        if row["replica"]:
            raise Unreachable(f"{self._what}: this is a replica", remedy="point the dsn at the primary")
        return ClockReading(row["now"], before + (after - before) / 2, is_here(row["address"]))


@asynccontextmanager
async def same_snapshot(
    connection: Connection, snapshot: str, *, statement_ms: int, idle_ms: int
) -> AsyncIterator[None]:
    """A read-only transaction that sees just what the open one sees that exported the snapshot.

    Raises Conflict where it can't: a pooler may have led the connection to another server.
    """
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    try:
        limits = settings(statement_ms=statement_ms, lock_ms=statement_ms, idle_ms=idle_ms)
        try:
            await connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'; {limits}")
        except asyncpg.PostgresError as error:
            raise Conflict(f"the snapshot of a batch can't be shared: {quoted(error)}") from error
        yield
    finally:
        await roll_back(transaction)


async def _best_line(connection: Connection, what: str) -> str:
    """The first of `_LINES` that this role may read; raises Unreachable on a replica, which will have another line."""
    if await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()"):
        raise Unreachable(f"{what}: this is a replica", remedy="point the dsn at the primary")
    for sql in _LINES:
        try:
            async with connection.transaction():
                await connection.fetchval(f"SELECT {sql}")
        except asyncpg.PostgresError as error:
            if str(error.sqlstate)[:2] in _PASSING:
                raise
        else:
            return sql
    return SAME_SERVER


async def roll_back(transaction: asyncpg.transaction.Transaction) -> None:
    """Undo it; where the connection is gone the server has done so by itself, and the pool discards it."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await transaction.rollback()


async def one(connection: Connection, sql: str, *values: object) -> asyncpg.Record:
    """The single row of a statement that always has one."""
    row = await connection.fetchrow(sql, *values)
    if row is None:
        raise Unreachable("the database answered with no row")
    return row


def is_here(address: str | None) -> bool:
    """Whether a server's own address is this machine's: a socket, the loopback, or an address we can bind to."""
    if address is None or ipaddress.ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
