"""The contract of a store whose deletions run later, kept by one of a few lines: batches, holds, and the following."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from uuid import uuid4

import pytest

from retentiond import daemon_spec
from retentiond.control import holds, requests
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon_jobs import Jobs
from retentiond.daemon_watch import Watch
from retentiond.domain.holds import Scope
from retentiond.metrics import Metrics
from retentiond.stores import registry
from retentiond.stores.deferred.batch import DeferredBatch
from retentiond.sweep.following import follow
from tests.contract.behaviours import Contract, Subject, killed
from tests.contract.postbox import SERVERS, Line, PostboxTarget, Server, postbox
from tests.services.gates import looks
from tests.services.sweeping import ACCOUNTS, let_permits_age


class DeferredSubject(Subject):
    """What is alike for every such store: what happens to its batches."""

    @contextmanager
    def meanwhile(self, work):
        whole, done = DeferredBatch.intended, []

        async def intended(batch, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(batch, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DeferredBatch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self, seconds=3600):
        async with self.rig.control_connection() as control:
            await let_permits_age(control, seconds)


class PostboxSubject(DeferredSubject):
    """Lines of a server in memory."""

    def __init__(self, rig, server):
        super().__init__(rig)
        self.server = server

    async def add(self, key, *, account="1", days=400):
        self.server.lines[key] = Line(account, datetime.now(UTC) - timedelta(days=days))

    async def left(self):
        return set(self.server.lines)

    @contextmanager
    def dying(self, at):
        async def die():
            raise asyncio.CancelledError

        name = f"{at}_submit"
        setattr(self.server, name, die)
        yield
        setattr(self.server, name, None)


@pytest.fixture
async def subject(apart, monkeypatch):
    kind = daemon_spec.Kind(
        lambda config, others: daemon_spec.Facts(has_account=True, has_tier=False),
        lambda config, target, shared: postbox(target.name, config, target.action),
    )
    monkeypatch.setattr(
        registry, "CONFIG_MODELS", MappingProxyType({**registry.CONFIG_MODELS, "postbox": PostboxTarget})
    )
    monkeypatch.setattr(daemon_spec, "KINDS", MappingProxyType({**daemon_spec.KINDS, PostboxTarget: kind}))
    name = f"server-{uuid4().hex[:8]}"
    SERVERS[name] = Server()
    await apart.db.execute(ACCOUNTS)
    apart.targets["logs"] = {
        "store": "postbox",
        "server": name,
        "class": "operational_logs",
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
    }
    yield PostboxSubject(apart, SERVERS[name])
    del SERVERS[name]


class TestPostbox(Contract):
    """All that every store does."""


async def place(subject, **scope):
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(**(scope or {"accounts": ("1",)})))
        return await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))


async def activated(subject):
    """Which holds become active now, and what the others wait for."""
    why = []
    async with subject.rig.app() as app:
        for store in app.engine.stores.values():
            await store.open(app.engine.directory)
        done = await app.activate_holds(app.hold_recorder("test"), lambda _, reasons: why.extend(reasons))
    return len(done), [reason.why for reason in why], "; ".join(reason.detail for reason in why)


async def stages(subject):
    return [entry["stage"] for entry in await subject.rig.ledger() if entry["kind"] == "request"]


async def under_way(subject):
    async with subject.rig.app() as app, app.database.transaction() as tx:
        return await requests.unfinished(tx)


async def test_a_deletion_is_told_from_stage_to_stage_and_what_was_asked_is_forgotten(subject):
    await subject.records()
    await subject.rig.only()
    assert await stages(subject) == ["requested", "erased", "verified"]
    async with subject.rig.control_connection() as control:
        assert await control.fetchval("SELECT asked FROM retentiond.requests") is None
    (outcome,) = [entry for entry in await subject.rig.ledger() if entry["kind"] == "outcome"]
    assert (outcome["verified"], outcome["counts"]["erased"], outcome["tiers"]) == (
        "counted again",
        5,
        {"free": {"erased": 5}},
    )


async def test_what_was_asked_for_is_not_asked_for_again_while_it_is_under_way(subject):
    await subject.records()
    subject.server.busy = True
    first = await subject.rig.only()
    assert (first.outcome, first.changed, first.requested) == ("drained", 0, 5)
    assert first.overdue > 0
    again = await subject.rig.only()
    assert (again.changed, again.requested, len(subject.server.deletions)) == (0, 5, 1)
    subject.server.work()
    await subject.rig.only()
    await subject.rig.only()
    assert await subject.left() == {1001, 1002, 1003}
    assert await under_way(subject) == []
    await subject.rig.require_told(logs=5)


async def test_what_became_due_since_is_asked_for_beside_it(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    await subject.add(6, account="2", days=500)
    await subject.rig.only()
    assert len(subject.server.deletions) == 2


async def test_a_deletion_that_is_called_done_and_did_nothing_failed_and_is_asked_for_anew(subject):
    await subject.records()
    subject.server.acts = False
    await subject.rig.only()
    assert await stages(subject) == ["requested", "failed"]
    assert len(await subject.left()) == 8
    subject.server.acts = True
    await subject.rig.only()
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)


async def test_data_that_is_only_hidden_is_told_to_be_hidden_and_not_erased(subject):
    await subject.records()
    subject.server.busy = subject.server.hides = True
    await subject.rig.only()
    assert await stages(subject) == ["requested", "hidden"]
    await subject.rig.require_told(logs=0)
    subject.server.work()
    await subject.rig.only()
    await subject.rig.only()
    assert await stages(subject) == ["requested", "hidden", "erased", "verified"]
    await subject.rig.require_told(logs=5)


async def test_a_hold_is_active_only_when_what_is_under_way_is_cancelled(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert [each.word for each in subject.server.deletions.values()] == ["done"]
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.held) == (0, 5)
    assert len(await subject.left()) == 8
    assert await stages(subject) == ["requested", "cancelled"]


async def test_a_hold_waits_for_a_deletion_that_the_server_does_not_cancel_and_says_so(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    await place(subject)
    subject.server.uncancellable = "it is in process"
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["native"])
    assert "it is in process" in detail
    subject.server.uncancellable = ""
    assert (await activated(subject))[0] == 1


@pytest.mark.parametrize("scope", [{"accounts": ("2",)}, {"since": datetime.now(UTC) - timedelta(days=30)}])
async def test_a_deletion_that_can_not_reach_what_a_hold_covers_goes_on(subject, scope):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    await place(subject, **scope)
    assert (await activated(subject))[0] == 1
    assert [each.word for each in subject.server.deletions.values()] == ["running"]


async def test_a_deletion_that_was_asked_for_under_the_hold_is_not_cancelled(subject):
    await subject.records()
    await subject.add(6, account="2", days=500)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, until=datetime.now(UTC) - timedelta(days=450))
    subject.server.busy = True
    await subject.rig.only()
    async with subject.rig.app() as app:
        for store in app.engine.stores.values():
            await store.open(app.engine.directory)
        async with app.database.transaction(read_only=True) as tx:
            known = await holds.list_all(tx)
        assert await app.natives()["logs"].settle(known) == {}
    assert [each.word for each in subject.server.deletions.values()] == ["running"]


async def test_a_range_that_is_held_is_left_out_and_the_rest_goes(subject):
    for key, days in ((1, 300), (2, 400), (3, 500)):
        await subject.add(key, days=days)
    await subject.add(4, account="2", days=500)
    now = datetime.now(UTC)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("1",), since=now - timedelta(days=450), until=now - timedelta(days=350))
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.held) == (3, 1)
    assert await subject.left() == {2}


async def test_a_request_that_was_lost_and_comes_late_is_refused_once_a_hold_is_active(subject):
    """The fence of a server that can refuse: the permit was shut before the hold became active."""
    await subject.records()
    subject.server.script.append("get it late")
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert subject.server.get_late() == []
    assert len(await subject.left()) == 8


async def test_where_the_server_can_not_refuse_one_that_comes_late_is_cancelled_when_it_is_asked_again(subject):
    await subject.records()
    subject.server.refuses, subject.server.busy = False, True
    subject.server.script.append("get it late")
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[:2] == (0, ["batch"]), "it may come still"
    await subject.let_time_pass()
    assert (await activated(subject))[0] == 1
    (late,) = subject.server.get_late()
    async with subject.rig.app() as app:
        async with app.database.transaction(read_only=True) as tx:
            known = await holds.list_all(tx)
        await app.natives()["logs"].settle(known)
    assert subject.server.deletions[late].word == "done"
    subject.server.work()
    assert len(await subject.left()) == 8


async def test_a_hold_is_not_active_between_a_batch_and_the_question_what_is_under_way(subject):
    """The permit ends while the hold's activation is asking: what it let go is seen by the next one alone."""
    await subject.records()
    subject.server.busy, subject.server.refuses = True, False
    seen = []

    async def place_and_activate():
        subject.server.after_submit = None
        await place(subject)
        seen.append(await activated(subject))

    subject.server.after_submit = place_and_activate
    await subject.rig.only()
    assert seen[0][:2] == (0, ["batch"])
    assert (await activated(subject))[0] == 1
    assert [each.word for each in subject.server.deletions.values()] == ["done"]


@pytest.mark.parametrize("script", ["lose the answer", "lose the request"])
async def test_a_deletion_without_an_answer_is_found_or_not_and_counted_once(subject, script):
    await subject.records()
    subject.server.busy = True
    subject.server.script.append(script)
    first = await subject.rig.only()
    assert (first.outcome, first.changed) == ("failed", 0)
    await subject.rig.only()
    subject.server.work()
    await subject.rig.only()
    await subject.rig.only()
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()
    assert len(subject.server.deletions) == 1


async def test_what_the_server_refuses_ends_the_permit_and_is_said(subject):
    await subject.records()
    subject.server.script.extend(["refuse"] * 20)
    outcome = await subject.rig.only()
    assert outcome.outcome == "failed"
    assert "read-only" in outcome.error["message"]
    await subject.rig.require_settled()


async def test_a_hold_waits_while_a_target_that_is_configured_no_more_has_deletions_under_way(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    kept = subject.rig.targets.pop("logs")
    await subject.rig.db.execute(
        "CREATE TABLE others (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
    )
    subject.rig.target("others")
    await subject.rig.approve_policy()
    await place(subject, targets=("others",))
    assert (await activated(subject))[0] == 1, "it covers nothing of that"
    await place(subject)
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["unknown_target"])
    assert "under way" in detail
    subject.rig.targets["logs"] = kept
    await subject.rig.approve_policy()
    assert (await activated(subject))[0] == 1


@pytest.fixture
def elsewhere(subject):
    """Another server that the same target is to be over."""
    name = f"server-{uuid4().hex[:8]}"
    SERVERS[name] = Server()
    yield name
    del SERVERS[name]


async def test_what_was_asked_for_at_another_server_is_followed_by_nobody_and_holds_wait_for_it(subject, elsewhere):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    first, subject.rig.targets["logs"]["server"] = subject.rig.targets["logs"]["server"], elsewhere
    await subject.rig.approve_policy()
    await subject.rig.only()
    assert await stages(subject) == ["requested"], "the new server knows nothing of it"
    async with subject.rig.app() as app:
        (finding,) = await app.engine.stores["logs"].check()
    assert first in finding.message
    await place(subject)
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["native"])
    assert first in detail
    subject.rig.targets["logs"]["server"] = first
    await subject.rig.approve_policy()
    assert (await activated(subject))[0] == 1
    await subject.rig.only()
    assert (await stages(subject))[-1] == "cancelled"


async def test_a_permit_of_another_server_stays_open_and_holds_wait_for_it(subject, elsewhere):
    await subject.records()
    subject.server.script.append("get it late")
    await subject.rig.only()
    first, subject.rig.targets["logs"]["server"] = subject.rig.targets["logs"]["server"], elsewhere
    await subject.rig.approve_policy()
    await subject.let_time_pass()
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 0
    subject.rig.targets["logs"]["server"] = first
    await subject.rig.approve_policy()
    assert (await activated(subject))[0] == 1
    assert subject.server.get_late() == []


async def test_what_is_under_way_counts_for_the_guard_as_if_it_had_gone(subject):
    """More becomes due in the middle of a sweep than was counted: what the first window asked for is not gone yet."""
    await subject.rig.db.execute("UPDATE accounts SET tier = 'free', deleted_at = NULL WHERE id < 4")
    for key in range(1, 4):
        await subject.add(key, account=str(key))
    for key in range(1001, 1010):
        await subject.add(key, account="3", days=1)
    subject.server.busy = True
    subject.rig.guards = {"max_records": 3, "min_records": 0}
    subject.rig.targets["logs"]["pace"] |= {"max_batch": 1}

    async def damage():
        await subject.rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '90 days' WHERE id = 3")

    with subject.meanwhile(damage):
        outcome = await subject.rig.only()
    assert (outcome.outcome, len(subject.server.deletions)) == ("capped", 2), outcome.error
    subject.server.work()
    assert len(await subject.left()) == 10


async def test_an_account_that_no_directory_has_is_held_by_its_canonical_name(subject):
    subject.rig.policy = {
        "classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P90D", "enterprise": "P90D"}, "override": {}}}
    }
    await subject.add(1, account="0077", days=4000)
    subject.server.busy = True
    assert (await subject.rig.only()).requested == 1
    await place(subject, accounts=("77",))
    assert (await activated(subject))[0] == 1
    assert [each.word for each in subject.server.deletions.values()] == ["done"]


async def test_the_daemon_follows_deletions_to_their_end_and_tells_how_old_the_oldest_is(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    async with subject.rig.app() as app:
        watch = Watch(Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="enforce"))
        jobs = Jobs(app, watch)

        def told(name):
            return watch.metrics.registry.get_sample_value(f"retentiond_{name}", {"target": "logs"})

        await jobs._follow()
        assert (told("requests_unfinished"), told("request_age_seconds") > 0) == (1, True)
        subject.server.work()
        async for _ in looks("the deletion is not followed to its end", every=0.05):
            await jobs._follow()
            if not told("requests_unfinished"):
                break
        assert told("request_age_seconds") == 0
    assert await stages(subject) == ["requested", "erased", "verified"]
    await subject.rig.require_told(logs=5)


async def test_one_that_failed_makes_its_target_due_when_the_daemon_finds_out_and_not_when_a_sweep_does(subject):
    """A sweep that finds what it asked for failed ends as such, and is tried again after its interval: not at once."""
    await subject.records()
    subject.server.acts = False
    await subject.rig.only()
    later = "SELECT next_due_at > clock_timestamp() FROM retentiond.units"
    async with subject.rig.control_connection() as control:
        assert await control.fetchval(later)
        subject.server.busy = True
        await subject.rig.only()
        subject.server.work()
        async with subject.rig.app() as app:
            watch = Watch(Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="enforce"))
            await Jobs(app, watch)._follow()
        assert not await control.fetchval(later)


async def test_what_was_taken_on_is_followed_where_nothing_may_be_erased_any_more(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    subject.server.busy = False
    subject.server.work()
    async with subject.rig.app(mode="plan") as app:
        jobs = Jobs(app, Watch(Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="plan")))
        for _ in range(2):
            jobs._patience._next.clear()
            await jobs._follow()
    assert (await stages(subject))[-1] == "verified"


async def test_two_processes_that_follow_the_same_deletion_tell_of_it_once(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    subject.server.work()
    async with subject.rig.app() as one, subject.rig.app() as other:
        for _ in range(3):
            await asyncio.gather(
                *(follow(app.engine.tools, app.engine.stores["logs"], app.spec.target("logs")) for app in (one, other))
            )
    assert await stages(subject) == ["requested", "erased", "verified"]
    await subject.rig.require_told(logs=5)


async def test_a_target_that_has_become_a_table_is_asked_for_no_lock_about_deletions(subject):
    """The lock of a number that no transaction ever had is free: that would say nothing of what is sent late."""
    await subject.records()
    with subject.dying("before"), killed():
        await subject.rig.only()
    await subject.rig.db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    subject.rig.targets.clear()
    subject.rig.target("logs")
    await subject.rig.approve_policy()
    await place(subject)
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["unreachable"])
    assert "deletions that run later" in detail
