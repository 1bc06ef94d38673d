"""How a target's server is, read in one short statement outside of any batch: what a sweep yields to.

Each signal is an expression of its own, null where this role is not shown what it takes. A server that lacks one (not
every provider has replication views or WAL functions) fails the statement; then they are tried one by one, and those
that fail are left out for a while, with the reason.

A replica's lag in seconds is reckoned here as well: Postgres tells the last lag that it measured, which stays as it is
when a replica stops replaying. The WAL positions seen before say since when it has been behind. A replica whose
connection is gone is not seen; its slot, if it has one, is (`retained_wal`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

from retentiond.errors import Blind, Refused
from retentiond.stores.base import Vitals
from retentiond.stores.postgres.connection import TargetDatabase, one

_STATEMENT_MS = 5_000
_LOST_SECONDS = 300.0
_FORGOTTEN_SECONDS = 60.0
_POSITIONS = 1_000
_POSITION_SECONDS = 1.0

_FAMILY = """
WITH RECURSIVE family AS (
    SELECT pg_catalog.to_regclass($1)::oid AS oid
    UNION SELECT i.inhrelid FROM family JOIN pg_catalog.pg_inherits i ON i.inhparent = family.oid
)
"""
_NOW = "(pg_catalog.pg_current_wal_lsn() - pg_lsn '0/0')"
# `state` is null of a sender that this role is not shown; `replay_lsn` of one that replays nothing, as a backup's.
_REPLICAS = f"""
(SELECT CASE WHEN bool_or(r.state IS NULL) THEN NULL ELSE pg_catalog.jsonb_build_object('now', {_NOW}, 'replicas',
    COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'replayed', r.replay_lsn - pg_lsn '0/0',
        'lag', COALESCE(EXTRACT(epoch FROM r.replay_lag), 0)::float8
    )) FILTER (WHERE r.replay_lsn IS NOT NULL AND r.application_name <> ALL ($2::text[])), '[]'))::text END
 FROM pg_catalog.pg_stat_replication r)
"""
# From the end of the last file that was archived, or the first that failed, to where WAL is written now. A name that is
# no segment's (a timeline's history) says nothing, and the next one will.
_ARCHIVE = f"""
(SELECT CASE WHEN pg_catalog.current_setting('archive_mode') = 'off' THEN 0 ELSE COALESCE(greatest({_NOW} - (
    ('x' || substr(f.name, 9, 8))::bit(32)::bigint * 4294967296
    + (('x' || substr(f.name, 17, 8))::bit(32)::bigint + f.done) * s.bytes), 0), 0) END::float8
 FROM pg_catalog.pg_stat_archiver a,
      LATERAL (SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS bytes) s,
      LATERAL (SELECT substring(COALESCE(a.last_archived_wal, a.last_failed_wal) FROM '^[0-9A-F]{{24}}') AS name,
                      CASE WHEN a.last_archived_wal IS NULL THEN 0 ELSE 1 END AS done) f)
"""
_RETAINED = f"""
(SELECT COALESCE(max({_NOW} - (s.restart_lsn - pg_lsn '0/0')), 0)::float8 FROM pg_catalog.pg_replication_slots s
 WHERE s.wal_status IS DISTINCT FROM 'lost')
"""
# VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY hold this lock as long as they last. Everybody may see locks; only some
# may see progress.
_VACUUM = """
(SELECT count(*)::float8 FROM pg_catalog.pg_locks l JOIN family f ON f.oid = l.relation
 WHERE l.mode = 'ShareUpdateExclusiveLock' AND l.granted
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))
"""
# Who waits for a row waits for a transaction, and has a lock on the row's table already. A sweep does not yield to
# itself or another one, whose sessions are of the same role and hence seen.
_WAITS = """
(SELECT COALESCE(max(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - w.waitstart)), 0)::float8
 FROM pg_catalog.pg_locks w WHERE NOT w.granted AND NOT EXISTS (
    SELECT 1 FROM pg_catalog.pg_stat_activity o WHERE o.pid = w.pid AND o.application_name = 'retentiond')
 AND EXISTS (
    SELECT 1 FROM pg_catalog.pg_locks l JOIN family f ON f.oid = l.relation WHERE l.pid = w.pid
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())))
"""
# Vacuums have snapshots that keep nothing. The text in place of a query that may not be seen is Postgres' own.
_SNAPSHOT = """
(SELECT CASE WHEN bool_or(s.query = '<insufficient privilege>') THEN NULL ELSE greatest(COALESCE(max(EXTRACT(epoch FROM
    pg_catalog.clock_timestamp() - s.xact_start)) FILTER (WHERE s.backend_xmin IS NOT NULL
        AND s.backend_type IS DISTINCT FROM 'autovacuum worker' AND s.query !~* '^\\s*vacuum'), 0),
    (SELECT COALESCE(max(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - p.prepared)), 0)
     FROM pg_catalog.pg_prepared_xacts p WHERE p.database = current_database()))::float8 END
 FROM pg_catalog.pg_stat_activity s
 WHERE s.datname = current_database() AND s.application_name IS DISTINCT FROM 'retentiond'
   AND s.pid <> pg_catalog.pg_backend_pid())
"""
_SQL: Mapping[str, str] = {
    "replicas": _REPLICAS,
    "archive_backlog": _ARCHIVE,
    "retained_wal": _RETAINED,
    "vacuum": _VACUUM,
    "lock_waits": _WAITS,
    "oldest_snapshot": _SNAPSHOT,
}
_OF_REPLICAS = frozenset({"replica_lag", "replica_backlog"})
HIDDEN = "this role is not shown what other roles' sessions do"
"""Why a signal can't be read without `pg_monitor`."""


@dataclass(slots=True)
class Reader:
    """Reads the signals of one table's server, and remembers from one reading to the next what they are reckoned by."""

    database: TargetDatabase
    table: str
    ignored: tuple[str, ...] = ()
    _positions: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_POSITIONS))
    _lost: dict[str, tuple[float, str]] = field(default_factory=dict)
    _vacuum_since: float | None = None
    _read_at: float = 0.0

    async def read(self, signals: Collection[str]) -> Vitals:
        """The signals as they are now, and `response`: the seconds that it took to tell; raises Unreachable."""
        began = time.monotonic()
        wanted = {"replicas" if name in _OF_REPLICAS else name for name in signals} & _SQL.keys()
        self._lost = {name: lost for name, lost in self._lost.items() if began - lost[0] < _LOST_SECONDS}
        names = sorted(wanted - self._lost.keys())
        try:
            row = await self._ask(names)
        except (Refused, Blind) as error:
            if isinstance(error.__cause__, (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)):
                late = dict.fromkeys(signals, "the server did not answer in time")
                return Vitals({"response": time.monotonic() - began}, late)
            row = await self._one_by_one(names)
        response = time.monotonic() - began
        why = {name: self._lost[name][1] for name in wanted & self._lost.keys()}
        why.update({name: HIDDEN for name in row if row[name] is None})
        values = self._reckoned({name: value for name, value in row.items() if value is not None}, began)
        return Vitals(
            {name: value for name, value in (values | {"response": response}).items() if name in signals},
            {name: why[of] for name in signals if (of := "replicas" if name in _OF_REPLICAS else name) in why},
        )

    async def _ask(self, names: Collection[str]) -> dict[str, Any]:
        columns = ", ".join(f"{_SQL[name]} AS {name}" for name in names) or "1"
        # Each parameter has to be there whichever expressions are.
        sql = f"{_FAMILY} SELECT {columns}, $2::text[] AS ignored"
        async with self.database.transaction(statement_ms=_STATEMENT_MS) as connection:
            row = dict(await one(connection, sql, self.table, list(self.ignored)))
        return {name: row[name] for name in names}

    async def _one_by_one(self, names: Collection[str]) -> dict[str, Any]:
        """What can be read, each alone; the others are lost for a while."""
        found: dict[str, Any] = {}
        for name in names:
            try:
                found |= await self._ask([name])
            except (Refused, Blind) as error:
                self._lost[name] = (time.monotonic(), error.message)
        return found

    def _reckoned(self, read: Mapping[str, Any], at: float) -> dict[str, float]:
        values = {name: float(value) for name, value in read.items() if name != "replicas"}
        if "vacuum" in values:
            values["vacuum"] = self._vacuum(running=values["vacuum"] > 0, at=at)
        if "replicas" in read:
            values["replica_lag"], values["replica_backlog"] = self._replicas(orjson.loads(read["replicas"]), at)
        self._read_at = at
        return values

    def _vacuum(self, *, running: bool, at: float) -> float:
        """For how long there has been one, as far as it was looked at; 0 where there is none, never that at first."""
        if not running:
            self._vacuum_since = None
            return 0.0
        if self._vacuum_since is None or at - self._read_at > _FORGOTTEN_SECONDS:
            self._vacuum_since = at
        return max(at - self._vacuum_since, 1e-3)

    def _replicas(self, told: Mapping[str, Any], at: float) -> tuple[float, float]:
        """How far the one that is furthest behind is, in seconds and bytes."""
        now = int(told["now"])
        positions = self._positions
        if positions and now < positions[-1][1]:
            positions.clear()  # another server, or one that was restored
        if not positions or (now > positions[-1][1] and at - positions[-1][0] >= _POSITION_SECONDS):
            positions.append((at, now))
        lag, backlog = 0.0, 0
        for replica in told["replicas"]:
            replayed = int(replica["replayed"])
            if replayed >= now:
                continue
            backlog = max(backlog, now - replayed)
            since = next((seen for seen, position in positions if position > replayed), at)
            lag = max(lag, at - since, float(replica["lag"]))
        return lag, float(backlog)
