"""The doorbell: pgqueuer tells workers which units are due. It decides nothing: leases do (4-safety, "Many workers").

pgqueuer's own drivers query outside of transactions and keep what a transaction pooler can't bear, so this has a driver
over the control database's transactions. Behind such a pooler LISTEN hears nothing, and the queue is polled instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self, TypeVar

import asyncpg
import orjson
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.core.qm import QueueManager
from pgqueuer.core.tm import TaskManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel
from pgqueuer.ports.driver import Driver, NotifyCallback
from pgqueuer.queries import Queries

from retentiond.beside import beside
from retentiond.control.database import Database, Tx
from retentiond.control.locks import MIGRATIONS, NAMESPACE
from retentiond.control.migrations import MIGRATION_MS
from retentiond.domain.permit import Unit
from retentiond.errors import Unreachable

T = TypeVar("T")
HEARTBEAT = timedelta(seconds=30)
POLL = timedelta(seconds=5)
_ENTRYPOINT = "sweep"
_CONNECTIONS = 4
_AGAIN_SECONDS = 1.0
_NO_ROOM_FOR = timedelta(seconds=2)
_WHOLE, _PART = 1, 0


class Bell:
    """Announces units over one control database."""

    def __init__(self, database: Database) -> None:
        self._queries = _queries(_Driver(database))

    async def announce(self, units: Iterable[Unit]) -> set[Unit]:
        """Tell all workers that these are due, and return which of them were not in the queue before.

        One that waits there, or whose job is not quite over, is announced once. Whole targets come before shards.
        Raises Unreachable.
        """
        ordered = sorted(set(units), key=lambda unit: (unit.target, unit.shard))
        if not ordered:
            return set()
        ids = await self._queries.enqueue(
            [_ENTRYPOINT] * len(ordered),
            [orjson.dumps([unit.target, unit.shard]) for unit in ordered],
            [_PART if unit.shard else _WHOLE for unit in ordered],
            dedupe_key=[f"{unit.target}\n{unit.shard}" for unit in ordered],
            on_conflict="skip",
        )
        return {unit for unit, job in zip(ordered, ids, strict=True) if job is not None}

    async def prune(self) -> None:
        """Forget what the queue has noted of jobs that are over."""
        await self._queries.clear_queue_log([_ENTRYPOINT])


async def install(database: Database) -> None:
    """Make the queue's tables, or bring them up to this version of pgqueuer; safe with any number of processes."""
    async with database.transaction(timeout_ms=MIGRATION_MS) as tx:
        await tx.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({NAMESPACE}, {MIGRATIONS})")
        queries = _queries(_InTransaction(tx))
        if not await queries.schema_is_installed():
            await queries.install(create_schema=False)
            return
        plan = await queries.plan_upgrade()
    for statement in plan.statements:
        # Each on its own: a value added to a type can't be used in the same transaction.
        async with database.transaction(timeout_ms=MIGRATION_MS) as tx:
            await tx.execute(statement)


async def listen(
    control: Database, work: Callable[[Unit], Awaitable[bool]], *, concurrency: int, stop: asyncio.Event
) -> None:
    """Carry out what is announced, at most so many units at a time, until `stop`; then wait for what is under way.

    What `work` has no room for (it returns False) goes back into the queue, for whoever has. It waits for a control
    database that is away. Whoever calls begins again when it raises.
    """
    database = await control.another(application_name="retentiond queue", size=_CONNECTIONS)
    try:
        manager = QueueManager(_queries(_Driver(database, stop)), channel=_settings().channel)

        @manager.entrypoint(_ENTRYPOINT)
        async def sweep(job: Job) -> None:
            target, shard = orjson.loads(job.payload or b"[]")
            if not await work(Unit(target, shard)):
                raise RetryRequested(_NO_ROOM_FOR, "no room")

        async with _ended_by(stop, manager):
            await manager.run(
                dequeue_timeout=POLL,
                batch_size=1,
                max_concurrent_tasks=max(concurrency, 2),
                heartbeat_timeout=HEARTBEAT,
                log_aggregation_interval=timedelta(0),
            )
    finally:
        await database.close()


@asynccontextmanager
async def _ended_by(stop: asyncio.Event, manager: QueueManager) -> AsyncIterator[None]:
    async def end() -> None:
        await stop.wait()
        manager.shutdown.set()

    async with beside(end()):
        yield


def _settings() -> DBSettings:
    return DBSettings(prefix="", db_schema="retentiond", channel=Channel("retentiond_queue"))


def _queries(driver: Driver) -> Queries:
    settings = _settings()
    return Queries(
        driver,
        QueryBuilderEnvironment(settings),
        QueryQueueBuilder(settings),
        QuerySchedulerBuilder(settings),
    )


class _Driver(Driver):
    """pgqueuer's driver over the control database: each query is a transaction of its own."""

    def __init__(self, database: Database, stop: asyncio.Event | None = None) -> None:
        self._database, self._stop = database, stop
        self._shutdown = asyncio.Event()
        self._tasks = TaskManager()
        self._listener: asyncpg.Connection[asyncpg.Record] | None = None

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        async def once(tx: Tx) -> list[dict[str, object]]:
            return [dict(row) for row in await tx.fetch(query, *args)]

        return await self._try(once)

    async def execute(self, query: str, *args: object) -> str:
        async def once(tx: Tx) -> str:
            return str(await tx.execute(query, *args))

        return await self._try(once)

    async def notify(self, channel: str, payload: str) -> None:
        await self.execute("SELECT pg_catalog.pg_notify($1, $2)", channel, payload)

    async def _try(self, once: Callable[[Tx], Awaitable[T]]) -> T:
        """Again and again while the control database is away, where there is a `stop`.

        All that pgqueuer does may be done twice: an announcement has its key, and a job that was taken without our
        hearing of it is taken again when its heartbeat is old.
        """
        while True:
            try:
                async with self._database.transaction() as tx:
                    return await once(tx)
            except Unreachable:
                if self._stop is None or self._stop.is_set():
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Listen on a connection of its own; one that is lost is not missed for longer than the next poll."""
        if self._listener is None or self._listener.is_closed():
            self._listener = await self._database.listener()

        def heard(_connection: object, _pid: object, _channel: object, payload: object) -> None:
            if isinstance(payload, str):
                callback(payload)

        await self._listener.add_listener(channel, heard)

    @property
    def shutdown(self) -> asyncio.Event:
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        return self._tasks

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.terminate()
            self._listener = None


class _InTransaction(_Driver):
    """The driver within one transaction."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def _try(self, once: Callable[[Tx], Awaitable[T]]) -> T:
        return await once(self._tx)
