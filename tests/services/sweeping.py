"""An App on a database of one's own, configured by environment variables alone, and what its ledger says afterwards.

Each `sweep` opens the App anew, as a process does: nothing is carried over but what the control database remembers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from retentiond.control import entries, holds, policies
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import App, enter_mode, open_app
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.ledger.verify import verify_database
from retentiond.settings import load
from retentiond.sweep.events import Observer, ignore
from retentiond.sweep.outcome import Outcome
from tests.services.gates import looks

_PATIENCE = 120.0
_PACE = {"duty": 1.0, "max_batch": 10}
ACCOUNTS = """
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);
INSERT INTO accounts VALUES (1, 'free'), (2, 'pro'), (3, 'enterprise');
INSERT INTO accounts VALUES (4, 'free', now() - interval '60 days');
"""
LOGS = """
CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz, ip text);
CREATE INDEX ON logs (created_at);
"""


@dataclass
class Rig:
    """A database `dsn`, a connection to it as its owner, and a configuration that tests add to before they sweep."""

    dsn: str
    db: asyncpg.Connection
    state: Path
    control: str
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    accounts: dict[str, Any] | None = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    guards: dict[str, Any] = field(default_factory=dict)

    def target(self, name: str, **settings: Any) -> None:
        """Add a target; `class_` for its class, a setting of None takes a default away.

        Batches are as large as `max_batch` says also on a machine so busy that each takes seconds.
        """
        if (pace := settings.get("pace", _PACE)) is not None:
            settings["pace"] = {"batch_seconds": 5.0, **pace}
        usual = {
            "store": "postgres",
            "dsn": self.dsn,
            "class": settings.pop("class_", "operational_logs"),
            "table": f"public.{name}",
            "anchor": "created_at",
            "account": "account_id",
        }
        self.targets[name] = {key: value for key, value in {**usual, **settings}.items() if value is not None}

    def environment(self, **more: Any) -> dict[str, str]:
        """The environment that configures all this; `more` are top-level keys that replace."""
        accounts = {"dsn": self.dsn, "table": "public.accounts", "deleted_at": "deleted_at", "overrides": "retention"}
        document = {
            "mode": "enforce",
            "state_dir": str(self.state),
            "control": {"dsn": self.control},
            "guards": {"max_fraction": 1.0, **self.guards},
            "policy": self.policy,
            "targets": self.targets,
            "http": {"port": 0},
        }
        if self.accounts is not None:
            document["accounts"] = {k: v for k, v in {**accounts, **self.accounts}.items() if v is not None}
        return {"RETENTIOND_CONFIG": json.dumps(document | more)}

    @asynccontextmanager
    async def app(self, *, observer: Observer = ignore, enter: bool = True, **more: Any) -> AsyncIterator[App]:
        """The App in the configured mode."""
        async with open_app(load(self.environment(**more)), create=True, observer=observer) as app:
            if enter:
                await enter_mode(app, "test")
            yield app

    async def sweep(self, *names: str, observer: Observer = ignore, **more: Any) -> dict[str, Outcome]:
        """One sweep of the named targets, or all; then the ledger's head is signed, as the command does."""
        async with asyncio.timeout(_PATIENCE), self.app(observer=observer, **more) as app:
            wanted = names or [target.name for target in app.spec.targets]
            found = {name: await app.engine.sweep(app.spec.target(name)) for name in wanted}
            await self._sign(app)
            return found

    async def only(self, name: str = "logs", **more: Any) -> Outcome:
        """One sweep of one target."""
        return (await self.sweep(name, **more))[name]

    async def hold(self, app: App, **scope: Any) -> Hold:
        """Place a hold and wait until it is active."""
        draft = HoldDraft(matter="m", reason="r", scope=Scope(**scope))
        placed = await holds.place(app.database, draft, "test", record=app.hold_recorder("test"))
        for store in app.engine.stores.values():
            await store.open(app.engine.directory)
        async for _ in looks("the hold does not become active", every=0.05):
            record = app.hold_recorder("test")
            await holds.activate_pending(app.database, app.fences(), native=app.natives(), record=record)
            async with app.database.transaction(read_only=True) as tx:
                now = await holds.get(tx, placed.id)
            if now.state is HoldState.ACTIVE:
                return now
        raise AssertionError

    async def approve_policy(self) -> None:
        """Put the configuration in force as `policy approve` and the next start do."""
        async with self.app(enter=False) as app, app.database.transaction() as tx:
            await policies.adopt(tx, app.spec.digest, app.document, "test")

    async def ledger(self) -> list[dict[str, Any]]:
        """Every entry, after the whole has been verified."""
        async with self.app(enter=False) as app:
            await self._sign(app)
            report = await verify_database(app.database, app.journal.verifier)
            assert report.ok, report.first_break
            async with app.database.transaction(read_only=True) as tx:
                return [orjson.loads(row.leaf) for row in await entries.read(tx, 0, 10_000, None)]

    async def require_told(self, **gone: int) -> None:
        """The ledger verifies, and tells for each target how many records are gone."""
        told = dict.fromkeys(gone, 0)
        for entry in await self.ledger():
            if entry["kind"] == "outcome" and entry["target"] in told:
                counts = entry["counts"]
                done = counts["erased"] + counts["anonymised"] + counts["archived"]
                told[entry["target"]] += done
                assert done <= counts["selected"], entry
        assert told == gone

    async def require_settled(self) -> None:
        """No permit is without an outcome."""
        async with self.control_connection() as control:
            assert await control.fetchval("SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL") == 0

    @asynccontextmanager
    async def control_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the control database, past the daemon."""
        connection = await asyncpg.connect(self.control)
        try:
            yield connection
        finally:
            await connection.close()

    async def let_leases_run_out(self) -> None:
        """What 30 seconds do after a crash: nobody has a unit any more."""
        async with self.control_connection() as control:
            await control.execute("UPDATE retentiond.units SET lease_until = now() WHERE owner IS NOT NULL")

    async def nobody_works(self) -> bool:
        """Whether no unit is being worked on, nor announced: what is announced already is not announced again."""
        async with self.control_connection() as control:
            return not await control.fetchval(
                "SELECT (SELECT count(*) FROM retentiond.units WHERE owner IS NOT NULL)"
                " + (SELECT count(*) FROM retentiond.pgqueuer)"
            )

    async def ids(self, table: str = "logs", key: str = "id") -> list[Any]:
        """The keys of the rows that are left."""
        return [row[0] for row in await self.db.fetch(f"SELECT {key} FROM {table} ORDER BY 1")]

    async def company(self, *, due: int = 5, young: int = 3) -> None:
        """Accounts, and logs of account 1: ids from 1 on are due, those from 1001 on are not."""
        await self.db.execute(ACCOUNTS + LOGS)
        await self.db.execute(
            "INSERT INTO logs SELECT i, 1, now() - interval '400 days' + i * interval '1 minute',"
            f" '10.0.0.' || i FROM generate_series(1, {due}) i;"
            f" INSERT INTO logs SELECT 1000 + i, 1, now() - interval '1 day' FROM generate_series(1, {young}) i"
        )
        self.target("logs")

    async def _sign(self, app: App) -> None:
        async with app.database.transaction() as tx:
            await app.journal.checkpoint(tx)


def ago(instant: datetime) -> str:
    """The term whose cutoff is that instant (UTC) now, and later by what has passed when it is used."""
    return f"PT{int((datetime.now(UTC) - instant).total_seconds())}S"


def document(outcome: Outcome) -> Mapping[str, Any]:
    """The outcome as `sweep --json` shows it."""
    return outcome.document(plan_mode=False)


async def let_permits_age(control, seconds):
    """As if the open permits had been asked for so much earlier, by every clock that they are judged by."""
    await control.execute(
        "UPDATE retentiond.permits SET issued_at = issued_at - make_interval(secs => $1),"
        " deadline = deadline - make_interval(secs => $1), intent = CASE WHEN intent ? 'up'"
        " THEN jsonb_set(intent, '{up,1}', to_jsonb((intent #>> '{up,1}')::float8 - $1)) ELSE intent END"
        " WHERE ended_at IS NULL",
        seconds,
    )
