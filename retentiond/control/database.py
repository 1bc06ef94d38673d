"""The way to the control database: one pool, and transactions that are safe behind a transaction pooler.

What lives here: `Database` (pool, transactions, clock, identity) and `Tx`, the handle that the layers above pass on.
What must hold for every transaction, and why, is in `4-safety.md`, "Permits" and "Postgres, what bites" 7:

- explicitly READ COMMITTED, whatever the server's default is: REPEATABLE READ would miss a hold;
- `synchronous_commit = on`: a permit or a hold that was answered for is not lost by a crash of the server;
- all settings are SET LOCAL, there is no cache of prepared statements, no LISTEN, no session lock, and no statement
  outside a transaction (asyncpg's own reset query included): a pooler gives the session to somebody else in between;
- short timeouts, so that a process stopped inside a transaction does not block everybody else for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from retentiond.control.failures import (
    DRIVER_ERRORS,
    CommitUnknown,
    commit_failure,
    is_expected,
    is_lost,
    reaching,
    unreachable,
)
from retentiond.control.host import is_this_machine
from retentiond.control.identity import Identity, identity_of, reads_system
from retentiond.control.migrations import migrate, require_schema
from retentiond.domain.permit import SAME_DATABASE
from retentiond.errors import ConfigurationError, Problem, Unreachable

__all__ = ["ClockReading", "CommitUnknown", "Database", "Identity", "Tx", "identity_of"]

Tx: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""An asyncpg connection inside a transaction."""

OLDEST_SERVER = 14
"""Postgres 13 is out of support since 2025-11, and the design says 14."""

TRANSACTION_MS = 5_000
"""Milliseconds that a statement may run, wait for a lock, or a transaction may idle: 4-safety.md says 5 s."""

CONNECT_SECONDS = 10.0
"""Seconds to wait for a connection, a free one of the pool included."""

ANSWER_SECONDS = 15.0
"""Seconds that the client waits beyond the server's own timeout: only a dead network takes that long."""

COMMAND_SECONDS = 75.0
"""Seconds that the client waits for any statement: longer than the longest timeout asked of the server (60 s)."""

POOL_SIZE = 10
"""Connections at most; each is in use for milliseconds at a time."""

_TRANSACTION_TIMEOUT_SINCE = 17


if TYPE_CHECKING:  # generic for the type checker only
    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection


class _Connection(_Base):
    """asyncpg's connection without what a transaction pooler can't bear, and with an honest COMMIT."""

    __slots__ = ("_opening",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opening = ""

    def get_reset_query(self) -> str:
        """Nothing: all that we set is local to a transaction, and a reset runs outside of one."""
        return ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Like asyncpg's, but a COMMIT that the server answers with ROLLBACK is an error and not a success."""
        if query.startswith("BEGIN"):
            query += self._opening
        status = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and query.startswith("COMMIT"):
            raise asyncpg.InFailedSQLTransactionError("COMMIT was answered with ROLLBACK: a statement had failed")
        return status

    def open_with(self, settings: str) -> None:
        """Send these settings along with every BEGIN from now on: one round trip for both."""
        self._opening = settings

    def peer(self) -> str | None:
        """The host that this is connected to; None for a unix socket."""
        address = self._addr  # type: ignore[attr-defined]  # asyncpg has no public name for it
        return None if isinstance(address, str) else str(address[0])


@dataclass(frozen=True, slots=True)
class ClockReading:
    """An instant by the control database's clock, and whether that is this machine's clock too."""

    now: datetime
    same_machine: bool


class Database:
    """The control database; made by `connect`, closed by `close`."""

    def __init__(self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], server_version: int) -> None:
        self._dsn = dsn
        self._pool = pool
        self.server_version = server_version
        self.reads_system = False
        """Whether the role may read the server's identifier."""

    @classmethod
    async def connect(cls, dsn: str, *, application_name: str = "retentiond", size: int = POOL_SIZE) -> Database:
        """Connect once, to see that it works.

        Raises Unreachable, or ConfigurationError for a DSN that can't be read and a server older than 14.
        """
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            statement_cache_size=0,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            connection_class=_Connection,
            server_settings={"application_name": application_name},
        )
        await pool
        try:
            with reaching():
                async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
                    version = connection.get_server_version().major
        except asyncpg.exceptions.ClientConfigurationError as error:
            raise _bad_dsn(str(error)) from error
        except BaseException:
            pool.terminate()
            raise
        if version < OLDEST_SERVER:
            pool.terminate()
            raise _too_old(version)
        database = cls(dsn, pool, version)
        try:
            async with database.transaction(read_only=True) as tx:
                database.reads_system = await reads_system(tx)
        except BaseException:
            pool.terminate()
            raise
        return database

    async def another(self, *, application_name: str, size: int) -> Database:
        """The same database by a pool of its own; raises as `connect`."""
        return await Database.connect(self._dsn, application_name=application_name, size=size)

    async def listener(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection for LISTEN alone, the caller's to close; raises Unreachable."""
        with reaching():
            return await asyncpg.connect(self._dsn, timeout=CONNECT_SECONDS, statement_cache_size=0)

    async def close(self) -> None:
        """Close all connections; what is still in use is cut off after a while."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(
        self,
        *,
        timeout_ms: int = TRANSACTION_MS,
        lock_timeout_ms: int | None = None,
        total_ms: int | None = None,
        read_only: bool = False,
    ) -> AsyncIterator[Tx]:
        """Run the body in one transaction; committed at its end, rolled back when it raises.

        `timeout_ms` limits each statement, each wait for a lock (`lock_timeout_ms`, when that is given) and each pause
        between statements; `total_ms` the whole, on servers that can (17 and later). Raises Unreachable when the
        connection is lost or a timeout strikes (nothing was done then), CommitUnknown when it is lost in the COMMIT.
        """
        settings = _settings(timeout_ms, lock_timeout_ms, self._total(total_ms))
        connection, transaction = await self._begin(settings, timeout_ms, read_only)
        done = False
        try:
            try:
                yield connection
            except OSError as error:
                # TimeoutError is one too. Another OSError on a living connection is the body's own affair.
                if _gone(connection) or isinstance(error, TimeoutError):
                    raise unreachable(error) from error
                raise
            except DRIVER_ERRORS as error:
                if is_expected(error):
                    raise unreachable(error) from error
                raise
            await _commit(connection, transaction)
            done = True
        finally:
            await self._give_back(connection, None if done else transaction)

    def _total(self, total_ms: int | None) -> int | None:
        return total_ms if self.server_version >= _TRANSACTION_TIMEOUT_SINCE else None

    async def _begin(
        self, settings: str, timeout_ms: int, read_only: bool
    ) -> tuple[PoolConnectionProxy[asyncpg.Record], asyncpg.transaction.Transaction]:
        """Open a transaction; once more on a new connection when the pooled one turns out to be dead."""
        for attempt in (1, 2):
            with reaching():
                connection = await self._pool.acquire(timeout=CONNECT_SECONDS)
            transaction = connection.transaction(isolation="read_committed", readonly=read_only)
            try:
                async with asyncio.timeout(timeout_ms / 1000 + ANSWER_SECONDS):
                    connection.is_closed()  # raises InterfaceError where the pool has taken a lost one back already
                    connection.open_with(settings)  # type: ignore[attr-defined]  # passed on to _Connection
                    await transaction.start()
            except BaseException as error:
                _cut_off(connection)
                await self._give_back(connection, None)
                if not is_lost(error):
                    raise
                if attempt == 2:
                    raise unreachable(error) from error
                await self._pool.expire_connections()
            else:
                return connection, transaction
        raise AssertionError("unreachable: the loop returns or raises")

    async def _give_back(
        self,
        connection: PoolConnectionProxy[asyncpg.Record],
        transaction: asyncpg.transaction.Transaction | None,
    ) -> None:
        """Return the connection to the pool, rolled back; one that can't be rolled back is cut off instead."""
        if transaction is not None and not _gone(connection):
            try:
                async with asyncio.timeout(TRANSACTION_MS / 1000):
                    await transaction.rollback()
            except BaseException as error:
                _cut_off(connection)
                if not isinstance(error, Exception):
                    await self._pool.release(connection)
                    raise
        with suppress(*DRIVER_ERRORS, OSError):
            await self._pool.release(connection, timeout=TRANSACTION_MS / 1000)

    async def migrate(self) -> None:
        """Make the state or bring it up to date; only `run`, `sweep` and `demo` do. See `migrations.migrate`."""
        await migrate(self)

    async def require_schema(self) -> None:
        """Raise StateMissing where there is no state, or an older one. See `migrations.require_schema`."""
        await require_schema(self)

    async def clock(self) -> ClockReading:
        """The control database's `clock_timestamp()` in UTC; whether another machine's clock stands behind it.

        A server behind a port forwarded on this machine counts as this machine: believing in a second clock that
        is none would be the dangerous mistake.
        """
        async with self.transaction(read_only=True) as tx:
            row = await tx.fetchrow(
                "SELECT pg_catalog.clock_timestamp() AS now, pg_catalog.host(pg_catalog.inet_server_addr()) AS server,"
                " pg_catalog.host(pg_catalog.inet_client_addr()) AS client"
            )
            if row is None:
                raise Unreachable("the control database gave no answer to the question for its clock")
            peer = tx.peer()  # type: ignore[union-attr]  # PoolConnectionProxy passes on what _Connection has
            same = row["server"] is None or row["server"] == row["client"]
            return ClockReading(row["now"], same or is_this_machine(peer) or is_this_machine(row["server"]))

    async def name(self) -> tuple[str, str]:
        """What a target's connection is compared with, to find out whether it leads here: the database, the role."""
        async with self.transaction(read_only=True) as tx:
            row = await tx.fetchrow(f"SELECT ({SAME_DATABASE}) AS database, current_user::text AS role")
            assert row is not None  # a SELECT without FROM has one row
            return row["database"], row["role"]

    async def identity(self) -> Identity:
        """Which server, timeline and database this is now."""
        async with self.transaction() as tx:
            return await identity_of(tx)


async def _commit(
    connection: PoolConnectionProxy[asyncpg.Record], transaction: asyncpg.transaction.Transaction
) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await transaction.commit()
    except Exception as error:
        raise commit_failure(error, lost=_gone(connection)) from error


def _gone(connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
    """Whether the connection was lost; the pool takes a lost one back at once, and then it answers nothing at all."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def _cut_off(connection: PoolConnectionProxy[asyncpg.Record]) -> None:
    """Close without a word to the server; the pool makes a new one when it needs it."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def _settings(timeout_ms: int, lock_timeout_ms: int | None, total_ms: int | None) -> str:
    """SET LOCAL for all of it; never 0, which would mean no limit."""
    limit = max(1, timeout_ms)
    lines = [
        "SET LOCAL synchronous_commit = on",
        f"SET LOCAL statement_timeout = {limit}",
        f"SET LOCAL idle_in_transaction_session_timeout = {limit}",
        f"SET LOCAL lock_timeout = {max(1, lock_timeout_ms or limit)}",
    ]
    if total_ms is not None:
        lines.append(f"SET LOCAL transaction_timeout = {max(1, total_ms)}")
    return "; ".join(lines)


def _bad_dsn(message: str) -> ConfigurationError:
    problem = Problem("control.dsn", f"can't be used: {message}", "write postgresql://user@host:5432/database")
    return ConfigurationError((problem,))


def _too_old(version: int) -> ConfigurationError:
    problem = Problem("control.dsn", f"the server is Postgres {version}", f"use Postgres {OLDEST_SERVER} or later")
    return ConfigurationError((problem,))
