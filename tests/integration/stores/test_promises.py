"""The oldest record of each tier, whatever walk finds it, and the rows that `promises` makes of targets."""

from datetime import timedelta

import asyncpg
import pytest

from retentiond.desk.promises import beyond, promised
from retentiond.desk.targets import Broken
from retentiond.domain.duration import instant
from retentiond.errors import Unreachable
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.plans import count_due
from retentiond.sweep.spec import Target
from tests.integration.stores.test_counting import ACCOUNTS, NOW, opened

TIERS = ("free", "pro")


@pytest.fixture
async def connection(database):
    found = await asyncpg.connect(database)
    await found.execute(ACCOUNTS + "CREATE TABLE logs (id int PRIMARY KEY, account bigint, at timestamptz)")
    yield found
    await found.close()


async def insert(connection, *rows):
    for number, (account, days) in enumerate(rows):
        await connection.execute("INSERT INTO logs VALUES ($1, $2, $3)", number, account, NOW - timedelta(days=days))


async def stands(database, class_name="logs"):
    async with opened(database, class_name) as (store, plan):
        outcome = await count_due(store, plan, Outcome())
        return plan, await beyond(store, plan, outcome, TIERS)


def days(promise):
    return {tier: (NOW - instant(oldest)).days for tier, oldest in promise.oldest.items()}


async def test_the_oldest_of_a_tier_is_found_before_and_beyond_the_horizon(connection, database):
    await connection.execute("CREATE INDEX ON logs (at)")
    await insert(connection, (1, 200), (1, 10), (2, 40), (2, 20))
    _, promise = await stands(database)
    assert (days(promise), promise.known) == ({"free": 200, "pro": 40}, True)


async def test_a_young_record_of_an_account_due_for_erasure_does_not_pass_for_its_tier_s_oldest(connection, database):
    await connection.execute("CREATE INDEX ON logs (at)")
    await insert(connection, (3, 5), (1, 60), (2, 400))
    _, promise = await stands(database)
    assert days(promise) == {"free": 60, "pro": 400}


async def test_a_class_counted_from_deletion_is_as_old_as_any_of_its_records(connection, database):
    await connection.execute("CREATE INDEX ON logs (at)")
    await insert(connection, (1, 900), (2, 5), (3, 300))
    _, promise = await stands(database, "account_data")
    assert (days(promise), promise.known) == ({"free": 900, "pro": 5}, True)
    assert (promise.tiers["free"].due, "pro" in promise.tiers) == (1, False)


async def test_without_an_index_the_look_beyond_is_not_taken_and_it_is_not_known(connection, database):
    await insert(connection, (1, 200), (2, 40))
    _, promise = await stands(database)
    assert (days(promise), promise.known) == ({"free": 200}, False)


async def test_rows_add_up_all_targets_of_a_class_and_do_not_claim_to_know_what_one_did_not_tell(connection, database):
    await connection.execute("CREATE INDEX ON logs (at)")
    await insert(connection, (1, 200), (2, 40), (None, 100))
    plan, promise = await stands(database)
    targets = [Target(name, "postgres", plan.data_class, "delete", "directory") for name in ("one", "two")]

    def rows(two):
        found = promised(plan.policy, ["logs", "law"], targets, {"one": promise, "two": two})
        return {(row["class"], row["tier"]): row for row in found}

    both = rows(promise)
    assert (both["logs", "free"]["overdue"], both["logs", "free"]["kept"]) == (2, False)
    assert (both["logs", "pro"]["kept"], both["logs", "pro"]["oldest_age_days"]) == (True, 40.0)
    assert (both["logs", "none"]["term"], both["logs", "none"]["overdue"]) == ("P90D", 2)
    assert (both["law", "free"]["targets"], both["law", "free"]["kept"]) == ([], None)
    one = rows(Broken(Unreachable("away")))
    assert (one["logs", "free"]["kept"], one["logs", "pro"]["kept"]) == (False, None)
    assert (one["logs", "pro"]["oldest"], one["logs", "pro"]["oldest_known"]) == (None, False)
