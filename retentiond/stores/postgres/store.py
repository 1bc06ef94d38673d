"""A Postgres table as a store: windows are judged and erased by SQL, each batch in one transaction of its own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import orjson

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.permit import SAME_DATABASE, Outstanding
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import Blind, RetentiondError, Unreachable
from retentiond.stores.archive import Attempt, Kept, Label, Sink, clear
from retentiond.stores.base import (
    EXACT_BELOW,
    AccountDirectory,
    Fate,
    Finding,
    Matches,
    Tally,
    Upkeep,
    Vitals,
    Way,
    Window,
)
from retentiond.stores.postgres import drift, health, inspect, inspect_health, matching, pooler, rows, upkeep, walks
from retentiond.stores.postgres import oldest as ages
from retentiond.stores.postgres.anonymise import Change
from retentiond.stores.postgres.archivebatch import ArchiveBatch, Volume
from retentiond.stores.postgres.batch import PostgresBatch, settling
from retentiond.stores.postgres.catalog import fingerprint
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.connection import Connection, TargetDatabase, one
from retentiond.stores.postgres.cuts import shards
from retentiond.stores.postgres.directory import Directory, read_facts
from retentiond.stores.postgres.extent import Extent, read_extent
from retentiond.stores.postgres.fate import fate
from retentiond.stores.postgres.lookup import next_expiry, read_record
from retentiond.stores.postgres.missing import due_missing
from retentiond.stores.postgres.opening import Opening, columns_of
from retentiond.stores.postgres.paired import MOST, Pair, with_gone
from retentiond.stores.postgres.partbatch import PartBatch
from retentiond.stores.postgres.partitions import PostgresPartitions
from retentiond.stores.postgres.partitions import findings as partition_findings
from retentiond.stores.postgres.pieces import Piece, find_piece
from retentiond.stores.postgres.pools import Pools
from retentiond.stores.postgres.quick import QuickBatch
from retentiond.stores.postgres.shape import Params, Shape
from retentiond.stores.postgres.targetholds import target_hold

_COUNTED_IN_A_MS = 100
_BEYOND = 50_000


class PostgresStore:
    """One table; see `stores.base.Store` for what each method promises."""

    def __init__(
        self,
        name: str,
        config: PostgresTarget,
        *,
        action: str,
        space: str,
        secret: bytes,
        pools: Pools | None = None,
        sink: Sink | None = None,
    ) -> None:
        """`space` sets the locks of one control database apart from another's; `secret` keys hashes of values.

        Stores that are given the same `pools` share their connections. Where the action is to archive, `sink` keeps
        what goes.
        """
        self.name = name
        self.config = config
        self.action = action
        self.records = config.records()
        self.space = space
        self._secret = secret
        self._sink, self._volume = sink, Volume()
        self._database = TargetDatabase(config.dsn.get_secret_value(), what=f"target {name}", pools=pools)
        self.transaction = self._database.transaction
        self._shape: Shape | None = None
        self._fingerprint = ""
        self.directory: Directory | None = None
        self._reader = health.Reader(self._database, config.table, config.pace.health.ignore_replicas)
        self.change: Change | None = None
        self._pair: Pair | None = None
        self.partitions: PostgresPartitions | None = PostgresPartitions(self, self._database)
        dsn = config.dsn.get_secret_value()
        self.address = f"{config.store}:{hashlib.sha256(dsn.encode()).hexdigest()}"
        self.described = f"table {config.table}"

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return self.config.store

    @property
    def fence(self) -> Literal["transaction"]:
        """The end of the batch's transaction."""
        return "transaction"

    @property
    def anchor(self) -> str:
        """The column by which the terms' walk goes."""
        return self.config.anchor

    @property
    def as_of(self) -> None:
        """A statement sees what there is."""
        return

    @property
    def rests(self) -> bool:
        """A look at an index costs little."""
        return False

    def pair(self, pair: Pair) -> None:
        """From now on rows own objects, which go first; before it is opened."""
        self._pair = pair

    @property
    def paired(self) -> bool:
        """Whether rows own objects."""
        return self._pair is not None

    async def close(self) -> None:
        """Give up all connections."""
        await self._database.close()
        if self._sink is not None:
            await self._sink.close()

    async def clock(self) -> ClockReading:
        """The target's clock."""
        return await self._database.clock()

    async def holds_state(self, database: str, role: str) -> bool:
        """Whether this is the control database itself, and our role the one that its state belongs to."""
        async with self._database.transaction() as connection:
            mine = await connection.fetchrow(f"SELECT current_user::text AS role, ({SAME_DATABASE}) AS database")
        return mine is not None and (mine["database"], mine["role"]) == (database, role)

    async def open(self, accounts: AccountDirectory | None) -> None:
        """Read the catalogues; raises Blind where the table can't be swept as configured, Unreachable."""
        opening = Opening(self.name, self.config, self.action, self._secret, self._database, self._pair)
        found = await opening.read(accounts)
        # Together: other shards sweep by them meanwhile.
        self.directory, self._shape, self.change = found.directory, found.shape, found.change
        self._fingerprint = found.mark

    async def extent(self) -> Extent:
        """Which tables its records lie in, as the catalogues have it now; raises Unreachable."""
        async with self._database.transaction() as connection:
            return await read_extent(connection, self.config.table)

    @property
    def shape(self) -> Shape:
        """The columns that enter the SQL; `open` comes first."""
        if self._shape is None:
            raise Blind(f"target {self.name} has not been opened")
        return self._shape

    @property
    def mark(self) -> str:
        """The mark of the schema that was found when it was last opened."""
        return self._fingerprint

    @property
    def children(self) -> frozenset[tuple[str, ...]]:
        """The tables that refer to this one by a foreign key, none known before it is open; objects that rows own."""
        tables = self._shape.table.children if self._shape else ()
        owned = {self._pair.objects.records} if self._pair is not None else set[tuple[str, ...]]()
        return frozenset({*owned, *((*self.records[:-2], *child.place) for child in tables)})

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        async with self._database.transaction() as connection:
            found = await inspect.findings(connection, self.name, self.shape, self.action, self.change)
            found += await partition_findings(connection, self.config, self.name, self.shape, self.action)
        if self.archives:
            found += await self._require_sink().findings(self.name)
        found += await inspect_health.findings(self._reader, self.name, self.config.pace.health)
        return [*found, *await self._pooler()]

    async def _pooler(self) -> list[Finding]:
        """What is between us and the server; where that can't be told, all else still is."""
        try:
            finding = pooler.finding(self.name, await pooler.look(self.config.dsn.get_secret_value(), self.name))
        except RetentiondError as error:
            finding = Finding("error", self.name, error.message, error.remedy or "")
        return [finding] if finding is not None else []

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold in the canonical text of the target's own columns."""
        async with self._database.transaction() as connection:
            return await target_hold(connection, self.name, self.shape, hold)

    async def native_rules(self) -> Sequence[NativeRule]:
        """None: Postgres erases nothing by itself."""
        return ()

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct (tier, override) pairs of the directory."""
        return await self.directory.groups(class_name) if self.directory else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:
        """The accounts of the table's records that the directory lost, and whose records may be due for that."""
        if self.directory is None:
            return ()
        return await due_missing(self._database, self.shape, plan, self.directory.lacking)

    async def total(self) -> int:
        """How many records there are: counted where few, else by the planner's reckoning from its statistics."""
        async with self._database.transaction() as connection:
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {self.shape.table.sql}")
            guess = int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])
            if guess >= EXACT_BELOW:
                return guess
            counted: int = await connection.fetchval(f"SELECT count(*) FROM {self.shape.table.sql}")
            return counted

    async def counted(self, most: int) -> int:
        """How many records there are, truly, but no more than `most` of them are looked at."""
        statement_ms = 60_000 + most // _COUNTED_IN_A_MS
        async with self._database.transaction(statement_ms=statement_ms) as connection:
            sql = f"SELECT count(*) FROM (SELECT 1 FROM {self.shape.table.sql} LIMIT $1) r"
            found: int = await connection.fetchval(sql, most)
            return found

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:
        """The walks of the plan, in their order."""
        return walks.names(self.shape, plan)

    async def shards(self, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:
        """Stretches of the walk of the terms; see `stores.base.Store`."""
        async with self._database.transaction() as connection:
            return await shards(connection, self.shape, plan, each=each, most=most)

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:
        """The columns that positions of the walk are of, with their types; none where those of another day fit nowhere.

        With the directory elsewhere the accounts come in the order of their texts, and a position can't be gone up to
        in the order of the column.
        """
        if walk == walks.ERASURE and self.shape.directory is None:
            return ()
        found = walks.walk_of(self.shape, plan, Params(), Window(walk, None, 1), ())
        return tuple(f"{column.name} {column.type}" for column in found.columns)

    @property
    def locks_first(self) -> bool:
        """Whether rows are locked before they are judged.

        Foreign keys refer to them; or they are changed by what the directory says, where a row that was refreshed
        meanwhile can't be told by its version afterwards.
        """
        shape = self.shape
        if self.change is not None:
            return shape.account is not None and self.directory is not None
        return bool(shape.table.children)

    @property
    def archives(self) -> bool:
        """Whether what goes is archived before."""
        return self.action == "archive"

    def kept(self) -> AsyncIterator[Kept]:
        """What there is of its batches where they are archived; raises Blind where they are not, Unreachable."""
        return self._require_sink().kept(self.name)

    def _require_sink(self) -> Sink:
        if self._sink is None:
            raise Blind(f"target {self.name} is to be archived, and there is nothing that keeps it")
        return self._sink

    @property
    def marked(self) -> tuple[int, list[str]]:
        """What the mark of the schema is of: the table's oid, and the columns that enter the SQL."""
        return self.shape.table.oid, sorted(columns_of(self.shape, self.change))

    async def read_mark(self, connection: Connection) -> str:
        """The mark of the schema as it is now."""
        return await fingerprint(connection, *self.marked)

    def is_mark(self, mark: str, plan: TargetPlan) -> bool:
        """Whether the table, by the mark of its schema, is still what its SQL, and the plan with its holds, are for."""
        # The store may have been opened anew since: by another shard, which has another plan.
        return plan.schema == mark == self._fingerprint

    @property
    def may_veto(self) -> bool:
        """Whether the table itself can keep a record that the statement was to erase: triggers, rules, a new value."""
        table = self.shape.table
        return self.change is not None or bool(table.triggers) or table.rules

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""
        async with self._database.transaction() as connection:
            piece = await self.piece(connection, plan, window)
            return Tally() if piece is None else replace(await self.judge(connection, piece), after=piece.after)

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many records the hold covers; the planner's estimate where counting takes longer than `seconds`."""
        async with self._database.transaction(statement_ms=max(int(seconds * 1000), 1)) as connection:
            return await matching.count(connection, self.shape, hold)

    async def piece(self, connection: Connection, plan: TargetPlan, window: Window) -> Piece | None:
        """Where the window ends, and what the directory says of its accounts; None where nothing is left."""
        if self.shape.pair is None or self._pair is None:
            return await find_piece(connection, self.shape, self.directory, plan, window)
        window = replace(window, size=min(window.size, MOST))
        piece = await find_piece(connection, self.shape, self.directory, plan, window)
        return None if piece is None else await with_gone(connection, piece, self._pair.objects)

    async def judge(self, connection: Connection, piece: Piece) -> Tally:
        """The states of a piece's records as they are now."""
        params = Params()
        walk = piece.walk(params)
        sql = rows.count_sql(self.shape, piece.plan, params, walk, piece.context, self.change)
        return rows.tally(await one(connection, sql, *params.values))

    @asynccontextmanager
    async def batch(self, plan: TargetPlan, number: int, way: Way) -> AsyncIterator[PostgresBatch]:
        """Open the transaction whose end is the fence of permit `number`; rolled back unless committed."""
        await self.line_sql()  # asked once, and not while a transaction is open
        quick = way is Way.QUICK and not self.may_veto and not self.locks_first and not self.archives
        async with AsyncExitStack() as stack:
            attempt = Attempt(self._require_sink()) if self.archives else None
            if attempt is not None:
                # Before there is a connection, so that it is given back before anything is removed.
                stack.push_async_callback(attempt.clear)
            connection, *aside = await stack.enter_async_context(self._database.raw(2 if quick else 1))
            if aside:
                batch: PostgresBatch = QuickBatch(self, connection, plan, number, *aside)
            elif attempt is not None:
                patient = way is Way.PATIENT
                batch = ArchiveBatch(self, connection, plan, number, attempt, self._volume, patient=patient)
            elif way is Way.WHOLE:
                batch = PartBatch(self, connection, plan, number)
            else:
                batch = PostgresBatch(self, connection, plan, number, patient=way is Way.PATIENT)
            stack.push_async_callback(batch.roll_back)
            await batch.begin()
            yield batch

    def settling(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        """For the time in which the control state is written in a batch's own transaction."""
        return settling(connection, f"target {self.name}")

    async def line_sql(self) -> str:
        """An expression for the line of servers that a transaction's number belongs to."""
        return await self._database.line_sql()

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        """Where the walk goes on after the window, told without judging its records."""
        async with self._database.transaction() as connection:
            piece = await self.piece(connection, plan, window)
        return None if piece is None else piece.after

    async def fence_passed(self, permit: Outstanding) -> bool:
        """Whether the transaction of that permit is over, asked of the primary."""
        async with self._database.transaction(urgent=True) as connection:
            row = await one(
                connection,
                "SELECT pg_try_advisory_xact_lock($1) AS free, pg_is_in_recovery() AS replica",
                self.lock_key(permit.number),
            )
        if row["replica"]:
            raise Unreachable(f"target {self.name} is a replica", remedy="point its dsn at the primary")
        return bool(row["free"])

    def lock_key(self, number: int) -> int:
        """The advisory lock of a permit's number."""
        digest = hashlib.sha256(f"retentiond:{self.space}:{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    async def clear(self, batch: str, issued_at: datetime) -> None:
        """Remove what that batch has archived, and did not delete."""
        if self._sink is not None:
            await clear(self._sink, Label(self.name, batch, issued_at))

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        """What the server's own record says of the batch's transaction."""
        return Fate(await fate(self._database, str(prepared["transaction"])))

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One record by its key (a JSON array for a composite one) and its account's facts; raises NotFound."""
        async with self._database.transaction() as connection:
            record = await read_record(connection, self.name, self.shape, key, plan=plan)
            return record, await self._facts(connection, plan, record.account)

    async def beyond(self, plan: TargetPlan) -> Tally | None:
        """A look at the anchors from the horizon on, by their index; None where there is none."""
        if self.shape.anchor.name not in self.shape.table.leading:
            return None
        return await self.count(plan, Window(walks.BEYOND, None, _BEYOND))

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:
        """When the next record that is not due yet can become due; None: none is in sight."""
        async with self._database.transaction() as connection:
            return await next_expiry(connection, self.shape, plan)

    async def oldest(self, plan: TargetPlan) -> datetime | None:  # noqa: ARG002 - of a table it depends on no rule
        """The oldest finite anchor, by index or of a small table; else None."""
        async with self._database.transaction(statement_ms=ages.STATEMENT_MS) as connection:
            return await ages.oldest(connection, self.shape)

    async def vitals(self, signals: Collection[str]) -> Vitals:
        """How the server is, read outside of any batch."""
        return await self._reader.read(signals)

    async def upkeep(self) -> Upkeep:
        """What erased rows have left behind."""
        return await upkeep.read(self._database, self.shape.table.oid, self.shape.table.sql)

    async def vacuum(self, seconds: float) -> None:
        """Vacuum the table; it is given up after so long."""
        await upkeep.vacuum(self._database, self.shape.table.sql, seconds)

    async def require_unchanged(self) -> None:
        """Raise Blind where the table's schema is not what it was when opened; nothing is said of one never opened."""
        if self._shape is None:
            return
        async with self._database.transaction() as connection:
            await drift.require_unchanged(connection, self.name, self.config.table, self._shape)

    async def _facts(self, connection: Connection, plan: TargetPlan, account: str | None) -> AccountFacts:
        if account is None or self.directory is None:
            return AccountFacts()
        if self.shape.directory is not None:
            facts = await read_facts(connection, self.shape.directory, account, plan.data_class.name, plan.grace_cutoff)
        else:
            facts = await self.directory.facts(account, plan.data_class.name, plan.grace_cutoff)
        return plan.surveyed.applied(account, facts, has_grace=plan.grace_cutoff is not None)
