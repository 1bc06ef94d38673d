"""Connections to the targets' databases: one pool for each address, however many targets are there.

A thousand targets in one database have no more connections than one. Who needs two of them at a time takes both in one
step, so that nobody waits for a second one while others wait for theirs. Some are kept for who only asks whether a
permit's transaction is over: a hold must not wait until a batch has given its connection back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from retentiond.errors import Unreachable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

MOST = 24
"""Connections to one address, unless `workers.connections` says otherwise."""

_URGENT = 4
_CONNECT_SECONDS = 10.0
# Longer than a statement may take that has one of them.
_TURN_SECONDS = 75.0
# Two hundred targets may lie in as many databases of one server, and idle connections count there as well.
_IDLE_SECONDS = 10.0
# A server that is full may have room again in a moment: another process has given some up.
_FULL_PAUSES = (0.2, 0.5, 1.0, 2.0, 2.0, 2.0)


class _Pooled(asyncpg.Connection):
    """asyncpg's connection without what a transaction pooler can't bear."""

    __slots__ = ("_opening",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opening = ""

    def get_reset_query(self) -> str:
        """Nothing: all that we set is local to a transaction, and a reset runs outside of one."""
        return ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Like asyncpg's; what the transaction is opened with goes along with its BEGIN."""
        if query.startswith("BEGIN"):
            query, self._opening = query + self._opening, ""
        return str(await super().execute(query, *args, timeout=timeout))

    def open_with(self, settings: str) -> None:
        """Send these settings, which can't fail, along with the next BEGIN: one round trip for both."""
        self._opening = settings


class Pool:
    """At most so many connections to one address, and a few more for what is urgent."""

    def __init__(self, dsn: str, most: int) -> None:
        self.most = most
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._free = asyncio.Semaphore(most)
        self._urgent = asyncio.Semaphore(_URGENT)
        self._taken = 0

    @asynccontextmanager
    async def taken(self, count: int = 1, *, urgent: bool = False) -> AsyncIterator[Sequence[Connection]]:
        """So many connections for the time of the block; raises Unreachable where none comes free, and asyncpg's."""
        free = self._urgent if urgent else self._free
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_TURN_SECONDS), self._turn if count > 1 else nullcontext():
                    for _ in range(count):
                        await stack.enter_async_context(free)
            except TimeoutError as error:
                raise Unreachable(
                    f"all {self.most} connections that this process may have to that database are in use",
                    remedy="see in pg_stat_activity what the sessions of retentiond wait for; or raise "
                    "workers.connections",
                ) from error
            pool = await self._opened()
            found = []
            for _ in range(count):
                connection = await _connected(pool)
                stack.push_async_callback(pool.release, connection)
                found.append(connection)
            self._taken += count
            try:
                yield found
            finally:
                self._taken -= count

    @property
    def idle(self) -> int:
        """How many connections are open and used by nobody, as far as they can be had at once."""
        return 0 if self._pool is None else min(self._pool.get_idle_size(), self.most - self._taken)

    def close(self) -> None:
        """Give up all connections; whoever asks again gets new ones."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self.most + _URGENT,
                    max_inactive_connection_lifetime=_IDLE_SECONDS,
                    statement_cache_size=0,
                    timeout=_CONNECT_SECONDS,
                    connection_class=_Pooled,
                    server_settings={"application_name": "retentiond"},
                )
            return self._pool


class Pools:
    """The pools of all addresses."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_dsn: dict[str, Pool] = {}

    def of(self, dsn: str) -> Pool:
        """The pool of that address."""
        if dsn not in self._by_dsn:
            self._by_dsn[dsn] = Pool(dsn, self._most)
        return self._by_dsn[dsn]


async def _connected(pool: asyncpg.Pool) -> PoolConnectionProxy[asyncpg.Record]:
    for pause in _FULL_PAUSES:
        try:
            return await pool.acquire(timeout=_CONNECT_SECONDS)
        except asyncpg.TooManyConnectionsError:
            await asyncio.sleep(pause)
    return await pool.acquire(timeout=_CONNECT_SECONDS)
