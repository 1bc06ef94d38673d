"""What `check` says of log groups, and what is said of what they erase by themselves."""

import json

import pytest

from retentiond.control import holds
from retentiond.stores.cloudwatch import inspect
from retentiond.sweep import native_expiry
from tests.services.log_groups import log_ground, prepared
from tests.services.s3_faults import Fault
from tests.services.strict_logs import strict


@pytest.fixture
async def ground(moto_server):
    async with log_ground(moto_server) as made:
        yield made


async def found(app):
    store = app.engine.stores["logs"]
    return [(each.severity, each.message, each.remedy) for each in await inspect.findings(store.ground(), None)]


async def native(app):
    async with app.database.transaction(read_only=True) as tx:
        known = (await holds.current(tx)).holds
    (each,) = await native_expiry.look(app.spec.targets, app.engine.stores, known, app.spec.rules)
    return each


async def test_a_target_in_order_has_no_finding(apart, ground, moto_server):
    await ground.stream("1", "s", 1)
    async with strict(moto_server) as proxy:
        subject = await prepared(apart, ground, endpoint_url=proxy.server.url, unfenced=False)
        async with subject.rig.app() as app:
            assert await found(app) == []
    assert await ground.streams() == [("1", "s")]


@pytest.mark.parametrize(("unfenced", "severity"), [(True, "warning"), (False, "error")])
async def test_an_endpoint_that_is_no_fence_is_said(apart, ground, unfenced, severity):
    await ground.stream("1", "s", 1)
    subject = await prepared(apart, ground, unfenced=unfenced)
    async with subject.rig.app() as app:
        ((told, message, remedy),) = await found(app)
    assert (told, "unfenced" in remedy) == (severity, True)
    assert "too old" in message


@pytest.mark.parametrize(
    "action",
    ["DescribeLogGroups", "DescribeLogStreams", "GetLogEvents", "DeleteLogStream", "DeleteRetentionPolicy",
     "PutRetentionPolicy"],
)  # fmt: skip
async def test_each_right_that_is_missing_is_named_and_nothing_is_changed(apart, ground, moto_server, action):
    await ground.stream("1", "s", 400)
    denied = json.dumps({"__type": "AccessDeniedException"}).encode()
    async with strict(moto_server) as proxy:
        subject = await prepared(apart, ground, endpoint_url=proxy.server.url, unfenced=False)
        fault = Fault("says", about=lambda asked: asked.action == action, status="400 Bad Request", body=denied)
        proxy.arm(*[fault] * 9)
        async with subject.rig.app() as app:
            told = await found(app)
    assert [each for each in told if each[0] == "error"], told
    assert all(f"logs:{action}" in each[1] + each[2] for each in told), told
    assert await ground.streams() == [("1", "s")]
    assert await ground.groups() == {"1": None}


async def test_a_target_without_groups_and_groups_that_dont_fit_are_said(apart, ground):
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        assert any("no log group fits" in message for _, message, _ in await found(app))
        await ground.stream("1/more", "s", 1)
        assert any("though 1 begin so" in message for _, message, _ in await found(app))
        await ground.stream("1", "s", 1)
        assert any("1 log groups begin as the target's" in message for _, message, _ in await found(app))


async def test_what_the_service_should_have_erased_long_ago_is_said(apart, ground):
    await ground.stream("1", "s", 40)
    await ground.retain("1", 30)
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        assert any("past their retention" in message for _, message, _ in await found(app))
        await ground.retain("1", 60)
        assert not any("past their retention" in message for _, message, _ in await found(app))


async def test_a_retention_under_a_hold_is_a_conflict_and_one_of_another_account_is_none(apart, ground):
    await ground.stream("1", "s", 1)
    await ground.stream("2", "s", 1)
    subject = await prepared(apart, ground)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("001",))
        await ground.retain("2", 2557)
        assert (await native(app)).conflicts == ()
        await ground.retain("1", 2557)
        (conflict,) = (await native(app)).conflicts
        assert "hold" in conflict.why
        assert all(ground.head not in each.message for each in (await native(app)).findings()), "it may name an account"


@pytest.mark.parametrize(
    ("days", "told"),
    [(None, []), (30, ["sooner"]), (90, []), (120, ["later"])],
)
async def test_a_retention_is_judged_by_the_term_of_the_groups_own_tier(apart, ground, days, told):
    await ground.stream("hobby", "s", 1)
    subject = await prepared(apart, ground, groups=ground.head + "{tier}")
    subject.rig.accounts["tier_map"] = {"hobby": "free"}
    if days is not None:
        await ground.retain("hobby", days)
    async with subject.rig.app() as app:
        assert [each.severity for each in (await native(app)).found] == told


async def test_one_that_is_shorter_than_a_legal_minimum_is_a_conflict(apart, ground):
    await ground.stream("1", "s", 1)
    await ground.retain("1", 365)
    subject = await prepared(apart, ground, **{"class": "audit_log"})
    async with subject.rig.app() as app:
        assert [each.severity for each in (await native(app)).conflicts] == ["conflict"]
    await subject.rig.only()
    async with subject.rig.app() as app:
        assert (await native(app)).found == ()
