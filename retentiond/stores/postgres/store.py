"""A Postgres table as a store: windows judged and erased by SQL, each batch in one transaction that is its own fence.

The transaction is opened, and takes the advisory lock of the permit's number, before the permit is asked for; whoever
activates a hold asks for the same lock and gets it only when the transaction is over (4-safety).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import asyncpg
import orjson

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.clock import ClockReading
from retentiond.domain.duration import expires_at
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.permit import Permit
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import RecordFacts
from retentiond.errors import Blind, NotFound, Unreachable
from retentiond.stores.base import Finding, Matches, Tally, Window
from retentiond.stores.postgres import inspect, matching, rows, walks
from retentiond.stores.postgres.anonymise import Change, Rule, make_change
from retentiond.stores.postgres.catalog import quote, read_table
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.connection import Connection, TargetDatabase, one, translated
from retentiond.stores.postgres.directory import IDENTITY, Directory, read_facts
from retentiond.stores.postgres.queries import Context, Looked, Params, Shape, Walk, anchor_expression, canonical
from retentiond.stores.postgres.targetholds import target_hold

_ANCHORS = ("timestamptz", "timestamp", "date", "int2", "int4", "int8", "numeric", "float4", "float8")
_NUMBERS = _ANCHORS[3:]
EXACT_BELOW = 200_000
"""A total at or above this is the planner's estimate."""
_CHUNK = 50
# Each is a fraction of the permit's 30 s of life; they keep a hold's wait short, and are no part of the fence.
_STATEMENT_MS, _IDLE_MS, _TRANSACTION_MS = 15_000, 8_000, 20_000
_LOCK_MS, _PATIENT_LOCK_MS = 150, 3_000
_BEGIN = """
SELECT pg_advisory_xact_lock($1), set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
       set_config('row_security', 'off', true), set_config('statement_timeout', $2, true),
       set_config('lock_timeout', $3, true), set_config('idle_in_transaction_session_timeout', $4, true),
       pg_current_xact_id()::text AS xid, current_setting('server_version_num')::int AS version
"""


class PostgresStore:
    """One table; see `stores.base.Store` for what each method promises."""

    def __init__(self, name: str, config: PostgresTarget, *, action: str, space: str, secret: bytes) -> None:
        """`space` sets the locks of one control database apart from another's; `secret` keys hashes of values."""
        self.name = name
        self.config = config
        self.action = action
        self._space = space
        self._secret = secret
        self._database = TargetDatabase(config.dsn.get_secret_value(), what=f"target {name}")
        self._directory: Directory | None = None
        self._shape: Shape | None = None
        self._change: Change | None = None
        self._recent: frozenset[str] = frozenset()
        self._surveyed: int | None = None

    async def close(self) -> None:
        """Give up all connections."""
        await self._database.close()

    async def clock(self) -> ClockReading:
        """The target's clock."""
        return await self._database.clock()

    async def open(self, directory: Directory | None) -> Shape:
        """Read the catalogues; raises Blind where the table can't be swept as configured, Unreachable."""
        self._directory = directory
        async with self._database.transaction() as connection:
            table = await read_table(connection, self.config.table, tuple(self.config.key or ()) or None)
        config = self.config
        anchor = table.column(config.anchor, f"targets.{self.name}.anchor")
        if anchor.base not in _ANCHORS:
            raise Blind(
                f"the anchor {config.anchor!r} of target {self.name} is of type {anchor.type}",
                remedy="use a timestamptz, timestamp, date, integer or numeric column",
            )
        if anchor.base in _NUMBERS and config.unit is None:
            raise Blind(
                f"the anchor {config.anchor!r} of target {self.name} is a number, and its unit is not given",
                remedy=f"set targets.{self.name}.unit to s, ms or us",
            )
        local = directory is not None and await self._same_database(directory)
        account = table.column(config.account, f"targets.{self.name}.account") if config.account else None
        self._shape = Shape(
            table=table,
            anchor=anchor,
            account=account,
            tier=table.column(config.tier_column, f"targets.{self.name}.tier_column") if config.tier_column else None,
            timezone=config.timezone,
            unit=config.unit,
            directory=directory.source if directory is not None and local else None,
        )
        if self.action == "anonymise":
            rules = {name: Rule(rule.method, rule.value) for name, rule in config.rules().items()}
            marker = config.anonymise.marker if config.anonymise else None
            self._change = make_change(table, rules, marker=marker, account=config.account, secret=self._secret)
        return self._shape

    @property
    def shape(self) -> Shape:
        """The columns that enter the SQL; `open` comes first."""
        if self._shape is None:
            raise Blind(f"target {self.name} has not been opened")
        return self._shape

    def surveyed(self, recent: frozenset[str], transaction: int | None) -> None:
        """Take over what the last survey of the directory found: accounts in their grace, and its transaction."""
        self._recent, self._surveyed = recent, transaction

    async def check(self) -> Sequence[Finding]:
        """What stands in the way of sweeping the target, and what is unwise about it."""
        async with self._database.transaction() as connection:
            return await inspect.findings(connection, self.name, self.shape, self.action, self._change)

    async def hold(self, hold: Hold) -> TargetHold:
        """The hold in the canonical text of the target's own columns."""
        async with self._database.transaction() as connection:
            return await target_hold(connection, self.name, self.shape, hold)

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct (tier, override) pairs of the directory."""
        return await self._directory.groups(class_name) if self._directory else ()

    async def total(self) -> int:
        """How many records there are: counted where few, else by the planner's reckoning from its statistics."""
        async with self._database.transaction() as connection:
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {self.shape.table.sql}")
            guess = int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])
            if guess >= EXACT_BELOW:
                return guess
            counted: int = await connection.fetchval(f"SELECT count(*) FROM {self.shape.table.sql}")
            return counted

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:
        """The walks of the plan, in their order."""
        return walks.names(self.shape, plan)

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        """Judge a window without touching it."""
        async with self._database.transaction() as connection:
            accounts, more = await self._accounts(connection, plan, window)
            if accounts == []:
                return Tally()
            row, walk = await self._run(connection, plan, window, accounts, salt=None, skip_locked=False)
        return _continued(rows.tally(row, walk, _tiers(row)), more)

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        """How many records the hold covers; the planner's estimate where counting takes longer than `seconds`."""
        async with self._database.transaction(statement_ms=max(int(seconds * 1000), 1)) as connection:
            return await matching.count(connection, self.shape, hold)

    @asynccontextmanager
    async def batch(self, plan: TargetPlan, number: int, *, wait_for_locks: bool) -> AsyncIterator[PostgresBatch]:
        """Open the transaction whose end is the fence of permit `number`; rolled back unless committed."""
        async with self._database.raw() as connection:
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            batch = PostgresBatch(self, connection, transaction, plan, number, patient=wait_for_locks)
            try:
                await batch.begin()
                yield batch
            finally:
                if not batch.over:
                    await _roll_back(transaction)

    async def fence_passed(self, number: int) -> bool:
        """Whether the transaction of that permit is over, asked of the primary."""
        async with self._database.transaction() as connection:
            row = await one(
                connection,
                "SELECT pg_try_advisory_xact_lock($1) AS free, pg_is_in_recovery() AS replica",
                self.lock_key(number),
            )
        if row["replica"]:
            raise Unreachable(f"target {self.name} is a replica", remedy="point its dsn at the primary")
        return bool(row["free"])

    def lock_key(self, number: int) -> int:
        """The advisory lock of a permit's number."""
        digest = hashlib.sha256(f"retentiond:{self._space}:{number}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    async def fate(self, transaction: str) -> str:
        """What became of a transaction: `committed`, `aborted`, `in progress`, or `unknown` where it is too old."""
        async with self._database.transaction() as connection:
            try:
                found = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", transaction)
            except asyncpg.InvalidParameterValueError:
                # "transaction ID is in the future": this is not the database that the batch ran in.
                return "unknown"
        return found or "unknown"

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        """One record by its key (a JSON array for a composite one) and its account's facts; raises NotFound."""
        shape = self.shape
        parts = _key_parts(key, len(shape.table.key))
        params = Params()
        match = " AND ".join(
            f"r.{quote(name)}::text = ({params.add(part, 'text')}::{shape.table.columns[name].type})::text"
            for name, part in zip(shape.table.key, parts, strict=True)
        )
        account = canonical(shape.account, f"r.{quote(shape.account.name)}") if shape.account else "NULL::text"
        tier = f"r.{quote(shape.tier.name)}::text" if shape.tier else "NULL::text"
        keys = shape.key_of(*(f"r.{quote(name)}" for name in shape.table.key))
        sql = (
            f"SELECT {keys} AS key, {anchor_expression(shape)} AS anchor, {account} AS account, {tier} AS tier"
            f" FROM {shape.table.sql} r WHERE {match}"
        )
        async with self._database.transaction() as connection:
            try:
                row = await connection.fetchrow(sql, *params.values)
            except asyncpg.DataError:
                row = None
            if row is None:
                raise NotFound(
                    f"target {self.name} has no record {key}",
                    remedy=f"give the {', '.join(shape.table.key)}; a composite key as a JSON array",
                )
            facts = await self._facts(connection, plan, row["account"])
        return RecordFacts(row["key"], row["anchor"], row["account"], row["tier"] or plan.tier), facts

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:
        """When the record with the oldest anchor not before the horizon reaches the horizon's term."""
        horizon = plan.horizon()
        if horizon is None:
            return None
        params = Params()
        shape = self.shape
        if shape.anchor.name not in shape.table.leading:
            return plan.now
        walk = (
            f"r.{quote(shape.anchor.name)} >= {params.moment(horizon)}"
            if shape.anchor.base == "timestamptz"
            else "true"
        )
        sql = (
            f"SELECT {anchor_expression(shape)} AS anchor FROM {shape.table.sql} r WHERE {walk}"
            f" ORDER BY r.{quote(shape.anchor.name)} LIMIT 1"
        )
        async with self._database.transaction() as connection:
            anchor = await connection.fetchval(sql, *params.values)
        terms = [found.term for found in (*plan.resolutions().values(), plan.of_nobody()) if found.cutoff == horizon]
        return expires_at(anchor, terms[0]) if anchor and terms and terms[0] else None

    async def _facts(self, connection: Connection, plan: TargetPlan, account: str | None) -> AccountFacts:
        if account is None or self._directory is None:
            return AccountFacts()
        if self.shape.directory is not None:
            facts = await read_facts(connection, self.shape.directory, account, plan.data_class.name, plan.grace_cutoff)
        else:
            facts = await self._directory.facts(account, plan.data_class.name, plan.grace_cutoff)
        return replace(facts, in_grace=facts.in_grace or (plan.grace_cutoff is not None and account in self._recent))

    async def _same_database(self, directory: Directory) -> bool:
        if directory.dsn == self.config.dsn.get_secret_value():
            return True
        async with self._database.transaction() as connection:
            mine = await connection.fetchval(IDENTITY)
        return bool(mine == await directory.identity())

    async def _accounts(
        self, connection: Connection, plan: TargetPlan, window: Window
    ) -> tuple[list[str] | None, str | None]:
        """For the erasure walk, the next accounts due that have records here, and where to go on if there are more."""
        if window.walk != walks.ERASURE:
            return None, None
        source, account, directory = self.shape.directory, self.shape.account, self._directory
        assert account is not None and directory is not None  # noqa: PT018 - `walks.names` saw to it
        after = window.after[0] if window.after else None
        inclusive = window.after is not None and len(window.after) > 1
        if source is None:
            return await self._foreign_accounts(connection, plan, after, inclusive=inclusive)
        params = Params()
        edge = params.moment(walks.erasure_edge(plan))
        outside = walks.outside(self.shape, plan, params)
        start = (
            f" AND d.{source.id} {'>=' if inclusive else '>'} {params.add(after, 'text')}::{account.type}"
            if after
            else ""
        )
        deleted = source.deleted_at or "NULL"
        sql = (
            f"SELECT d.{source.id}::text AS id FROM {source.relation} d WHERE d.{deleted}::timestamptz < {edge}"
            f" AND isfinite(d.{deleted}::timestamptz){start} AND EXISTS (SELECT 1 FROM {self.shape.table.sql} r"
            f" WHERE r.{quote(account.name)} = d.{source.id}{outside}) ORDER BY d.{source.id} LIMIT {_CHUNK}"
        )
        if source.deleted_at is None:
            return [], None
        found = [row["id"] for row in await connection.fetch(sql, *params.values)]
        return found, found[-1] if len(found) == _CHUNK else None

    async def _foreign_accounts(
        self, connection: Connection, plan: TargetPlan, after: str | None, *, inclusive: bool
    ) -> tuple[list[str], str | None]:
        assert self._directory is not None and self.shape.account is not None  # noqa: PT018 - as the caller
        due = await self._directory.due(walks.erasure_edge(plan), after, inclusive=inclusive, limit=_CHUNK)
        column = self.shape.account
        sql = (
            f"SELECT DISTINCT r.{quote(column.name)}::text AS id FROM {self.shape.table.sql} r"
            f" WHERE r.{quote(column.name)} = ANY($1::text[]::{column.type}[])"
        )
        here = {row["id"] for row in await connection.fetch(sql, due)} if due else set()
        more = due[-1] if len(due) == _CHUNK else None
        found = [account for account in due if account in here]
        # An empty chunk in the middle is still a chunk: an account that has nothing here stands for it.
        return (found or due[-1:]) if more else found, more

    async def _context(self, connection: Connection, plan: TargetPlan, walk: Walk, params: Params) -> Context:
        age = None
        if self._surveyed is not None:
            latest: int = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            age = max(latest - self._surveyed, 0)
        if self.shape.directory is not None or self._directory is None or self.shape.account is None:
            return Context(tuple(self._recent), age)
        sql = (
            f"SELECT DISTINCT account::text AS id FROM (SELECT r.{quote(self.shape.account.name)} AS account"
            f" FROM {self.shape.table.sql} r WHERE {walk.condition} ORDER BY {walk.order} LIMIT {walk.size}) s"
            " WHERE account IS NOT NULL"
        )
        asked = tuple(row["id"] for row in await connection.fetch(sql, *params.values))
        looked: Looked = await self._directory.look_up(asked, plan, self._recent)
        return Context(tuple(self._recent), None, looked)

    def _walk(self, plan: TargetPlan, params: Params, window: Window, accounts: Sequence[str] | None) -> Walk:
        if window.walk == walks.MISSING:
            return walks.missing(self.shape, params, window)
        if window.walk == walks.BEYOND:
            return walks.beyond(self.shape, plan, params, window)
        if window.walk == walks.ERASURE:
            return walks.erasure(self.shape, plan, params, window, accounts or ())
        horizon = plan.horizon()
        assert horizon is not None
        return walks.term(self.shape, params, window, horizon)

    async def _run(
        self,
        connection: Connection,
        plan: TargetPlan,
        window: Window,
        accounts: Sequence[str] | None,
        *,
        salt: str | None,
        skip_locked: bool,
    ) -> tuple[asyncpg.Record, Walk]:
        params = Params()
        walk = self._walk(plan, params, window, accounts)
        context = await self._context(connection, plan, walk, params)
        if salt is None:
            sql = rows.count_sql(self.shape, plan, params, walk, context, self._change)
        else:
            sql = rows.erase_sql(
                self.shape, plan, params, walk, context, self._change, salt=salt, skip_locked=skip_locked
            )
        return await one(connection, sql, *params.values), walk


class PostgresBatch:
    """One transaction against the table."""

    def __init__(
        self,
        store: PostgresStore,
        connection: Connection,
        transaction: asyncpg.transaction.Transaction,
        plan: TargetPlan,
        number: int,
        *,
        patient: bool,
    ) -> None:
        self.connection = connection
        self.over = False
        self.transaction_id = ""
        self._store, self._transaction, self._plan, self._number = store, transaction, plan, number
        self._patient = patient

    async def begin(self) -> None:
        """Take the lock that is the fence, first of all; then the settings."""
        lock_ms = _PATIENT_LOCK_MS if self._patient else _LOCK_MS
        row = await one(
            self.connection, _BEGIN, self._store.lock_key(self._number), str(_STATEMENT_MS), str(lock_ms), str(_IDLE_MS)
        )
        self.transaction_id = row["xid"]
        if row["version"] >= 170_000:
            await self.connection.execute(f"SET LOCAL transaction_timeout = {_TRANSACTION_MS}")

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Destroy what is due in the window, under the permit whose number this transaction is the fence of."""
        if permit.number != self._number or permit.epoch != self._plan.epoch:
            raise Blind("the permit is not of this transaction and these holds")
        accounts, more = await self._store._accounts(self.connection, self._plan, window)  # noqa: SLF001 - one module
        if accounts == []:
            return Tally(transaction=self.transaction_id)
        row, walk = await self._attempt(window, accounts, salt)
        found = rows.tally(row, walk, _tiers(row))
        failed = 0
        if found.changed + found.locked < found.selected:
            again, _ = await self._store._run(  # noqa: SLF001 - one module
                self.connection, self._plan, window, accounts, salt=None, skip_locked=False
            )
            failed = max(again["selected"] - found.locked, 0)
        return replace(_continued(found, more), failed=failed, transaction=self.transaction_id)

    async def _attempt(self, window: Window, accounts: Sequence[str] | None, salt: str) -> tuple[asyncpg.Record, Walk]:
        savepoint = self.connection.transaction()
        await savepoint.start()
        try:
            found = await self._store._run(  # noqa: SLF001 - one module
                self.connection, self._plan, window, accounts, salt=salt, skip_locked=False
            )
        except asyncpg.LockNotAvailableError:
            await savepoint.rollback()
            return await self._store._run(  # noqa: SLF001 - one module
                self.connection, self._plan, window, accounts, salt=salt, skip_locked=True
            )
        await savepoint.commit()
        return found

    async def commit(self) -> None:
        """Make it so; raises Unreachable when the answer never came."""
        self.over = True
        with translated(f"target {self._store.name}"):
            await self._transaction.commit()


async def _roll_back(transaction: asyncpg.transaction.Transaction) -> None:
    try:
        await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        # The connection is gone, and the server has rolled back by itself; the pool discards the connection.
        return


def _tiers(row: asyncpg.Record) -> dict[str, int]:
    return orjson.loads(row["by_tier"]) if row["by_tier"] else {}


def _continued(found: Tally, more: str | None) -> Tally:
    return replace(found, after=(more,)) if found.after is None and more is not None else found


def _key_parts(key: str, count: int) -> list[str]:
    if count == 1:
        return [key]
    try:
        parts = orjson.loads(key)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or len(parts) != count:
        raise NotFound(f"{key!r} is not a key of {count} columns", remedy='write a JSON array, such as ["2026", "17"]')
    return [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]
