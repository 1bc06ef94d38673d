"""Holds that a target's own database keeps: against everybody, the application, its cascades and administrators too.

`settle` brings what is in force there in step with the holds that the control database has, and may be called by any
process at any time, by several at once, and again after any crash: one transaction, under a lock of its own, from what
it finds to what is to be. It takes a hold away only when the control database calls it released, which is for good: so
a caller with an older view can put back for a while what another has taken away, but never the reverse. A hold that the
control database does not know (it may have been restored from a backup) stays, and `check` says so.

CREATE TRIGGER waits until all that write to the table are done, and who writes afterwards has the trigger. So when a
hold has been settled nothing that began before it can still delete what it covers. Writers queue behind that wait:
it is short, given up, and tried again later.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from retentiond.domain.holds import Hold, HoldState, covers_target
from retentiond.errors import Blind, Refused, RetentiondError, quoted
from retentiond.stores.postgres.catalog import NATIVE_SCHEMA, Table, quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.native_sql import (
    Held,
    Names,
    function_sql,
    literal,
    row_triggers_sql,
    truncate_trigger_sql,
)
from retentiond.stores.postgres.native_state import (
    CREATE,
    TABLES,
    State,
    read_marks,
    read_state,
    type_schemas,
    write_state,
)
from retentiond.stores.postgres.store import PostgresStore

# Below the server's deadlock_timeout (1 s): it is us who give way, and not the application.
_LOCK_MS = 800
# A try that has some tables and waits for others, or is stopped in between, keeps writers waiting: not for long.
_STATEMENT_MS, _IDLE_MS, _MOST_SECONDS = 5_000, 2_000, 5.0
_TOOK_LONG = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.QueryCanceledError)
# All that a look may take, an installation among it; a target that does not answer must not keep other holds waiting.
_ANSWER_SECONDS = 15.0
_FIRST_REST, _LONGEST_REST = 0.5, 5.0
# What a hold is active by must survive a crash of the server, whatever the database's default is.
_DURABLE = """
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('retentiond_holds', 0))"
_USE = (
    "GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};"
    " GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"
)
_IN_USE = """
SELECT pg_catalog.string_agg(DISTINCT COALESCE(pid::text, 'of a prepared transaction'), ', ')
FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted AND relation = ANY($1::bigint[]::oid[])
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND NOT ($2 AND mode IN ('AccessShareLock', 'RowShareLock')) AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
"""


class _Busy(Refused):
    """Too many writers are in the way for one try."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be in force: of which table, by which definitions."""

    table: Table
    holds: Mapping[str, Held]
    function: str
    rows: Mapping[int, Sequence[str]]
    digest: str


@dataclass(slots=True)
class NativeHolds:
    """The native holds of one target. `mended`: what `settle` last found that somebody else had changed."""

    store: PostgresStore
    class_name: str
    mended: tuple[str, ...] = ()
    _there: frozenset[str] = frozenset()
    _not_before: float = 0.0
    _rest: float = _FIRST_REST
    _why: str = ""
    names: Names = field(init=False)
    _settling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """The names of what is ours there."""
        self.names = Names.of(self.store.space, self.store.name)

    @property
    def always(self) -> bool:
        """Whether the database is to keep holds at all."""
        return self.store.config.native_holds

    async def leave(self) -> None:
        """Nothing is under way between two calls of `settle`."""

    async def settle(self, known: Sequence[Hold]) -> dict[str, str]:
        """Bring what is in force in step with `known`, all holds that the control database has.

        Returns those whose state there is not yet what it should be, by id, each with the reason; nothing that the
        target's database does or does not answer raises.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), self._settling:
                there = await self._settle(known)
        except (RetentiondError, OSError, TimeoutError) as error:
            return dict.fromkeys(self.concerned(known), _told(error))
        return {hold.id: "it is not in force there yet" for hold in self.bearing(known) if hold.id not in there}

    def bearing(self, known: Sequence[Hold]) -> list[Hold]:
        """The holds that hold, and may cover records of the target."""
        name, data_class = self.store.name, self.class_name
        return [h for h in known if h.holds and covers_target(h.scope, target=name, class_name=data_class)]

    def concerned(self, known: Sequence[Hold]) -> list[str]:
        """Those that bear on the target, and those that have ended and were in force when it was last looked at."""
        ended = {hold.id for hold in known if not hold.holds}
        return [*(hold.id for hold in self.bearing(known)), *sorted(self._there & ended)]

    async def _settle(self, known: Sequence[Hold]) -> frozenset[str]:
        shape = await self.opened()
        bearing = await self.held(shape, known)
        ended = frozenset(hold.id for hold in known if hold.state is HoldState.RELEASED)
        before = self._there - ended
        async with self.store.transaction() as connection:
            state = await self.read(connection, shape)
            _require_readable(state, self, bearing, ended)
            wanted = await _wanted(connection, shape, self.names, state, _final(state, bearing, ended))
        self._there = frozenset({*state.holds, *state.unreadable})
        if _in_step(state, wanted, self.names):
            return self._there
        self._require_patience()
        try:
            async with self.store.transaction(
                read_only=False, statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS, idle_ms=_IDLE_MS
            ) as connection:
                installed = await self._install(connection, shape, bearing, ended)
        except Refused as error:
            if not isinstance(error, _Busy) and not isinstance(error.__cause__, _TOOK_LONG):
                raise
            raise await self._busy(state, shape, writers_only=bool(wanted.holds)) from error
        self.mended = _tampered(state, wanted, self.names, before)
        self._there, self._rest, self._not_before = installed, _FIRST_REST, 0.0
        return installed

    async def _install(
        self,
        connection: Connection,
        shape: PostgresStore,
        bearing: Mapping[str, Held],
        ended: frozenset[str],
    ) -> frozenset[str]:
        """One transaction, from what is found under the lock to what is to be; what is in force then."""
        await connection.execute(_DURABLE)
        await connection.execute(_LOCK)
        state = await self.read(connection, shape)
        _require_readable(state, self, bearing, ended)
        wanted = await _wanted(connection, shape, self.names, state, _final(state, bearing, ended))
        if not _in_step(state, wanted, self.names):
            if wanted.holds:
                _require_rights(self.store.name, state)
                await _make(connection, self.names, state, wanted)
            else:
                await connection.execute(f"DROP FUNCTION IF EXISTS {self.names.function_sql}() CASCADE")
        marks = await read_marks(connection, self.names, wanted.table.oid)
        place = (self.store.space, self.store.name, wanted.table.sql)
        if wanted.holds or state.has_tables:
            await write_state(connection, place, digest=wanted.digest, marks=marks, holds=wanted.holds)
        return frozenset(wanted.holds)

    async def held(self, shape: PostgresStore, known: Sequence[Hold]) -> dict[str, Held]:
        """What is to be in force of the holds, in the target's own text."""
        return {hold.id: Held(hold.matter, await shape.hold(hold)) for hold in self.bearing(known)}

    async def opened(self) -> PostgresStore:
        """The store as it is opened now: a sweep may be using the other one, which must not change meanwhile."""
        twin = copy.copy(self.store)
        await twin.open(None)
        return twin

    async def read(self, connection: Connection, shape: PostgresStore) -> State:
        """What is there now."""
        return await read_state(connection, self.store.space, self.store.name, shape.shape.table.oid)

    def _require_patience(self) -> None:
        """Let writers have the table to themselves for a while after a try that kept them waiting."""
        if time.monotonic() < self._not_before:
            raise Refused(self._why)

    async def _busy(self, state: State, shape: PostgresStore, *, writers_only: bool) -> Refused:
        """Who is in the way: to make a trigger all that write, to take one away all that so much as read."""
        async with self.store.transaction() as connection:
            pids = await connection.fetchval(_IN_USE, [member.oid for member in state.members], writers_only)
        table = shape.shape.table
        who = f"backends {pids} have transactions open" if pids else "transactions are open"
        does = "write to" if writers_only else "use"
        self._why = f"{who} that {does} {table.schema}.{table.name}: its trigger has to wait for them"
        self._not_before = time.monotonic() + self._rest
        self._rest = min(self._rest * 2, _LONGEST_REST)
        return Refused(self._why, remedy="nothing to do: it is tried again; see pg_stat_activity for what they do")


def drift(state: State, names: Names) -> tuple[str, ...]:
    """What somebody else has changed of what was installed, or what a new partition lacks; nothing where none was."""
    if not state.holds and not state.unreadable:
        return ("a trigger function is there, and no hold",) if state.marked else ()
    found = [f"trigger {name} on {member.shown} is disabled" for member in state.members for name in member.disabled]
    for member in state.members:
        gone = [kind for kind in member.lacks(names) if names.trigger_of(kind) not in member.disabled]
        found += [f"{member.shown} has no trigger {names.trigger_of(kind)}" for kind in gone]
    if not found:
        shown = {str(member.oid): f"a trigger on {member.shown}" for member in state.members}
        found = [f"{shown.get(what, f'function {names.function_sql}')} was changed" for what in state.changed]
    return tuple(found)


def unreadable(native: NativeHolds, state: State) -> dict[str, tuple[str, str]]:
    """Of each hold whose row can't be read what is to be said, and the SQL that takes the row away."""
    return {
        hold_id: (f"the row of hold {hold_id} in {NATIVE_SCHEMA}.held can't be read: {why}", forget(native, hold_id))
        for hold_id, why in state.unreadable.items()
    }


def forget(native: NativeHolds, hold_id: str | None = None) -> str:
    """SQL that takes away the row of a hold, or of all."""
    store = native.store
    which = f" AND hold_id = {literal(hold_id)}" if hold_id is not None else ""
    return (
        f"DELETE FROM {NATIVE_SCHEMA}.held"
        f" WHERE space = {literal(store.space)} AND target = {literal(store.name)}{which};"
    )


def _require_readable(state: State, native: NativeHolds, bearing: Mapping[str, Held], ended: frozenset[str]) -> None:
    """Refuse to replace what may be all that keeps a hold in force: nobody knows any more what it covers."""
    for hold_id, (message, remedy) in unreadable(native, state).items():
        if hold_id not in bearing and hold_id not in ended:
            raise Blind(f"{message}; and the control database does not know what it is to cover", remedy=remedy)


def _tampered(state: State, wanted: Wanted, names: Names, before: frozenset[str]) -> tuple[str, ...]:
    """What somebody else has changed since, by what is there and by what was when this process last looked."""
    found = list(drift(state, names))
    if lost := sorted(before - state.holds.keys() - state.unreadable.keys()):
        found.append(f"holds that were in force are not there any more: {', '.join(lost)}")
    elif state.unreadable or (state.holds != wanted.holds and state.digest == wanted.digest):
        found.append(f"rows of {NATIVE_SCHEMA}.held were changed")
    return tuple(found)


def _told(error: RetentiondError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, RetentiondError) and error.remedy:
        return f"{error.message}; remedy: {error.remedy}"
    return quoted(error)


def _final(state: State, bearing: Mapping[str, Held], ended: frozenset[str]) -> dict[str, Held]:
    """What bears on the target now, and of what is there all that is not known to be released."""
    return {**{each: held for each, held in state.holds.items() if each not in ended}, **bearing}


def _in_step(state: State, wanted: Wanted, names: Names) -> bool:
    return state.holds == wanted.holds and not state.unreadable and state.stands(names, wanted.digest)


async def _wanted(
    connection: Connection, store: PostgresStore, names: Names, state: State, holds: Mapping[str, Held]
) -> Wanted:
    """The definitions that put these holds in force."""
    shape, change = store.shape, store.change
    columns = [*shape.table.key, *([shape.account.name] if shape.account else [])]
    schemas = await type_schemas(connection, shape.table.oid, columns)
    function = function_sql(names, shape, change, holds, schemas)
    rows = {
        member.oid: row_triggers_sql(names, member.sql, shape, change, holds)
        for member in state.members
        if holds and not member.inherits_triggers
    }
    own = [f"{oid} {sql}" for oid, definitions in sorted(rows.items()) for sql in definitions]
    digest = hashlib.sha256("\n".join([str(shape.table.oid), function, *own]).encode()).hexdigest()
    return Wanted(shape.table, holds, function, rows, digest)


async def _make(connection: Connection, names: Names, state: State, wanted: Wanted) -> None:
    """Create what is missing, and replace what is there; each table is locked against writers until the commit."""
    if not state.has_schema:
        await connection.execute(CREATE)
    if not state.has_tables:
        await connection.execute(TABLES)
    began = time.monotonic()
    for sql in (
        wanted.function,
        # Who makes a partition makes its copies of the triggers, and has to be allowed to.
        f"GRANT EXECUTE ON FUNCTION {names.function_sql}() TO PUBLIC",
        *(sql for definitions in wanted.rows.values() for sql in definitions),
        *(truncate_trigger_sql(names, member.sql) for member in state.members),
    ):
        if time.monotonic() - began > _MOST_SECONDS:
            raise _Busy
        await connection.execute(sql)


def missing_rights(state: State) -> list[tuple[str, str]]:
    """What the role of the dsn may not do that it has to, and the SQL that lets it, for the owner to run."""
    role, found = quote(state.role), list[tuple[str, str]]()
    if not state.has_schema and not state.may_create_schema:
        found.append(("create the schema of native holds", f"CREATE SCHEMA {NATIVE_SCHEMA} AUTHORIZATION {role};"))
    if state.has_schema and not state.may_use:
        found.append((f"use schema {NATIVE_SCHEMA} and its tables", _USE.format(schema=NATIVE_SCHEMA, role=role)))
    found += [
        (f"create triggers on {member.schema}.{member.name}", f"GRANT TRIGGER ON {member.sql} TO {role};")
        for member in state.members
        if not member.may_trigger
    ]
    return found


def _require_rights(target: str, state: State) -> None:
    if missing := missing_rights(state):
        what, remedy = ", ".join(each for each, _ in missing), " ".join(sql for _, sql in missing)
        raise Blind(f"the role of target {target} may not {what}, which native holds need", remedy=remedy)
