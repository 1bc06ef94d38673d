"""A target is not looked at before something of it can be due, unless what its verdicts rest on has changed."""

from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import holds, units
from retentiond.domain.duration import instant
from retentiond.domain.permit import Unit
from tests.contract.test_keepsake import subject  # noqa: F401 - a fixture

DAY = timedelta(days=1)


@pytest.fixture
async def resting(subject):  # noqa: F811
    """A target with nothing due that has been swept, and whose server's calls are counted from now on."""
    await subject.records(due=3, young=3)
    await subject.add(2001, account="2", days=200)
    assert (await subject.rig.only()).changed == 3
    assert (await subject.rig.only()).changed == 0
    subject.server.calls.clear()
    return subject


async def state(subject):  # noqa: F811
    async with subject.rig.app() as app, app.database.transaction() as tx:
        return await units.state(tx, Unit("logs"))


async def test_a_target_with_nothing_due_is_not_asked_at_all(resting):
    outcome = await resting.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.requests) == ("drained", 0, 0)
    assert resting.server.calls == []
    again = await resting.rig.only()
    assert again.outcome == "drained"
    assert resting.server.calls == []


async def test_it_rests_no_longer_than_a_day_and_is_due_again_before(resting):
    """What comes in for an erased account, or with an old date, is due at once, and no basis tells of it."""
    kept = await state(resting)
    until = instant(kept.outcome["rest"]["until"])
    assert until - datetime.now(UTC) <= DAY
    await resting.rig.only()
    kept = await state(resting)
    assert instant(kept.outcome["rest"]["until"]) == until, "each look at the clock does not make it longer"
    assert kept.next_due_at <= datetime.now(UTC) + timedelta(hours=6), "the account directory is looked at before that"


async def test_it_rests_until_the_first_of_its_records_can_be_due(subject):  # noqa: F811
    await subject.add(1, days=89.5)
    await subject.rig.only()
    until = instant((await state(subject)).outcome["rest"]["until"])
    assert timedelta(hours=11) < until - datetime.now(UTC) <= DAY / 2


async def test_it_rests_no_longer_than_the_shortest_term_for_what_may_come_in(subject):  # noqa: F811
    terms = {"free": "PT6H", "pro": "P365D", "enterprise": "P365D"}
    subject.rig.policy = {"classes": {"operational_logs": {"ttl": terms}}}
    subject.rig.guards["allow_short_ttl"] = True
    await subject.add(1, account="2", days=1)
    await subject.rig.only()
    until = instant((await state(subject)).outcome["rest"]["until"])
    assert until - datetime.now(UTC) <= DAY / 4


async def test_what_the_last_sweep_kept_is_still_said(subject):  # noqa: F811
    await subject.records(due=4)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("1",))
    assert (await subject.rig.only()).held == 4
    subject.server.calls.clear()
    assert (await subject.rig.only()).held == 4
    assert subject.server.calls == []


CHANGES = {
    "an account is deleted": "UPDATE accounts SET deleted_at = now() - interval '60 days' WHERE id = 2",
    "an account is downgraded": "UPDATE accounts SET tier = 'free' WHERE id = 2",
    "an account has its own term": 'UPDATE accounts SET retention = \'{"operational_logs": "P400D"}\' WHERE id = 3',
    "an account is new": "INSERT INTO accounts VALUES (9, 'free')",
    "an account is gone": "DELETE FROM accounts WHERE id = 2",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_it_is_looked_at_again_when(resting, change):
    await resting.rig.db.execute(CHANGES[change])
    await resting.rig.only()
    assert "list" in resting.server.calls
    resting.server.calls.clear()
    await resting.rig.only()
    assert resting.server.calls == [], "and rests again by what it has found"


async def test_an_account_whose_grace_of_deletion_ends_wakes_it(subject):  # noqa: F811
    await subject.rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '29 days 20 hours' WHERE id = 1")
    await subject.add(1, days=1)
    await subject.rig.only()
    until = instant((await state(subject)).outcome["rest"]["until"])
    assert until - datetime.now(UTC) <= timedelta(hours=4)


async def test_a_released_hold_wakes_it(subject):  # noqa: F811
    await subject.records(due=4)
    async with subject.rig.app() as app:
        hold = await subject.rig.hold(app, accounts=("1",))
    await subject.rig.only()
    async with subject.rig.app() as app:
        record = app.hold_recorder("test")
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0, record=record)
        await holds.finish_releases(app.database, record=record)
    assert (await subject.rig.only()).changed == 4


async def test_another_policy_wakes_it(resting):
    resting.rig.policy = {
        "classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P100D", "enterprise": "P365D"}}}
    }
    await resting.rig.approve_policy()
    assert (await resting.rig.only()).changed == 1
    assert await resting.left() == {1001, 1002, 1003}


async def test_a_permit_without_an_outcome_wakes_it(resting):
    async with resting.rig.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.permits SET ended_at = NULL, outcome = NULL, prepared = NULL"
            " WHERE number = (SELECT max(number) FROM retentiond.permits)"
        )
    await resting.let_time_pass()
    await resting.rig.only()
    assert resting.server.calls
    await resting.rig.require_settled()


async def test_another_version_of_this_program_wakes_it(resting, monkeypatch):
    """What it judged wrong before it may judge right now."""
    monkeypatch.setattr("retentiond.sweep.rest.__version__", "99.0")
    await resting.rig.only()
    assert "list" in resting.server.calls


async def test_a_clock_that_has_gone_back_wakes_it(resting):
    """Until the instant at which it would be looked at again may be years else."""
    async with resting.rig.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.units SET outcome = jsonb_set(outcome, '{rest,until}', to_jsonb('2120-01-01T00:00:00Z'::text))"
        )
    await resting.rig.only()
    assert "list" in resting.server.calls


async def test_it_does_not_rest_by_what_the_directory_said_for_a_moment(subject):  # noqa: F811
    """As a replica that lags: an account's records are kept by it, and due by what is said before and after."""
    for key in (1, 2):
        await subject.add(key, days=100)

    async def upgrade():
        await subject.rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 1")

    with subject.meanwhile(upgrade):
        assert (await subject.rig.only()).changed == 0
    await subject.rig.db.execute("UPDATE accounts SET tier = 'free' WHERE id = 1")
    assert (await subject.rig.only()).changed == 2


async def test_a_sweep_that_could_not_erase_all_does_not_rest(subject):  # noqa: F811
    await subject.records()
    subject.server.ahead = 50
    assert (await subject.rig.only()).outcome == "capped"
    assert (await state(subject)).outcome["rest"] is None


async def test_when_its_time_has_come_it_is_swept(resting):
    async with resting.rig.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.units SET outcome = jsonb_set(outcome, '{rest,until}', to_jsonb('2020-01-01T00:00:00Z'::text))"
        )
    await resting.add(5)
    assert (await resting.rig.only()).changed == 1
