"""Retention as a ceiling: set under a permit, removed before a hold is active, and set again after its release."""

import asyncio
import json

import pytest

from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.desk import approving
from retentiond.domain.holds import HoldState, Scope
from retentiond.stores.cloudwatch import ceilings, store
from retentiond.stores.cloudwatch.pace import Pacer
from retentiond.sweep import enforced
from tests.contract.behaviours import killed
from tests.services.gates import looks
from tests.services.log_groups import log_ground, prepared
from tests.services.s3_faults import Fault, faulty

BY_TIER = {"groups": "{tier}"}


@pytest.fixture
async def ground(moto_server):
    async with log_ground(moto_server) as made:
        yield made


@pytest.fixture
async def subject(apart, ground):
    """Groups for tiers, with nothing due in them."""
    return await tiers(apart, ground)


async def tiers(apart, ground, **more):
    found = await prepared(apart, ground, groups=ground.head + "{tier}", **more)
    for tier in ("free", "pro", "enterprise", "other"):
        await ground.stream(tier, "a", 1)
    return found


async def placed(subject, **scope):
    async with subject.rig.app() as app:
        return await subject.rig.hold(app, **scope)


async def release(subject, hold):
    async with subject.rig.app() as app:
        record = app.hold_recorder("test")
        await holds.release(app.database, hold.id, "test", "over", grace_seconds=0, record=record)
        await holds.finish_releases(app.database, record=record)


async def remembered(subject):
    async with subject.rig.control_connection() as control:
        rows = await control.fetch("SELECT log_group, days FROM retentiond.log_retention ORDER BY 1")
    return {row["log_group"].removeprefix(subject.ground.head): row["days"] for row in rows}


def sets(asked):
    return asked.action == "PutRetentionPolicy"


async def test_each_group_gets_the_term_of_its_tier_rounded_up_and_the_ledger_says_so(subject):
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.ceilings) == ("drained", 0, {"90": 1, "365": 2, "2557": 1})
    assert await subject.ground.groups() == {"free": 90, "pro": 365, "enterprise": 365, "other": 2557}
    told = [entry for entry in await subject.rig.ledger() if entry["kind"] == "outcome"]
    assert [entry["retention"] for entry in told] == [{"90": 1, "365": 2, "2557": 1}]
    assert [entry["verified"] for entry in told] == ["retention read back"]
    assert told[0]["counts"]["erased"] == 0
    assert subject.ground.head not in json.dumps(told)
    await subject.rig.require_settled()
    assert (await subject.rig.only()).ceilings == {}


async def approve(subject):
    async with subject.rig.app() as app:
        return await approving.approve(app, "sweep", "logs", "test")


async def test_more_groups_than_the_guard_lets_pass_get_no_retention_unasked_though_nothing_is_due(subject):
    subject.rig.guards = {"max_fraction": 0.25}
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.error["guard"]) == ("guarded", "fraction")
    assert "4 of 4 groups" in outcome.error["message"]
    assert set((await subject.ground.groups()).values()) == {None}
    granted = await approve(subject)
    assert granted.bound == 4
    assert (await subject.rig.only()).ceilings == {"90": 1, "365": 2, "2557": 1}
    used = [each for each in await subject.rig.ledger() if each["kind"] == "approval" and each["event"] == "used"]
    assert [each["digest"].partition("/")[2] for each in used] == ["groups:4"]


async def test_groups_are_counted_once_however_many_windows_they_are_counted_in(subject, monkeypatch):
    monkeypatch.setattr(store, "MOST", 1)
    subject.rig.guards = {"max_fraction": 0.25}
    await subject.ground.retain("pro", 365)
    assert "3 of 4 groups, more than 1," in (await subject.rig.only()).error["message"]


async def test_what_was_approved_for_some_groups_lets_no_more_of_them_pass(subject):
    subject.rig.guards = {"max_fraction": 0.25}
    for name in ("pro", "enterprise"):
        await subject.ground.retain(name, 365)
    assert (await subject.rig.only()).outcome == "guarded"
    await approve(subject)
    await subject.ground.retain("pro", 3653)
    assert (await subject.rig.only()).outcome == "guarded"
    assert (await subject.ground.groups())["free"] is None


async def test_a_single_new_group_and_a_longer_retention_pass_the_guard(subject):
    subject.rig.guards = {"max_fraction": 0.1}
    for name in ("free", "enterprise", "pro"):
        await subject.ground.retain(name, 7)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.ceilings) == ("drained", {"90": 1, "365": 2, "2557": 1})


async def test_the_only_group_of_a_target_gets_no_retention_unasked(apart, ground):
    subject = await prepared(apart, ground)
    await subject.add(1, account="1", days=1)
    subject.rig.guards = {"max_fraction": 0.25}
    assert (await subject.rig.only()).outcome == "guarded"
    assert await ground.groups() == {"1": None}


async def test_what_a_released_hold_had_taken_away_is_given_back_unasked(subject):
    await subject.rig.only()
    subject.rig.guards = {"max_fraction": 0.25}
    await release(subject, await placed(subject, targets=("logs",)))
    assert (await subject.rig.only()).outcome == "drained"
    assert await subject.ground.groups() == {"free": 90, "pro": 365, "enterprise": 365, "other": 2557}


async def test_more_groups_that_shorten_after_the_guard_has_counted_stop_the_sweep(subject, monkeypatch):
    subject.rig.guards = {"max_fraction": 0.25}
    for name, days in (("free", 365), ("pro", 365), ("enterprise", 365), ("other", 2557)):
        await subject.ground.retain(name, days)
    whole = enforced.backlog

    async def counted(*args):
        allowance = await whole(*args)
        for name in ("free", "pro", "enterprise"):
            await subject.ground.retain(name, 3653)
        return allowance

    monkeypatch.setattr(enforced, "backlog", counted)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.ceilings) == ("guarded", 0, {})
    assert set((await subject.ground.groups()).values()) == {3653, 2557}


async def test_a_plan_counts_what_would_be_set_and_sets_nothing(subject):
    outcome = await subject.rig.only(mode="plan")
    assert outcome.ceilings == {"90": 1, "365": 2, "2557": 1}
    assert set((await subject.ground.groups()).values()) == {None}


async def test_left_alone_it_stays_as_somebody_has_set_it(apart, ground):
    subject = await tiers(apart, ground, retention="leave")
    await ground.retain("free", 7)
    assert (await subject.rig.only()).ceilings == {}
    assert await ground.groups() == {"free": 7, "pro": None, "enterprise": None, "other": None}


async def test_one_that_is_shorter_than_the_term_is_made_longer(subject):
    await subject.ground.retain("free", 7)
    await subject.rig.only()
    assert (await subject.ground.groups())["free"] == 90


async def test_for_ever_means_none_and_takes_one_away(apart, ground):
    subject = await tiers(apart, ground, **{"class": "generated_artifacts"})
    await ground.retain("enterprise", 30)
    assert (await subject.rig.only()).ceilings == {"30": 1, "365": 1, "never": 1}
    assert await ground.groups() == {"free": 30, "pro": 365, "enterprise": None, "other": None}


async def test_where_the_account_may_set_a_term_of_its_own_that_bounds_it_whatever_the_directory_says(apart, ground):
    """The account is on the free plan now, and may be on another in an hour."""
    subject = await prepared(apart, ground)
    await subject.add(1, account="1", days=1)
    await subject.rig.only()
    assert await ground.groups() == {"1": 2557}


async def test_a_term_that_counts_from_an_accounts_deletion_has_no_ceiling(apart, ground):
    subject = await prepared(apart, ground, **{"class": "account_data"})
    await subject.add(1, days=1)
    await ground.retain("1", 30)
    await subject.rig.only()
    assert await ground.groups() == {"1": None}


# --- Holds ---


async def test_a_hold_removes_the_retention_before_it_is_active_and_its_release_gives_it_back(subject):
    await subject.rig.only()
    hold = await placed(subject, targets=("logs",))
    assert set((await subject.ground.groups()).values()) == {None}
    assert await remembered(subject) == {"free": 90, "pro": 365, "enterprise": 365, "other": 2557}
    assert (await subject.rig.only()).ceilings == {}
    await release(subject, hold)
    assert set((await subject.ground.groups()).values()) == {None}, "that is erasing, and takes a permit"
    await subject.rig.only()
    assert await subject.ground.groups() == {"free": 90, "pro": 365, "enterprise": 365, "other": 2557}
    assert await remembered(subject) == {}


async def test_after_the_release_the_policy_of_then_decides(subject):
    await subject.rig.only()
    hold = await placed(subject, targets=("logs",))
    await release(subject, hold)
    subject.rig.policy = {"classes": {"operational_logs": {"ttl": {"free": "P100D"}}}}
    await subject.rig.only()
    assert (await subject.ground.groups())["free"] == 120


async def test_left_alone_a_hold_removes_it_all_the_same_and_the_release_sets_it_as_it_was(apart, ground):
    subject = await tiers(apart, ground, retention="leave")
    await ground.retain("free", 7)
    await subject.rig.only()
    hold = await placed(subject, everything=True)
    assert (await ground.groups())["free"] is None
    assert await remembered(subject) == {"free": 7}
    await release(subject, hold)
    await subject.rig.only()
    assert await ground.groups() == {"free": 7, "pro": None, "enterprise": None, "other": None}
    assert await remembered(subject) == {}


async def test_what_the_law_keeps_is_not_given_back_too_short(apart, ground):
    subject = await tiers(apart, ground, retention="leave", **{"class": "audit_log"})
    await ground.retain("free", 30)
    await subject.rig.only()
    hold = await placed(subject, everything=True)
    await release(subject, hold)
    await subject.rig.only()
    assert (await ground.groups())["free"] == 2557


@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        ({"accounts": ("001",)}, {"1"}),
        ({"records": {"logs": ("HEAD1:000001",)}}, {"1"}),
        ({"records": {"logs": ("HEAD2",)}}, {"2"}),
        ({"prefixes": {"logs": ("HEAD2:0000",)}}, {"2"}),
        ({"classes": ("audit_log",)}, set()),
    ],
)
async def test_a_hold_removes_it_from_the_groups_that_it_bears_on_alone(apart, ground, scope, kept):
    subject = await prepared(apart, ground)
    await subject.add(1, account="1", days=1)
    await subject.add(2, account="2", days=1)
    await subject.rig.only()
    named = json.loads(json.dumps(scope).replace("HEAD", ground.head))
    await placed(subject, **{k: tuple(v) if isinstance(v, list) else v for k, v in named.items()})
    assert {group for group, days in (await ground.groups()).items() if days is None} == kept
    assert (await subject.rig.only()).ceilings == {}


async def test_a_hold_whose_retention_cant_be_removed_stays_pending_and_says_why(apart, ground, moto_server):
    async with faulty(moto_server) as proxy:
        subject = await tiers(apart, ground)
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        await subject.rig.only()
        denied = json.dumps({"__type": "AccessDeniedException"}).encode()
        about = lambda asked: asked.action == "DeleteRetentionPolicy"  # noqa: E731
        proxy.arm(Fault("says", about=about, status="400 Bad Request", body=denied))
        async with subject.rig.app() as app:
            draft = HoldDraft(matter="m", reason="r", scope=Scope(targets=("logs",)))
            await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
            why = []
            told = lambda _, reasons: why.extend(reasons)  # noqa: E731
            assert await app.activate_holds(app.hold_recorder("test"), told) == []
            assert "logs:DeleteRetentionPolicy" in why[0].detail
            assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
        assert set((await ground.groups()).values()) == {None}


async def test_what_somebody_sets_under_a_hold_is_removed_again_and_said(subject):
    await subject.rig.only()
    await placed(subject, targets=("logs",))
    await subject.ground.retain("free", 1)
    async with subject.rig.app() as app, app.database.transaction(read_only=True) as tx:
        known = await holds.list_all(tx)
        native = app.native["logs"]
        assert [each.severity for each in await native.findings(known)] == ["error"]
        assert await native.settle(known) == {}
        assert native.mended
        assert await native.findings(known) == []
    assert (await subject.ground.groups())["free"] is None
    assert (await remembered(subject))["free"] == 90, "what it was before the first hold"


async def test_a_batch_from_before_a_hold_that_takes_effect_late_leaves_no_retention_under_it(
    apart, ground, moto_server
):
    """The service got the request, and carries it out when the hold has removed the retention and waits."""
    async with faulty(moto_server) as proxy:
        subject = await tiers(apart, ground)
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        await ground.retain("free", 7)
        proxy.arm(Fault("late", about=sets))
        sweep = asyncio.create_task(subject.rig.only())
        async for _ in looks("nothing is set"):
            if any(map(sets, proxy.seen)):
                break
        sweep.cancel()
        with killed():
            await sweep
        async with subject.rig.app() as app:
            draft = HoldDraft(matter="m", reason="r", scope=Scope(targets=("logs",)))
            hold = await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
            why = []
            told = lambda _, reasons: why.extend(reasons)  # noqa: E731
            assert await app.activate_holds(app.hold_recorder("test"), told) == []
            assert any("batch from before" in each.detail for each in why)
            await proxy.release()
            assert set((await ground.groups()).values()) != {None}
            await subject.let_time_pass()
            assert [each.id for each in await app.activate_holds(app.hold_recorder("test"))] == [hold.id]
            async with app.database.transaction(read_only=True) as tx:
                assert (await holds.get(tx, hold.id)).state is HoldState.ACTIVE
        assert set((await ground.groups()).values()) == {None}
        await subject.rig.only()
        assert set((await ground.groups()).values()) == {None}
        await subject.rig.require_settled()


async def test_a_batch_whose_worker_died_around_its_effect_is_looked_at_and_told(subject, monkeypatch):
    whole = ceilings.set_all

    async def dying(*args):
        await whole(*args)
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(ceilings, "set_all", dying)
        with killed():
            await subject.rig.only()
    await subject.let_time_pass()
    await subject.rig.only()
    told = [entry["retention"] for entry in await subject.rig.ledger() if entry["kind"] == "outcome"]
    assert told == [{"90": 1, "365": 2, "2557": 1}]
    await subject.rig.require_settled()


async def test_where_it_may_not_be_set_the_sweep_fails_and_names_the_right(apart, ground, moto_server):
    async with faulty(moto_server) as proxy:
        subject = await tiers(apart, ground)
        subject.rig.targets["logs"]["endpoint_url"] = proxy.server.url
        denied = json.dumps({"__type": "AccessDeniedException"}).encode()
        proxy.arm(Fault("says", about=sets, status="400 Bad Request", body=denied))
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.failed) == ("failed", 1)
        assert "logs:PutRetentionPolicy" in outcome.error["remedy"]
        assert outcome.ceilings == {"90": 1, "365": 1, "2557": 1}


async def test_more_groups_than_a_permits_life_allows_are_set_in_several_batches(apart, ground, monkeypatch):
    pace = {"records_per_second": 0.2, "duty": 1.0, "batch_seconds": 5.0}
    subject = await tiers(apart, ground, pace=pace)
    monkeypatch.setattr(Pacer, "take", lambda _: asyncio.sleep(0))
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.batches) == ("drained", 2)
    assert outcome.ceilings == {"90": 1, "365": 2, "2557": 1}


async def test_what_was_removed_is_given_back_also_where_the_names_of_groups_are_written_otherwise_by_then(
    apart, ground
):
    subject = await tiers(apart, ground, retention="leave")
    await ground.retain("free", 7)
    await subject.rig.only()
    hold = await placed(subject, everything=True)
    await release(subject, hold)
    subject.rig.targets["logs"]["groups"] = ground.head + "{name}"
    await subject.rig.approve_policy()
    await subject.rig.only()
    assert (await ground.groups())["free"] == 7


async def test_a_hold_on_an_account_that_tags_name_removes_it_from_those_groups_alone(apart, ground):
    for name, owner in (("a", "1"), ("b", "2"), ("c", None)):
        tags = {"owner": owner} if owner else {}
        await ground.client.create_log_group(logGroupName=ground.head + name, tags=tags)
        await ground.stream(name, "s", 1)
        await ground.retain(name, 2557)
    subject = await prepared(apart, ground, groups=ground.head + "{name}", tags={"account": "owner"})
    await subject.rig.only()
    await placed(subject, accounts=("001",))
    assert await ground.groups() == {"a": None, "b": 2557, "c": None}, "whose c is can't be told"


async def test_a_group_that_is_gone_is_forgotten(subject):
    await subject.rig.only()
    hold = await placed(subject, targets=("logs",))
    await subject.ground.client.delete_log_group(logGroupName=f"{subject.ground.head}free")
    await release(subject, hold)
    async with subject.rig.app() as app, app.database.transaction(read_only=True) as tx:
        known = await holds.list_all(tx)
        await app.native["logs"].settle(known)
        (waiting,) = await app.native["logs"].findings(known)
    assert "3 log groups" in waiting.message
    assert "free" not in await remembered(subject)


async def test_a_hold_that_removes_it_again_while_a_batch_gives_it_back_loses_nothing_of_what_it_was(
    apart, ground, monkeypatch
):
    """The batch has its answer, and stands still before it forgets what it has given back."""
    subject = await tiers(apart, ground, retention="leave")
    await ground.retain("free", 7)
    await subject.rig.only()
    await release(subject, await placed(subject, everything=True))
    whole, placing = ceilings.destroy, []

    async def destroy(sent, action, body):
        done = await whole(sent, action, body)
        if not placing:
            async with subject.rig.app(enter=False) as app:
                draft = HoldDraft(matter="m", reason="r", scope=Scope(everything=True))
                placing.append(await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test")))
                assert await app.activate_holds(app.hold_recorder("test")) == []
        return done

    monkeypatch.setattr(ceilings, "destroy", destroy)
    await subject.rig.only()
    assert (await ground.groups())["free"] is None, "the step removes it at once, and waits all the same"
    assert await remembered(subject) == {"free": 7}
    async with subject.rig.app() as app:
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    await release(subject, placing[0])
    await subject.rig.only()
    assert (await ground.groups())["free"] == 7
