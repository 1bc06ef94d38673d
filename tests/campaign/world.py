"""The servers of a campaign and what is in them: two Postgres, each with tables, one with the control state as well."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import asyncpg

from tests.campaign import stream
from tests.campaign.rules import DELETION_GRACE, TARGETS, TERMS, TIERS, Record, Target
from tests.services.postgres import Server, cluster

RELEASE_GRACE_SECONDS = 15
_WATCHED = ("wal_level", "logical"), ("track_commit_timestamp", "on"), ("synchronous_commit", "on")
_LOGS = "(id bigint PRIMARY KEY, account_id bigint, created_at timestamptz, note text)"
_APP = f"""
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, version bigint NOT NULL DEFAULT 1);
CREATE TABLE plain {_LOGS};
CREATE TABLE sharded {_LOGS};
CREATE TABLE watched {_LOGS};
CREATE TABLE observed (key bigint);
CREATE FUNCTION observe() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN INSERT INTO public.observed VALUES (OLD.id); RETURN NULL; END $$;
CREATE TRIGGER observe AFTER DELETE ON watched FOR EACH ROW EXECUTE FUNCTION observe();
CREATE TABLE pairs (tenant text, n bigint, account_id bigint, at_ms bigint, PRIMARY KEY (tenant, n));
CREATE TABLE masked (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz, ip text);
CREATE INDEX ON plain (created_at); CREATE INDEX ON sharded (created_at); CREATE INDEX ON watched (created_at);
CREATE INDEX ON pairs (at_ms); CREATE INDEX ON masked (created_at); CREATE INDEX ON plain (account_id);
"""
_FAR = f"CREATE TABLE far {_LOGS}; CREATE INDEX ON far (created_at)"
_EDGE_SECONDS = 150.0


@dataclass
class World:
    """`numbers` gives keys that nobody else uses; `folder` is for what processes write."""

    app: Server
    control: Server
    folder: Path
    grace: bool
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    streams: dict[str, stream.Stream] = field(
        default_factory=lambda: {name: stream.Stream(name) for name in ("app", "far")}
    )

    def server(self, database: str) -> Server:
        """The server that a database is on."""
        return self.app if database == "app" else self.control

    def address(self, database: str) -> tuple[str, int]:
        """Where that server listens."""
        server = self.server(database)
        return server.host, server.port

    @asynccontextmanager
    async def connection(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the campaign's own, past the proxies."""
        connection = await asyncpg.connect(self.server(database).dsn(database), timeout=10, command_timeout=60)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    @asynccontextmanager
    async def own(self, database: str, name: str) -> AsyncIterator[asyncpg.Connection]:
        """A transaction of the campaign's own, which says so in the log."""
        async with self.connection(database) as connection, connection.transaction():
            await connection.execute("SELECT pg_logical_emit_message(true, $1, $2)", stream.OWN, name)
            yield connection

    async def make(self, random: Random) -> set[str]:
        """Tables, accounts, and records of all ages; the accounts' ids."""
        async with self.connection("postgres") as connection:
            await connection.execute("CREATE DATABASE control")
            await connection.execute("CREATE DATABASE far")
        connection = await asyncpg.connect(self.app.dsn())
        await connection.execute("CREATE DATABASE app")
        await connection.close()
        async with self.connection("app") as connection:
            await connection.execute(_APP)
            await stream.begin(connection, ["accounts", *(n for n, t in TARGETS.items() if t.database == "app")])
        async with self.connection("far") as connection:
            await connection.execute(_FAR)
            await stream.begin(connection, ["far"])
        accounts = [str(next(self.numbers)) for _ in range(60)]
        async with self.own("app", "first accounts") as connection:
            await connection.executemany(
                "INSERT INTO accounts (id, tier) VALUES ($1, $2)",
                [(int(each), random.choice(TIERS)) for each in accounts],
            )
        for target in TARGETS.values():
            await self.insert(target, accounts, 1500 if target.name == "sharded" else 300, random)
        async with self.connection("app") as connection:
            await connection.execute("ANALYZE")
        return set(accounts)

    async def insert(self, target: Target, accounts: list[str], count: int, random: Random) -> None:
        """Records of these accounts, of nobody, and of accounts that there are not; of ages that are worth testing."""
        now = datetime.now(UTC)
        rows = []
        for _ in range(count):
            account: int | None = int(random.choice(accounts))
            if random.random() < 0.06:
                account = random.choice([None, 10**9 + random.randint(1, 5)])
            moment = anchor(target, now, random)
            number = next(self.numbers)
            if target.name == "pairs":
                ms = None if moment is None else int(moment.timestamp() * 1000)
                rows.append((f"t{number % 7}", number, account, ms))
            else:
                rows.append((number, account, moment, f"10.0.{number % 250}.1"))
        async with self.own(target.database, f"insert {target.name}") as connection:
            await connection.copy_records_to_table(target.name, records=rows, columns=_columns(target))

    async def read_streams(self) -> None:
        """Take in what the servers' logs have by now."""
        for name, each in self.streams.items():
            async with self.connection(name) as connection:
                await each.read(connection)

    async def left(self) -> dict[str, list[Record]]:
        """All records that there are."""
        found: dict[str, list[Record]] = {}
        for target in TARGETS.values():
            async with self.connection(target.database) as connection:
                rows = await connection.fetch(f"SELECT row_to_json(r)::text FROM {target.name} r")
            texts = ({k: None if v is None else str(v) for k, v in json.loads(row[0]).items()} for row in rows)
            found[target.name] = [target.record(row) for row in texts]
        return found

    def environment(self, folder: Path, app: tuple[str, int], control: tuple[str, int]) -> dict[str, str]:
        """What configures a process with that state folder, which reaches the servers by these addresses."""
        dsns = {
            name: f"postgresql://postgres@{host}:{port}/{name}"
            for name, (host, port) in {"app": app, "far": control, "control": control}.items()
        }
        return {"RETENTIOND_CONFIG": json.dumps(self._document(folder, dsns)), "RETENTIOND_LOG_LEVEL": "info"}

    def _document(self, folder: Path, dsns: Mapping[str, str]) -> dict[str, Any]:
        return {
            "mode": "enforce",
            "state_dir": str(folder),
            "control": {"dsn": dsns["control"]},
            # One key for all hosts, as they share one ledger.
            "ledger": {"key": base64.b64encode(b"campaign".ljust(32, b".")).decode()},
            "guards": {"max_fraction": 1.0, "max_accounts_shortened": 1.0},
            "sweep": {"min_interval": 1, "max_interval": 5},
            "holds": {"release_grace": f"PT{RELEASE_GRACE_SECONDS}S"},
            "http": {"port": 0},
            "accounts": {"dsn": dsns["app"], "table": "public.accounts", "deleted_at": "deleted_at"},
            "policy": {
                "base": "none",
                "tiers": list(TIERS),
                "no_account": "free",
                "deletion_grace": f"P{DELETION_GRACE.days}D",
                "downgrade_grace": "P30D" if self.grace else "none",
                "classes": {name: {"ttl": _terms(terms)} for name, terms in TERMS.items()},
            },
            "targets": {name: _target(target, dsns[target.database]) for name, target in TARGETS.items()},
        }


def _terms(terms: Mapping[str, int | None]) -> dict[str, str]:
    return {tier: "forever" if days is None else f"P{days}D" for tier, days in terms.items()}


def _target(target: Target, dsn: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "store": "postgres",
        "class": target.class_,
        "dsn": dsn,
        "table": f"public.{target.name}",
        "anchor": target.anchor,
        "account": "account_id",
        "pace": {"duty": 1.0, "max_batch": 20 if target.name == "plain" else 60},
    }
    if target.name == "pairs":
        found["unit"] = "ms"
    if target.name == "sharded":
        found["pace"]["shards"] = 4
    if target.action == "anonymise":
        found |= {"action": "anonymise", "anonymise": {"columns": {"account_id": None, "ip": None}}}
    return found


def _columns(target: Target) -> list[str]:
    """Those that the campaign writes; an action may have added another one."""
    what = [] if target.name == "pairs" else ["ip" if target.action == "anonymise" else "note"]
    return [*target.key, "account_id", target.anchor, *what]


def anchor(target: Target, now: datetime, random: Random) -> datetime | None:
    """An age: often about that of a term's end, so that records become due while the campaign lasts."""
    days = [each for each in TERMS[target.class_].values() if each is not None]
    chance = random.random()
    if chance < 0.02:
        return None
    if chance < 0.40:
        edge = timedelta(days=random.choice(days)) - timedelta(seconds=random.uniform(-30, _EDGE_SECONDS))
        return _whole(target, now - edge)
    if chance < 0.55:
        return _whole(target, now - timedelta(days=random.uniform(0, days[0] - 1)))
    return _whole(target, now - timedelta(days=random.uniform(days[0] + 1, 2 * days[-1])))


def _whole(target: Target, moment: datetime) -> datetime:
    """To the unit that the column has."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if target.name == "pairs" else moment


@contextmanager
def world(folder: Path, *, grace: bool) -> Iterator[World]:
    """Fresh servers, gone at the end."""
    with cluster(16, **dict(_WATCHED)) as app, cluster(16, **dict(_WATCHED)) as control:
        yield World(app, control, folder, grace)
