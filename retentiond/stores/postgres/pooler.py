"""Is a connection pooler between us and the server, and of which mode? Told by what it can't hide.

A server greets a client with the process id that serves it; a pooler greets with a number of its own, so a difference
from `pg_backend_pid()` shows one. In transaction mode a server is given away between transactions: while a first client
is between two of them, a second one gets its server, or the first one goes on with another. Where neither happens
the mode can't be known from here, and that is said. A pooler's own SHOW is answered on its console only.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from retentiond.stores.base import Finding
from retentiond.stores.postgres.connection import Connection, translated

_SECONDS = 10.0
_PID = "SELECT pg_catalog.pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Seen:
    """The number a first client was greeted with, its servers' in two transactions, and a second client's meanwhile."""

    greeting: int
    before: int
    meanwhile: int
    after: int

    @property
    def pooled(self) -> bool:
        """Whether a pooler is there for sure."""
        return self.greeting != self.before or self.by_transaction

    @property
    def by_transaction(self) -> bool:
        """Whether it gives servers away between transactions."""
        return self.before != self.after or self.meanwhile in (self.before, self.after)


async def look(dsn: str, what: str) -> Seen:
    """Ask twice from one connection, and once from a second one in between; raises Unreachable or Blind."""
    with translated(what):
        first = await asyncpg.connect(dsn, timeout=_SECONDS, statement_cache_size=0)
        greeting = first.get_server_pid()
        try:
            second = await asyncpg.connect(dsn, timeout=_SECONDS, statement_cache_size=0)
            try:
                before = await _pid(first)
                async with second.transaction(readonly=True):
                    meanwhile: int = await second.fetchval(_PID)
                    after = await _pid(first)
            finally:
                second.terminate()
        finally:
            first.terminate()
    return Seen(greeting, before, meanwhile, after)


def finding(subject: str, seen: Seen) -> Finding | None:
    """What to say of it; None where the connection leads to the server itself."""
    if not seen.pooled:
        return None
    if seen.by_transaction:
        message = "a pooler in transaction mode is in front of the database; nothing here relies on a session"
    else:
        message = (
            "a pooler is in front of the database, in session mode or with servers to spare: which one can't be known"
        )
    return Finding("info", subject, message, "psql -h POOLER -p PORT pgbouncer -c 'SHOW CONFIG'   # see pool_mode")


async def _pid(connection: Connection) -> int:
    async with connection.transaction(readonly=True):
        found: int = await connection.fetchval(_PID)
        return found
