"""One definition of the rules: the SQL derived from a plan and `judge` of the same plan agree on every record."""

import asyncio
import random
from dataclasses import dataclass, replace
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retentiond.domain.accounts import Surveyed, TierRules, account_hash
from retentiond.domain.holds import Hold, HoldState, Scope, covers_target
from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.domain.verdict import Kind, judge
from retentiond.stores.base import Way, Window
from retentiond.stores.postgres.config import AccountsConfig, PostgresTarget
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.store import PostgresStore
from services.rules import NOW, RAW_TIERS, SCOPES, accounts_of, anchors, policies

KEY = b"k" * 32

SCHEMA = """
DROP TABLE IF EXISTS logs; DROP TABLE IF EXISTS accounts;
CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb, changed timestamptz);
CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz, plan text);
CREATE INDEX ON logs (created_at); CREATE INDEX ON logs (account_id);
"""


async def prepare(connection, chance, policy):
    await connection.execute(SCHEMA)
    await connection.executemany("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5)", accounts_of(chance))
    rows = [
        (n, chance.choice([None, *range(1, 20)]), anchors(chance, policy), chance.choice(RAW_TIERS))
        for n in range(1, 121)
    ]
    await connection.executemany("INSERT INTO logs VALUES ($1, $2, $3::text::timestamptz, $4)", rows)


@dataclass(frozen=True)
class Setup:
    """Where the tier and the directory are, and what says that a tier changed."""

    tier_source: str = "directory"
    query: bool = False
    dated: bool = True


SETUPS = st.builds(
    Setup, st.sampled_from(["directory", "directory", "record", "constant", "none"]), st.booleans(), st.booleans()
)
QUERY = "SELECT id, tier, deleted_at, retention, changed FROM accounts"


async def remembered(dsn, chance, *, joined, dated):
    """What a survey would have found, had it been before some tiers changed and some accounts were lost."""
    connection = await asyncpg.connect(dsn)
    tiers = {str(row["id"]): row["tier"] for row in await connection.fetch("SELECT id, tier FROM accounts")}
    await connection.close()
    days = [1, 29, 30, 31, 400, 3000]
    missing = {account_hash(KEY, str(n)): NOW - timedelta(days=chance.choice(days)) for n in (*range(13, 18), 99)}
    seen = {
        account: chance.choice([tier, tier, *RAW_TIERS]) for account, tier in tiers.items() if chance.random() < 0.9
    }
    return Surveyed(
        recent=frozenset([] if dated else [account for account in tiers if chance.random() < 0.2]),
        tiers=None if dated or joined else seen,
        missing=missing if chance.random() < 0.8 else {},
        key=KEY,
    )


async def planned(dsn, directory_dsn, document, scopes, chance, setup):
    policy, faults = parse_policy(document, used_classes=frozenset(["logs"]))
    assert policy is not None, faults
    target = {"store": "postgres", "class": "logs", "dsn": dsn, "table": "logs", "anchor": "created_at"}
    directory = Directory(
        AccountsConfig(
            dsn=directory_dsn,
            table=None if setup.query else "accounts",
            query=QUERY if setup.query else None,
            deleted_at="deleted_at",
            overrides="retention",
            tier_changed_at="changed" if setup.dated else None,
            tier_map={"hobby": "free"},
        )
    )
    of_tier = {"record": {"tier_column": "plan"}, "constant": {"tier": "pro"}}.get(setup.tier_source, {})
    if setup.tier_source != "none":
        of_tier["account"] = "account_id"
    store = PostgresStore(
        "logs", PostgresTarget.model_validate({**target, **of_tier}), action="delete", space="t", secret=b"k"
    )
    await store.open(directory)
    joined = directory_dsn == dsn and await directory.joinable()
    plan = TargetPlan(
        "logs",
        policy.classes["logs"],
        policy,
        NOW,
        rules=TierRules({"hobby": "free"}),
        tier_source=setup.tier_source,
        tier=of_tier.get("tier"),
        knows_account=setup.tier_source != "none",
        groups=await store.groups("logs"),
        surveyed=await remembered(directory_dsn, chance, joined=joined, dated=setup.dated),
        schema=store.mark,
    )
    plan = replace(plan, missing=await store.missing(plan))
    holds = [
        await store.hold(Hold(str(n), "m", "r", scope, HoldState.ACTIVE, "x", NOW))
        for n, scope in enumerate(map(Scope.from_document, scopes))
        if covers_target(scope, target="logs", class_name="logs")
    ]
    return store, directory, replace(plan, holds=tuple(holds))


async def agree(dsn, directory_dsn, document, scopes, seed, setup):
    connection = await asyncpg.connect(dsn)
    try:
        await agree_over(connection, dsn, directory_dsn, document, scopes, seed, setup)
    finally:
        await connection.close()


async def agree_over(connection, dsn, directory_dsn, document, scopes, seed, setup):
    chance = random.Random(seed)
    await prepare(connection, chance, document)
    if directory_dsn != dsn:
        other = await asyncpg.connect(directory_dsn)
        await other.execute("DROP TABLE IF EXISTS accounts; " + SCHEMA.split(";")[2])
        rows = await connection.fetch("SELECT * FROM accounts")
        await other.executemany("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5)", [tuple(row) for row in rows])
        await connection.execute("DROP TABLE accounts")
        await other.close()
    store, directory, plan = await planned(dsn, directory_dsn, document, scopes, chance, setup)
    try:
        keys = [row["id"] for row in await connection.fetch("SELECT id FROM logs")]
        verdicts = {key: judge(plan, *await store.record(plan, str(key))) for key in keys}
        wanted = {key for key, verdict in verdicts.items() if verdict.kind is Kind.ERASE}
        selected = held = 0
        for number, walk in enumerate(store.walks(plan), 1):
            counted = await store.count(plan, Window(walk, None, 1000))
            selected += counted.selected
            held += counted.held
            await erase_all(store, plan, walk, number * 1000)
        left = {row["id"] for row in await connection.fetch("SELECT id FROM logs")}
        assert set(keys) - left == wanted, {key: verdicts[key] for key in (set(keys) - left) ^ wanted}
        assert selected == len(wanted)
        assert held >= sum(verdict.kind is Kind.HELD and verdict.due for verdict in verdicts.values())
    finally:
        await store.close()
        await directory.close()


async def erase_all(store, plan, walk, number):
    after, ways = None, (Way.QUICK, Way.CAREFUL)
    while True:
        number += 1
        async with store.batch(plan, number, ways[number % 2]) as batch:
            permit = Permit(number, Lease(Unit("logs"), "o", 1), 0, "", "b", NOW, NOW)
            found = await batch.erase(permit, Window(walk, after, 25), salt="s")
            await batch.commit()
        after = found.after
        if after is None:
            return


# No shrinking: each example makes a database, and a failure prints its policy, holds and seed as they are.
PROFILE = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    max_examples=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    print_blob=True,
)


@PROFILE
@given(document=policies(), scopes=st.lists(SCOPES, max_size=3), seed=st.integers(0, 2**32), setup=SETUPS)
def test_a_sweep_erases_exactly_what_the_verdict_says(postgres_server, document, scopes, seed, setup):
    dsn = asyncio.run(fresh(postgres_server.dsn(), "agree"))
    asyncio.run(agree(dsn, dsn, document, scopes, seed, setup))


@settings(PROFILE, max_examples=15)
@given(document=policies(), scopes=st.lists(SCOPES, max_size=2), seed=st.integers(0, 2**32), setup=SETUPS)
def test_it_does_so_on_the_newest_postgres_too(postgres18_server, document, scopes, seed, setup):
    dsn = asyncio.run(fresh(postgres18_server.dsn(), "agree"))
    asyncio.run(agree(dsn, dsn, document, scopes, seed, setup))


@settings(PROFILE, max_examples=25)
@given(document=policies(), scopes=st.lists(SCOPES, max_size=2), seed=st.integers(0, 2**32), setup=SETUPS)
def test_a_directory_in_another_database_gives_the_same_verdicts(postgres_server, document, scopes, seed, setup):
    dsn = asyncio.run(fresh(postgres_server.dsn(), "agree"))
    elsewhere = asyncio.run(fresh(postgres_server.dsn(), "agree_directory"))
    asyncio.run(agree(dsn, elsewhere, document, scopes, seed, setup))


async def fresh(dsn, name):
    connection = await asyncpg.connect(dsn)
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return dsn.rsplit("/", 1)[0] + "/" + name


@pytest.mark.parametrize("seed", [1, 2])
def test_the_generated_anchors_reach_every_kind(seed):
    chance = random.Random(seed)
    found = {anchors(chance, None) for _ in range(200)}
    assert {None, "infinity", "-infinity"} < found
