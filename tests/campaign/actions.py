"""What a schedule's actions do, when their time has come.

The application's and the operators' are here, the faults in `faults`. Each goes on by itself beside the others. One that
meets a server that is down is missed: that is life, and is counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import asyncpg

from tests.campaign.history import Answer, Pause
from tests.campaign.rules import TARGETS, TIERS, Target
from tests.campaign.schedule import Action
from tests.campaign.workers import PRODUCT, command
from tests.campaign.world import World
from tests.services.process import Result

MISSED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
_MOST_HOLDS = 12
_COMMANDS_AT_ONCE = 3


class Scene:
    """What actions share. `over` is set when it is time to come to an end; `faults` are what the product did wrong."""

    def __init__(self, world: World, accounts: set[str], program: tuple[str, ...] = PRODUCT) -> None:
        self.world, self.program = world, program
        self.accounts = sorted(accounts, key=int)
        self.over = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.answers: list[Answer] = []
        self.pauses: list[Pause] = []
        self.crashes: list[tuple[str, datetime]] = []
        self.confirmed: dict[tuple[str, int], datetime] = {}
        self.faults: list[str] = []
        self._commands = asyncio.Semaphore(_COMMANDS_AT_ONCE)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until it is time to end."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return

    async def command(self, *args: str, fine: tuple[int, ...] = (0, 4)) -> Result:
        """Run a command; another exit code than those that are fine, or a traceback, is a fault."""
        async with self._commands:
            result = await command(self.world, *args, program=self.program)
        if result.code not in fine or "Traceback" in result.stderr:
            self.faults.append(f"{' '.join(args)} ended with {result.code}: {result.stderr[-1500:]}")
        return result

    async def hold(self, *scope: str) -> str | None:
        """Place a hold and keep what was answered; its id, None where it was not active in time."""
        place = ("hold", "place", "--matter", "m", "--reason", "r", "--timeout", "60", "--json")
        result = await self.command(*place, *scope)
        if result.code != 0:
            return None
        placed = result.json
        self.answers.append(Answer(placed["id"], datetime.fromisoformat(placed["effective_at"])))
        return str(placed["id"])

    async def confirm(self, account: str, version: int) -> None:
        """From now on everybody must see this version of the account."""
        self.confirmed[account, version] = datetime.now(UTC)


class Actions:
    """The application's and the operators' actions, by the names of the schedule's kinds."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._world = scene, scene.world
        self._pausing = asyncio.Lock()

    # --- The application's life ---

    async def insert(self, action: Action) -> None:
        random = action.random()
        await self._world.insert(_target(random), self._scene.accounts, random.randint(10, 70), random)

    async def refresh(self, action: Action) -> None:
        """Records are used again, so that their terms begin anew."""
        random, target = action.random(), _target(action.random())
        await self._change(target, f"{target.anchor} = {_now(target)}", random.randint(1, 15))

    async def application_delete(self, action: Action) -> None:
        random, target = action.random(), _target(action.random())
        async with self._world.own(target.database, "delete") as connection:
            await connection.execute(f"DELETE FROM {target.name} WHERE {_some(target, random.randint(1, 8))}")

    async def move(self, action: Action) -> None:
        """Records get another account."""
        random, target = action.random(), _target(action.random())
        await self._change(target, f"account_id = {random.choice(self._scene.accounts)}", random.randint(1, 8))

    async def lock_rows(self, action: Action) -> None:
        """A transaction that has due rows for seconds; half of them refresh them at its end."""
        random, target = action.random(), _target(action.random())
        async with self._world.own(target.database, "locked") as connection:
            oldest = f"SELECT ctid FROM {target.name} ORDER BY {target.anchor} LIMIT {random.randint(5, 60)} FOR UPDATE"
            rows = [row[0] for row in await connection.fetch(oldest)]
            await self._scene.sleep(random.uniform(0.3, 6))
            if random.random() < 0.5:
                await connection.execute(
                    f"UPDATE {target.name} SET {target.anchor} = {_now(target)} WHERE ctid = ANY($1)", rows
                )

    async def alter_table(self, action: Action) -> None:
        """An application's release changes a table, in a way that does not matter to anybody's term."""
        target = _target(action.random())
        async with self._world.connection(target.database) as connection:
            await connection.execute("SET lock_timeout = '2s'")
            there = await connection.fetchval(
                "SELECT count(*) FROM information_schema.columns WHERE table_name = $1 AND column_name = 'extra'",
                target.name,
            )
            what = "DROP COLUMN extra" if there else "ADD COLUMN extra int"
            await connection.execute(f"ALTER TABLE {target.name} {what}")

    async def new_accounts(self, action: Action) -> None:
        random = action.random()
        for _ in range(3):
            account = str(next(self._world.numbers))
            async with self._world.own("app", "new account") as connection:
                await connection.execute(
                    "INSERT INTO accounts (id, tier) VALUES ($1, $2)", int(account), random.choice(TIERS)
                )
            await self._scene.confirm(account, 1)
            self._scene.accounts.append(account)

    async def change_tier(self, action: Action) -> None:
        await self._account(action, "tier = $2", action.random().choice(TIERS + TIERS[1:]))

    async def delete_account(self, action: Action) -> None:
        """An account was deleted a grace ago, give or take a minute."""
        ago = timedelta(days=30) + timedelta(seconds=action.random().uniform(-90, 60))
        await self._account(action, "deleted_at = $2", datetime.now(UTC) - ago)

    async def undelete_account(self, action: Action) -> None:
        await self._account(action, "deleted_at = $2", None)

    # --- The operators' ---

    async def place_hold(self, action: Action) -> None:
        if len(await self._holds("active")) >= _MOST_HOLDS:
            await self.release_hold(action)
            return
        scope = await self._scope(action.random())
        await self._scene.hold(*scope)

    async def release_hold(self, action: Action) -> None:
        for hold in _one(await self._holds("active"), action):
            await self._scene.command("hold", "release", hold, "--reason", "r", fine=(0, 2, 4))

    async def reinstate_hold(self, action: Action) -> None:
        """Just released, and held on again."""
        for hold in _one(await self._holds("active"), action):
            if (await self._scene.command("hold", "release", hold, "--reason", "r", fine=(0, 2, 4))).code == 0:
                await self._scene.sleep(action.random().uniform(0, 10))
                await self._scene.command("hold", "reinstate", hold, "--reason", "r", fine=(0, 2, 4))

    async def pause(self, action: Action) -> None:
        if self._pausing.locked():
            return
        async with self._pausing:
            paused = await self._scene.command("pause")
            since = datetime.now(UTC)
            await self._scene.sleep(action.random().uniform(2, 8))
            until = datetime.now(UTC)
            while (await self._scene.command("resume")).code != 0:
                await asyncio.sleep(1)
            if paused.code == 0:
                self._scene.pauses.append(Pause(since, until))

    async def sweep(self, action: Action) -> None:
        """By hand, beside the daemons."""
        target = _target(action.random()).name
        await self._scene.command("sweep", "--target", target, "--json", fine=(0, 1, 3, 4))

    # --- What they are made of ---

    async def _change(self, target: Target, assignment: str, count: int) -> None:
        async with self._world.own(target.database, "change") as connection:
            await connection.execute(f"UPDATE {target.name} SET {assignment} WHERE {_some(target, count)}")

    async def _account(self, action: Action, assignment: str, value: object) -> None:
        account = action.random().choice(self._scene.accounts)
        async with self._world.own("app", "account") as connection:
            version = await connection.fetchval(
                f"UPDATE accounts SET {assignment}, version = version + 1 WHERE id = $1 RETURNING version",
                int(account),
                value,
            )
        await self._scene.confirm(account, version)

    async def _holds(self, state: str) -> list[str]:
        async with self._world.connection("control") as connection:
            rows = await connection.fetch("SELECT id FROM retentiond.holds WHERE state = $1 ORDER BY placed_at", state)
        return [row["id"] for row in rows]

    async def _scope(self, random: Random) -> list[str]:
        """Mostly narrow: under a hold on everything nothing happens."""
        accounts = [each for account in random.sample(self._scene.accounts, 3) for each in ("--account", account)]
        target = _target(random)
        kind = random.random()
        if kind < 0.5:
            return accounts
        if kind < 0.65:
            return [*accounts, "--target", target.name]
        if kind < 0.75:
            return [*accounts, "--class", target.class_]
        if kind < 0.9:
            since = datetime.now(UTC) - timedelta(days=random.uniform(31, 300))
            until = since + timedelta(days=random.uniform(1, 60))
            return ["--target", target.name, "--since", since.isoformat(), "--until", until.isoformat()]
        async with self._world.connection(target.database) as connection:
            columns = ", ".join(f"{name}::text" for name in target.key)
            rows = await connection.fetch(f"SELECT {columns} FROM {target.name} ORDER BY {target.anchor} LIMIT 40")
        keys = [row[0] if len(row) == 1 else json.dumps(list(row), separators=(",", ":")) for row in rows]
        return [each for key in keys for each in ("--record", f"{target.name}={key}")] or accounts


def _target(random: Random) -> Target:
    return random.choice(list(TARGETS.values()))


def _now(target: Target) -> str:
    """The anchor of a record that is used just now."""
    return "floor(extract(epoch FROM clock_timestamp()) * 1000)" if target.anchor == "at_ms" else "clock_timestamp()"


def _some(target: Target, count: int) -> str:
    """Rows by chance, a good part of them due: from the oldest third."""
    key = ", ".join(target.key)
    oldest = f"SELECT {key} FROM {target.name} ORDER BY {target.anchor} LIMIT 300"
    return f"({key}) IN (SELECT {key} FROM ({oldest}) o ORDER BY random() LIMIT {count})"


def _one(found: list[str], action: Action) -> list[str]:
    return [action.random().choice(found)] if found else []
