"""One definition of what a hold covers: a database keeps natively just the records that `judge` calls held."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.domain.verdict import Kind, judge
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.native import NativeHolds
from retentiond.stores.postgres.store import PostgresStore
from tests.integration.stores.test_sql_and_verdict_agree import fresh
from tests.services.native import HELD

START = datetime(2024, 10, 26, 20, 0, tzinfo=UTC)
"""The clocks of Dublin go back a few hours later."""
POLICY = {"tiers": ["free"], "classes": {"logs": {"ttl": "P90D"}}}
ZONES = ["UTC", "Pacific/Chatham", "America/Los_Angeles", "Europe/Dublin"]


@dataclass(frozen=True)
class Kindred:
    """A kind of table: types of its columns, and how the anchor is read."""

    key: str
    account: str
    anchor: str
    more: dict = field(default_factory=dict)

    def anchor_of(self, moment):
        if self.anchor in ("bigint", "numeric", "double precision"):
            return str(int(moment.timestamp()))
        return moment.replace(tzinfo=None).isoformat() if self.anchor != "timestamptz" else moment.isoformat()


TABLES = st.sampled_from(
    [
        Kindred("bigint", "bigint", "timestamptz"),
        Kindred("text", "text", "timestamp", {"timezone": "Europe/Dublin"}),
        Kindred("numeric", "uuid", "date", {"timezone": "America/New_York"}),
        Kindred("timestamptz", "kinds.code", "bigint", {"unit": "s"}),
        Kindred("kinds.code", "varchar(40)", "numeric", {"unit": "s"}),
        Kindred("double precision", "numeric", "double precision", {"unit": "s"}),
        Kindred("bytea", "bigint", "timestamptz", {"key": ["id", "account_id"]}),
        Kindred("date", "integer", "timestamptz", {"key": ["id", "account_id"]}),
    ]
)


def value(kind, number):
    """The text of a value of that type, not always its canonical one."""
    return {
        "uuid": f"AAAAAAAA-0000-0000-0000-{number:012d}",
        "kinds.code": f"name{number}",
        "numeric": f"{number}.50",
        "timestamptz": (START + timedelta(hours=number)).isoformat(),
        "date": (START + timedelta(days=number)).date().isoformat(),
        "bytea": f"\\x{number:04x}",
        "double precision": f"{number}.1",
    }.get(kind, f"{number:03d}" if kind in ("bigint", "integer") else f"it's \\{number}")


def scopes(chance, table):
    """A scope over some of the records: by account, record, prefix, time, or all of these."""
    found = {}
    if chance.random() < 0.4:
        many = 150 if chance.random() < 0.3 else 0  # a long list is told in another place
        found["accounts"] = [value(table.account, n) for n in [*chance.sample(range(1, 6), 2), *range(50, 50 + many)]]
    if chance.random() < 0.3:
        found["until"] = (START + timedelta(hours=chance.randrange(8))).isoformat()
    if chance.random() < 0.3:
        found["since"] = (START + timedelta(hours=chance.randrange(-8, 0))).isoformat()
    if chance.random() < 0.3 and "key" not in table.more:
        many = 150 if chance.random() < 0.3 else 0
        found["records"] = {
            "logs": [value(table.key, n) for n in [*chance.sample(range(1, 40), 9), *range(50, 50 + many)]]
        }
    if chance.random() < 0.2:
        found["prefixes"] = {"logs": [chance.choice(["1", "2024-10-2", "it's \\2", "name3", '["\\\\x00'])]}
    return Scope.from_document(found or {"everything": True})


async def prepare(connection, chance, table):
    composite = ", ".join(table.more.get("key", ["id"]))
    await connection.execute(
        "DROP SCHEMA IF EXISTS retentiond_holds CASCADE; DROP TABLE IF EXISTS logs;"
        f" DROP SCHEMA IF EXISTS kinds CASCADE; CREATE SCHEMA kinds; CREATE DOMAIN kinds.code AS text; CREATE TABLE logs (id {table.key}, account_id {table.account},"
        f" created_at {table.anchor}, PRIMARY KEY ({composite}))"
    )
    for number in range(1, 40):
        account = "key" in table.more or chance.random() < 0.9
        moment = START + timedelta(minutes=chance.randrange(-600, 600))
        anchor = table.anchor_of(moment) if chance.random() < 0.9 else None
        if table.anchor in ("timestamptz", "timestamp", "date") and chance.random() < 0.05:
            anchor = "infinity"
        await connection.execute(
            f"INSERT INTO logs VALUES ($1::text::{table.key}, $2::text::{table.account}, $3::text::{table.anchor})",
            value(table.key, number),
            value(table.account, chance.randrange(1, 6)) if account else None,
            anchor,
        )


async def refusals(dsn, zone):
    """The places of the rows whose DELETE is refused, in a session with settings of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"SET TimeZone = '{zone}'; SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'")
        found = set()
        for row in await connection.fetch("SELECT ctid::text AS place FROM logs"):
            await connection.execute("BEGIN")
            try:
                await connection.execute(f"DELETE FROM logs WHERE ctid = '{row['place']}'")
            except asyncpg.PostgresError as error:
                assert error.sqlstate == HELD, error
                found.add(row["place"])
            await connection.execute("ROLLBACK")
        return found
    finally:
        await connection.close()


async def agree(dsn, table, seed):
    chance = random.Random(seed)
    connection = await asyncpg.connect(dsn)
    config = {"store": "postgres", "class": "logs", "dsn": dsn, "table": "logs", "anchor": "created_at"}
    target = PostgresTarget.model_validate(config | {"account": "account_id", "native_holds": True} | table.more)
    store = PostgresStore("logs", target, action="delete", space="t", secret=b"k")
    try:
        await prepare(connection, chance, table)
        await store.open(None)
        placed = [
            Hold(str(n), "m", "r", scopes(chance, table), HoldState.ACTIVE, "x", START)
            for n in range(chance.choice([1, 1, 2, 3]))
        ]
        assert await NativeHolds(store, "logs").settle(placed) == {}
        policy, faults = parse_policy(POLICY, used_classes=frozenset(["logs"]))
        assert policy is not None, faults
        plan = TargetPlan("logs", policy.classes["logs"], policy, START, has_directory=False)
        plan = replace(plan, holds=tuple([await store.hold(hold) for hold in placed]))
        wanted = set()
        async with store.transaction() as reading:
            rows = await reading.fetch(f"SELECT ctid::text AS place, {store.shape.key_of('r')} AS key FROM logs r")
        for row in rows:
            record, _ = await store.record(plan, row["key"])
            if judge(plan, record, AccountFacts()).kind is Kind.HELD:
                wanted.add(row["place"])
        assert await refusals(dsn, chance.choice(ZONES)) == wanted, placed
        return len(wanted)
    finally:
        await store.close()
        await connection.close()


PROFILE = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    print_blob=True,
)


@PROFILE
@given(table=TABLES, seed=st.integers(0, 2**32))
def test_a_database_keeps_just_what_the_verdict_calls_held(postgres_server, table, seed):
    asyncio.run(agree(asyncio.run(fresh(postgres_server.dsn(), "agree_native")), table, seed))


@settings(PROFILE, max_examples=10)
@given(table=TABLES, seed=st.integers(0, 2**32))
def test_the_newest_postgres_does_so_too(postgres18_server, table, seed):
    asyncio.run(agree(asyncio.run(fresh(postgres18_server.dsn(), "agree_native")), table, seed))


@pytest.mark.parametrize("table", TABLES.elements, ids=lambda table: f"{table.key}-{table.anchor}")
def test_of_each_kind_of_table_some_are_held_and_some_are_not(postgres_server, table):
    """So that the agreement above is no agreement about nothing."""
    dsn = asyncio.run(fresh(postgres_server.dsn(), "agree_native"))
    found = {asyncio.run(agree(dsn, table, seed)) for seed in range(6)}
    assert any(0 < held < 39 for held in found)
