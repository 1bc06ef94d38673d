"""The contract of a worker's presence as a fence, kept by a store of a few lines: the sweeper's order of such a batch."""

import asyncio
import json

import pytest

from retentiond.control import holds, permits
from retentiond.control.hold_rows import HoldDraft
from retentiond.domain.holds import Scope
from retentiond.errors import Refused, UsageError
from tests.contract.attended import Attended, AttendedBatch
from tests.contract.behaviours import Contract, killed
from tests.contract.test_keepsake import KeepsakeSubject, keepsakes


class AttendedSubject(KeepsakeSubject):
    """Nothing has to pass: who died is in the book no more."""

    async def let_time_pass(self, seconds=0):
        del seconds


@pytest.fixture
async def subject(apart, monkeypatch):
    async for made in keepsakes(apart, monkeypatch, Attended, AttendedSubject):
        yield made


class TestPresence(Contract):
    """All that every store does."""


@pytest.fixture
def stopped(subject, monkeypatch):
    """Stops the first worker at a step of its batch, as SIGSTOP does, until it is let go on."""

    class Stopped:
        def __init__(self):
            self.there, self.go_on, self._done = asyncio.Event(), asyncio.Event(), False

        def at(self, name, *, after=False):
            whole = getattr(AttendedBatch, name)

            async def step(*args, **named):
                first, self._done = not self._done, True
                found = await whole(*args, **named) if after or not first else None
                if first:
                    self.there.set()
                    await self.go_on.wait()
                    found = found if after else await whole(*args, **named)
                return found

            monkeypatch.setattr(AttendedBatch, name, step)

    return Stopped()


async def place(app):
    draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=("1",)))
    return await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))


async def number_of(subject):
    async with subject.rig.control_connection() as control:
        return await control.fetchval("SELECT number FROM retentiond.permits WHERE ended_at IS NULL")


async def test_a_hold_waits_for_a_worker_that_is_stopped_for_however_long(subject, stopped):
    await subject.records()
    stopped.at("erase")
    sweep = asyncio.create_task(subject.rig.only())
    await stopped.there.wait()
    async with subject.rig.app() as app:
        await place(app)
        await KeepsakeSubject.let_time_pass(subject, 1e6)
        why = []
        assert await app.activate_holds(app.hold_recorder("test"), lambda _, reasons: why.extend(reasons)) == []
        assert [reason.why for reason in why] == ["batch"]
        assert "is there" in why[0].detail
        stopped.go_on.set()
        assert (await sweep).changed == 5
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1


async def test_one_whose_lease_has_gone_meanwhile_can_write_no_outcome_and_the_next_looks_what_is_there(
    subject, stopped, monkeypatch
):
    """It is waited for as long as it is there, and destroys at most what it had written down."""
    await subject.records()
    stopped.at("erase")
    sweep = asyncio.create_task(subject.rig.only())
    await stopped.there.wait()
    await subject.rig.let_leases_run_out()
    monkeypatch.setattr("retentiond.sweep.recovery._PATIENCE_SECONDS", 0.3)
    other = await subject.rig.only()
    assert other.outcome == "failed"
    assert "is still there" in other.error["message"]
    assert await subject.left() == {1, 2, 3, 4, 5, 1001, 1002, 1003}
    stopped.go_on.set()
    assert (await sweep).error["kind"] == "fenced"
    await subject.rig.only()
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()
    (told,) = [entry for entry in await subject.rig.ledger() if entry["kind"] == "in_doubt"]
    assert told["found"] == "looked"


async def test_one_whose_lease_has_gone_before_it_wrote_down_what_is_to_go_destroys_nothing(
    subject, stopped, monkeypatch
):
    await subject.records()
    stopped.at("intended", after=True)
    sweep = asyncio.create_task(subject.rig.only())
    await stopped.there.wait()
    await subject.rig.let_leases_run_out()
    monkeypatch.setattr("retentiond.sweep.recovery._PATIENCE_SECONDS", 0.3)
    assert (await subject.rig.only()).outcome == "failed"
    stopped.go_on.set()
    assert (await sweep).error["kind"] == "fenced"
    assert await subject.left() == {1, 2, 3, 4, 5, 1001, 1002, 1003}
    assert (await subject.rig.only()).changed == 5


async def test_a_hold_that_comes_while_the_batch_is_made_ready_keeps_all_of_it(subject):
    await subject.records()

    async def placed():
        async with subject.rig.app() as app:
            await place(app)

    with subject.meanwhile(placed):
        outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 5)
    await subject.rig.require_settled()


async def test_what_tells_of_the_worker_is_in_the_intent_before_anything_is_written_down(subject):
    await subject.records()
    seen = []

    async def look():
        async with subject.rig.control_connection() as control:
            seen.append(await control.fetchrow("SELECT intent::text, prepared::text FROM retentiond.permits"))

    subject.server.before_delete = look
    await subject.rig.only()
    intent, prepared = (json.loads(text) for text in seen[0])
    assert intent["fence"] == "presence"
    assert list(intent["presence"]) == ["name"]
    assert [each["key"] for each in prepared["intended"]["items"]] == [f"{key:06}" for key in range(1, 6)]


async def test_where_the_target_can_not_be_asked_from_here_the_hold_stays_pending_and_says_so(subject, monkeypatch):
    await subject.records()
    with subject.dying("after"), killed():
        await subject.rig.only()
    monkeypatch.setattr(Attended, "reachable", False)
    async with subject.rig.app() as app:
        await place(app)
        why = []
        assert await app.activate_holds(app.hold_recorder("test"), lambda _, reasons: why.extend(reasons)) == []
        assert [(reason.why, reason.detail) for reason in why] == [("unreachable", "the book can't be read from here")]


async def declare(app, number):
    async with app.database.transaction() as tx:
        return await permits.declare_gone(tx, number, by="operator")


async def test_an_operator_can_say_that_the_worker_is_gone_and_what_it_did_is_looked_at(subject, monkeypatch):
    await subject.records()
    with subject.dying("after"), killed():
        await subject.rig.only()
    monkeypatch.setattr(Attended, "reachable", False)
    async with subject.rig.app() as app:
        await place(app)
        await declare(app, await number_of(subject))
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    await subject.rig.only()
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


async def test_a_worker_that_was_declared_gone_and_is_not_can_begin_nothing_any_more(subject):
    await subject.records()

    async def declared():
        async with subject.rig.app() as app:
            await declare(app, await number_of(subject))

    with subject.meanwhile(declared):
        outcome = await subject.rig.only()
    assert (outcome.changed, outcome.error["kind"]) == (0, "fenced")
    assert (await subject.rig.only()).changed == 5


async def test_a_permit_that_has_ended_or_rests_on_something_else_can_not_be_declared(subject):
    await subject.records()
    await subject.rig.only()
    async with subject.rig.control_connection() as control:
        number = await control.fetchval("SELECT max(number) FROM retentiond.permits")
    async with subject.rig.app() as app:
        with pytest.raises(UsageError, match="has ended: committed"):
            await declare(app, number)
        async with subject.rig.control_connection() as control:
            await control.execute(
                "UPDATE retentiond.permits SET ended_at = NULL, outcome = NULL,"
                " intent = jsonb_set(intent, '{fence}', '\"transaction\"')"
            )
        with pytest.raises(UsageError, match="does not rest on its worker's presence"):
            await declare(app, number)


async def test_a_target_that_has_become_a_table_is_asked_for_no_lock_about_a_worker(subject):
    """The lock of a number that no transaction ever had is free: that says nothing of a worker that is there."""
    await subject.records()
    with subject.dying("before"), killed():
        await subject.rig.only()
    await subject.rig.db.execute("CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)")
    subject.rig.target("logs")
    await subject.rig.approve_policy()
    async with subject.rig.app() as app:
        await place(app)
        why = []
        assert await app.activate_holds(app.hold_recorder("test"), lambda _, reasons: why.extend(reasons)) == []
        assert "is of a worker's presence" in why[0].detail
    assert (await subject.rig.only()).outcome == "blind"
    async with subject.rig.app() as app:
        await declare(app, await number_of(subject))
        assert len(await app.activate_holds(app.hold_recorder("test"))) == 1
    assert (await subject.rig.only()).in_doubt == 1


async def test_an_error_after_it_began_leaves_the_permit_to_be_looked_at(subject, monkeypatch):
    await subject.records()
    whole = AttendedBatch.erase

    async def erase(*args, **named):
        await whole(*args, **named)
        raise Refused("half of it is done")

    with monkeypatch.context() as patch:
        patch.setattr(AttendedBatch, "erase", erase)
        assert (await subject.rig.only()).outcome == "failed"
    assert await number_of(subject) is not None
    await subject.rig.only()
    await subject.rig.require_told(logs=5)
