"""The contract of an expiry fence, kept by a store of a few lines: the sweeper's order of such a batch."""

import asyncio
import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from uuid import uuid4

import pytest

from retentiond import daemon_spec
from retentiond.control import activation, holds, outstanding
from retentiond.control.hold_rows import HoldDraft
from retentiond.control.host import Uptime
from retentiond.control.outstanding import OpenPermit
from retentiond.domain.holds import Scope
from retentiond.errors import Refused
from retentiond.stores import registry
from tests.contract.behaviours import Contract, Subject, killed
from tests.contract.keepsake import SERVERS, Keepsake, KeepsakeBatch, KeepsakeTarget, Server
from tests.services.gates import looks
from tests.services.sweeping import ACCOUNTS, let_permits_age


class KeepsakeSubject(Subject):
    """Objects whose key is the number, padded so that texts sort as numbers do."""

    def __init__(self, rig, server, patch):
        super().__init__(rig)
        self.server, self._patch = server, patch

    async def add(self, key, *, account="1", days=400):
        self.server.put(f"{key:06}", account, datetime.now(UTC) - timedelta(days=days))

    async def left(self):
        return {int(key) for key in self.server.objects}

    @contextmanager
    def dying(self, at):
        async def die():
            raise asyncio.CancelledError

        name = f"{at}_delete"
        setattr(self.server, name, die)
        yield
        setattr(self.server, name, None)

    @contextmanager
    def meanwhile(self, work):
        whole, done = KeepsakeBatch.intended, []

        async def intended(batch, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(batch, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KeepsakeBatch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self, seconds=3600):
        async with self.rig.control_connection() as control:
            await let_permits_age(control, seconds)


@pytest.fixture
async def subject(apart, monkeypatch):
    async for made in keepsakes(apart, monkeypatch, Keepsake):
        yield made


async def keepsakes(apart, monkeypatch, store, subject=KeepsakeSubject):
    """A subject whose store is of that class."""
    kind = daemon_spec.Kind(
        lambda config, others: daemon_spec.Facts(has_account=True, has_tier=False),
        lambda config, target, shared: store(target.name, config, target.action),
    )
    monkeypatch.setattr(
        registry, "CONFIG_MODELS", MappingProxyType({**registry.CONFIG_MODELS, "keepsake": KeepsakeTarget})
    )
    monkeypatch.setattr(daemon_spec, "KINDS", MappingProxyType({**daemon_spec.KINDS, KeepsakeTarget: kind}))
    name = f"server-{uuid4().hex[:8]}"
    SERVERS[name] = Server()
    await apart.db.execute(ACCOUNTS)
    apart.targets["logs"] = {
        "store": "keepsake",
        "server": name,
        "class": "operational_logs",
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
    }
    yield subject(apart, SERVERS[name], monkeypatch)
    del SERVERS[name]


class TestKeepsake(Contract):
    """All that every store does."""


async def test_where_nothing_is_due_there_is_no_permit_and_the_walk_moves_on(subject):
    await subject.records(due=0, young=25)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.batches, outcome.scanned) == ("drained", 0, 25)
    async with subject.rig.control_connection() as control:
        assert await control.fetchval("SELECT count(*) FROM retentiond.permits") == 0
    assert "outcome" not in [entry["kind"] for entry in await subject.rig.ledger()]


async def test_what_is_about_to_go_is_written_down_before_anything_is_sent_and_forgotten_at_the_end(subject):
    await subject.records()
    seen = []

    async def look():
        async with subject.rig.control_connection() as control:
            seen.append(await control.fetchrow("SELECT intent::text, prepared::text FROM retentiond.permits"))

    subject.server.before_delete = look
    await subject.rig.only()
    intent, prepared = (json.loads(text) for text in seen[0])
    assert (intent["fence"], intent["store"]) == ("expiry", "keepsake")
    assert [each["key"] for each in prepared["intended"]["items"]] == [f"{key:06}" for key in range(1, 6)]
    async with subject.rig.control_connection() as control:
        (left,) = await control.fetchrow("SELECT prepared::text FROM retentiond.permits")
    assert "000001" not in left
    assert "000001" not in json.dumps(await subject.rig.ledger())


async def test_a_request_that_comes_after_its_expiry_does_nothing_and_is_said(subject):
    await subject.records()
    subject.server.ahead = 50  # no skew that stops a sweep
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.locked) == ("capped", 0, 5)
    assert "expired" in outcome.error["message"]
    await subject.rig.require_settled()
    subject.server.ahead = 0
    assert (await subject.rig.only()).changed == 5


async def test_a_worker_that_was_stopped_for_long_before_it_sends_erases_nothing(subject):
    """Stopped between the permit and the request: another has looked and gone on, and a hold is active by then."""
    await subject.records()
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def stop():
        subject.server.before_delete = None
        stopped.set()
        await go_on.wait()
        subject.server.ahead = 50

    subject.server.before_delete = stop
    sweep = asyncio.create_task(subject.rig.only())
    await stopped.wait()
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
        await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        assert await app.activate_holds(app.hold_recorder("test")) == []
        await subject.let_time_pass()
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    go_on.set()
    await sweep
    assert await subject.left() == {1, 2, 3, 4, 5, 1001, 1002, 1003}


async def until_it_waits(subject):
    """Until the sweep's permit is all that is left to wait for."""
    async for _ in looks("the sweep does not come to its unanswered requests"):
        async with subject.rig.control_connection() as control:
            if await control.fetchval("SELECT to_regclass('retentiond.permits')") is None:
                continue
            if await control.fetchval("SELECT prepared IS NOT NULL FROM retentiond.permits WHERE ended_at IS NULL"):
                return


@pytest.mark.parametrize(("script", "gone"), [("lose the answer", 5), ("lose the request", 0)])
async def test_an_unanswered_request_is_waited_out_and_looked_at_by_the_same_sweep(subject, script, gone):
    await subject.records()
    subject.server.script.append(script)
    sweep = asyncio.create_task(subject.rig.only())
    await until_it_waits(subject)
    await asyncio.sleep(0.3)
    assert not sweep.done()
    await subject.let_time_pass()
    outcome = await sweep
    assert (outcome.changed, outcome.failed) == (gone, 5 - gone)
    assert outcome.outcome == ("drained" if gone else "failed")
    await subject.rig.require_told(logs=gone)
    await subject.rig.require_settled()
    again = await subject.rig.only()
    assert (again.outcome, again.changed) == ("drained", 5 - gone)
    await subject.rig.require_told(logs=5)


async def test_where_some_requests_are_answered_and_some_are_not_each_record_is_counted_once(subject):
    await subject.records(due=6)
    subject.server.at_once = 2
    subject.server.locked.add("000002")
    subject.server.script.extend(["answer", "lose the answer", "lose the request"])
    sweep = asyncio.create_task(subject.rig.only())
    await until_it_waits(subject)
    await subject.let_time_pass()
    outcome = await sweep
    assert (outcome.changed, outcome.held, outcome.failed) == (3, 1, 2)
    assert await subject.left() == {2, 5, 6, 1001, 1002, 1003}
    await subject.rig.require_told(logs=3)


async def test_a_request_that_is_carried_out_late_goes_before_any_hold_is_active(subject):
    await subject.records()
    subject.server.script.append("carry it out later")
    sweep = asyncio.create_task(subject.rig.only())
    await until_it_waits(subject)
    sweep.cancel()
    with killed():
        await sweep
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
        await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        await subject.let_time_pass(seconds=60)  # past the deadline, and not past what the server may take
        why = []
        assert await app.activate_holds(app.hold_recorder("test"), lambda _, reasons: why.extend(reasons)) == []
        assert [reason.why for reason in why] == ["expiry"]
        subject.server.catch_up()
        assert await subject.left() == {1001, 1002, 1003}
        await subject.let_time_pass(seconds=100)
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    await subject.rig.only()
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


async def test_a_hold_waits_for_such_a_permit_also_where_its_target_is_configured_no_more(subject):
    await subject.records()
    with subject.dying("before"), killed():
        await subject.rig.only()
    await subject.rig.db.execute(
        "CREATE TABLE others (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
    )
    del subject.rig.targets["logs"]
    subject.rig.target("others")
    await subject.rig.approve_policy()
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
        await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        assert await app.activate_holds(app.hold_recorder("test")) == []
        await subject.let_time_pass()
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1


async def test_a_target_that_has_become_a_table_is_asked_for_no_lock_about_requests(subject):
    """The lock of a number that no transaction ever had is free: that would say nothing of a request."""
    await subject.records()
    with subject.dying("before"), killed():
        await subject.rig.only()
    await subject.rig.db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    subject.rig.target("logs")
    await subject.rig.approve_policy()
    async with subject.rig.app() as app:
        draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
        await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        assert await app.activate_holds(app.hold_recorder("test")) == []
        await subject.let_time_pass()
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.in_doubt) == ("drained", 1)
    (told,) = [entry for entry in await subject.rig.ledger() if entry["kind"] == "in_doubt"]
    assert told["found"] == "unknown"


async def test_a_worker_that_died_before_it_prepared_has_sent_nothing_and_nobody_waits(subject, monkeypatch):
    await subject.records()

    async def die(*_):
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(KeepsakeBatch, "intended", die)
        with killed():
            await subject.rig.only()
    assert (await subject.rig.only()).changed == 5
    assert [entry["found"] for entry in await subject.rig.ledger() if entry["kind"] == "in_doubt"] == ["nothing"]


async def test_an_error_after_something_was_sent_leaves_the_permit_to_be_looked_at(subject, monkeypatch):
    await subject.records()
    whole = KeepsakeBatch.erase

    async def erase(*args, **named):
        await whole(*args, **named)
        raise Refused("the answer makes no sense")

    with monkeypatch.context() as patch:
        patch.setattr(KeepsakeBatch, "erase", erase)
        outcome = await subject.rig.only()
    assert outcome.outcome == "failed"
    async with subject.rig.control_connection() as control:
        assert await control.fetchval("SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL") == 1
    await subject.let_time_pass()
    await subject.rig.only()
    await subject.rig.require_told(logs=5)


async def test_a_daemon_that_stops_does_not_wait_for_requests_to_expire(subject):
    await subject.records()
    subject.server.script.append("lose the answer")
    async with subject.rig.app() as app:
        sweep = asyncio.create_task(app.engine.sweep(app.spec.target("logs")))
        await until_it_waits(subject)
        app.engine.drain()
        outcome = await sweep
    assert "may take effect" in outcome.error["message"]
    await subject.let_time_pass()
    await subject.rig.only()
    await subject.rig.require_told(logs=5)


async def test_a_clock_of_this_host_that_is_ahead_or_one_of_the_control_database_ends_no_wait(subject):
    """Both have to say that it is over."""
    now = datetime.now(UTC)
    permit = OpenPermit(1, "t", "", "w", 1, 1, "d", "b", {"fence": "expiry"}, None, now, now, past=-10.0).outstanding
    assert not permit.expired(0.0)
    assert not replace(permit, past=121.0, grace=300.0).expired(120.0), "its own worker reckoned with more"
    assert replace(permit, past=121.0).expired(120.0)
    assert not replace(permit, past=1e9, fence="transaction").expired(120.0), "only its end tells of a transaction"


async def one_that_waits(subject, **more):
    """A permit whose request was never answered, and whose worker is gone."""
    await subject.records()
    subject.server.script.append("lose the answer")
    sweep = asyncio.create_task(subject.rig.only(**more))
    await until_it_waits(subject)
    sweep.cancel()
    with killed():
        await sweep


async def active(subject, **other):
    """Which holds become active now, one on the account being there."""
    async with subject.rig.app() as app:
        async with app.database.transaction(read_only=True) as tx:
            there = await tx.fetchval("SELECT count(*) FROM retentiond.holds")
        if not there:
            draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
            await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
        return await activation.activate_pending(app.database, {}, **other)


async def test_where_control_database_and_host_have_one_clock_that_jumps_a_hold_waits_all_the_same(subject):
    """As with an embedded control database: both say that the permit is long over, and the server accepts its request."""
    await one_that_waits(subject)
    async with subject.rig.control_connection() as control:
        await control.execute(
            "UPDATE retentiond.permits SET issued_at = issued_at - interval '10 minutes',"
            " deadline = deadline - interval '10 minutes' WHERE ended_at IS NULL"
        )
    assert await active(subject) == []
    await subject.let_time_pass(seconds=140)
    assert await active(subject) == []
    await subject.let_time_pass(seconds=20)
    assert len(await active(subject)) == 1


async def test_a_permit_of_another_machine_or_boot_is_judged_by_the_two_clocks(subject, monkeypatch):
    await one_that_waits(subject)
    monkeypatch.setattr(outstanding, "uptime", lambda: Uptime("another", 5.0))
    await subject.let_time_pass()
    assert len(await active(subject)) == 1


async def test_a_hold_waits_for_as_long_as_the_worker_of_the_batch_said_its_server_may_take(subject):
    """Not for as long as is configured where the hold is placed."""
    await one_that_waits(subject, holds={"late_effect_grace": 600})
    await subject.let_time_pass(seconds=200)
    assert await active(subject, grace_seconds=1.0) == []
    await subject.let_time_pass(seconds=440)
    assert len(await active(subject, grace_seconds=1.0)) == 1


async def test_under_a_permit_whose_time_is_over_nothing_is_sent(subject):
    """The directory took too long; the server's clock is behind, and would accept it."""
    await subject.records()
    passed = []

    async def later():
        passed.append(len(subject.server.calls))
        async with subject.rig.control_connection() as control:
            await control.execute("UPDATE retentiond.permits SET deadline = now() - interval '1 second'")

    with subject.meanwhile(later):
        outcome = await subject.rig.only()
    assert "delete" not in subject.server.calls[: passed[0] + 1]
    assert (outcome.outcome, outcome.changed) == ("drained", 5), "the next batch has time"
    await subject.rig.require_settled()
