"""What every store has to do, whatever its fence: one suite, which a short file per store runs against a subject.

A subject has a target `logs` of class `operational_logs` (free: 90 days) with an account directory beside it, and can be
told to let a worker die around the effect of its next batch.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.domain.holds import HoldState, Scope
from tests.services.sweeping import Rig


class Subject(ABC):
    """One store under test: `free` is an account of that tier, `pro` of the other; both live."""

    free, pro, gone = "1", "2", "4"

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    @abstractmethod
    async def add(self, key: int, *, account: str | None = "1", days: float = 400) -> None:
        """A record of so many days ago; one of that key is replaced by it, as a newer one of the same name."""

    @abstractmethod
    async def left(self) -> set[int]:
        """The keys of the records that are there."""

    @abstractmethod
    def dying(self, at: str) -> AbstractContextManager[None]:
        """A worker dies around the effect of its next batch: `before` or `after` it."""

    @abstractmethod
    async def let_time_pass(self) -> None:
        """What has to pass until a batch whose worker is gone can't take effect any more."""

    @abstractmethod
    def meanwhile(self, work) -> AbstractContextManager[None]:
        """Once, when a batch has its permit and has not judged yet under it, `work` is awaited."""

    async def records(self, *, due: int = 5, young: int = 3) -> None:
        for key in range(1, due + 1):
            await self.add(key)
        for key in range(1001, 1001 + young):
            await self.add(key, days=1)


@contextmanager
def killed() -> Iterator[None]:
    """The task in which it happens ends as if its process had been killed: nothing of ours is caught."""
    with pytest.raises(asyncio.CancelledError):
        yield


class Contract:
    """The behaviours; `subject` is a fixture of each store's file."""

    async def test_what_is_due_goes_and_what_is_not_stays(self, subject):
        await subject.records()
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.changed, outcome.by_tier) == ("drained", 5, {"free": 5})
        assert await subject.left() == {1001, 1002, 1003}
        await subject.rig.require_told(logs=5)
        await subject.rig.require_settled()

    async def test_a_plan_counts_what_a_sweep_then_does(self, subject):
        await subject.records()
        await subject.add(6, account=subject.pro, days=100)
        await subject.add(7, account=subject.pro)
        await subject.add(8, account=subject.gone, days=1)
        planned = await subject.rig.only(mode="plan")
        assert await subject.left() == {1, 2, 3, 4, 5, 6, 7, 8, 1001, 1002, 1003}
        done = await subject.rig.only()
        assert planned.would == done.changed == 7
        assert done.by_tier == {tier: tally.due for tier, tally in planned.tiers.items() if tally.due}
        assert await subject.left() == {6, 1001, 1002, 1003}

    async def test_many_windows_are_swept_to_the_end_and_again_to_nothing(self, subject):
        await subject.records(due=35, young=12)
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.changed) == ("drained", 35)
        again = await subject.rig.only()
        assert (again.outcome, again.changed) == ("drained", 0)
        await subject.rig.require_told(logs=35)

    @pytest.mark.parametrize("scope", [{"accounts": ("1",)}, {"accounts": ("001",)}, {"everything": True}])
    async def test_nothing_under_a_hold_goes(self, subject, scope):
        await subject.records()
        await subject.add(6, account=subject.pro, days=800)
        async with subject.rig.app() as app:
            await subject.rig.hold(app, **scope)
        outcome = await subject.rig.only()
        assert outcome.outcome == "drained"
        assert await subject.left() >= {1, 2, 3, 4, 5}
        assert outcome.held >= 5

    async def test_a_released_holds_records_go(self, subject):
        await subject.records()
        async with subject.rig.app() as app:
            hold = await subject.rig.hold(app, accounts=(subject.free,))
        assert (await subject.rig.only()).changed == 0
        async with subject.rig.app() as app:
            record = app.hold_recorder("test")
            await holds.release(app.database, hold.id, "test", "over", grace_seconds=0, record=record)
            await holds.finish_releases(app.database, record=record)
        assert (await subject.rig.only()).changed == 5

    async def test_a_hold_that_comes_just_before_the_permit_is_minded(self, subject, monkeypatch):
        await subject.records()
        from retentiond.control import permits

        issue, placed = permits.issue, []

        async def late(database, **named):
            if not placed:
                draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=(subject.free,)))
                placed.append(await holds.place(database, draft, "counsel"))
            return await issue(database, **named)

        monkeypatch.setattr(permits, "issue", late)
        outcome = await subject.rig.only()
        assert placed
        assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 5)
        await subject.rig.require_settled()

    async def test_a_record_that_is_replaced_meanwhile_stays(self, subject):
        await subject.records()
        with subject.meanwhile(lambda: subject.add(3, days=1)):
            outcome = await subject.rig.only()
        assert outcome.changed == 4
        assert await subject.left() == {3, 1001, 1002, 1003}
        await subject.rig.require_told(logs=4)

    async def test_an_account_that_is_upgraded_meanwhile_keeps_its_records(self, subject):
        for key in (1, 2):
            await subject.add(key, days=100)

        async def upgrade():
            await subject.rig.db.execute("UPDATE accounts SET tier = 'pro' WHERE id = 1")

        with subject.meanwhile(upgrade):
            await subject.rig.only()
        assert await subject.left() == {1, 2}
        await subject.rig.require_settled()

    @pytest.mark.parametrize("at", ["before", "after"])
    async def test_a_batch_whose_worker_died_around_its_effect_is_looked_at_and_counted_once(self, subject, at):
        await subject.records()
        with subject.dying(at), killed():
            await subject.rig.only()
        left = await subject.left()
        assert ({1, 2, 3, 4, 5} <= left) == (at == "before")
        await subject.let_time_pass()
        await subject.rig.only()
        assert await subject.left() == {1001, 1002, 1003}
        await subject.rig.require_told(logs=5)
        await subject.rig.require_settled()
        kinds = [entry["kind"] for entry in await subject.rig.ledger()]
        assert kinds.count("in_doubt") == 1
        await subject.rig.only()
        await subject.rig.require_told(logs=5)

    async def test_a_hold_that_came_after_a_permit_is_active_only_when_its_batch_is_over(self, subject):
        await subject.records()
        with subject.dying("before"), killed():
            await subject.rig.only()
        async with subject.rig.app() as app:
            draft = HoldDraft(matter="m", reason="r", scope=Scope(accounts=(subject.free,)))
            placed = await holds.place(app.database, draft, "counsel", record=app.hold_recorder("test"))
            await subject.let_time_pass()
            for _ in range(100):
                if await app.activate_holds(app.hold_recorder("test")):
                    break
                await asyncio.sleep(0.05)
            async with app.database.transaction(read_only=True) as tx:
                assert (await holds.get(tx, placed.id)).state is HoldState.ACTIVE
        left = await subject.left()
        outcome = await subject.rig.only()
        assert outcome.changed == 0
        assert await subject.left() == left

    async def test_a_damaged_directory_stops_a_sweep_whose_records_then_are_more_than_it_counted(self, subject):
        for key in range(1, 11):
            await subject.add(key, account=subject.pro if key > 2 else subject.free, days=200)
        subject.rig.guards = {"max_fraction": 0.5, "min_records": 0}

        async def damage():
            await subject.rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '90 days' WHERE id = 2")

        with subject.meanwhile(damage):
            outcome = await subject.rig.only()
        assert outcome.outcome in ("guarded", "capped"), outcome.error
        assert len(await subject.left()) >= 5
        await subject.rig.require_settled()
