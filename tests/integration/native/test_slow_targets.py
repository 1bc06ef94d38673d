"""Targets that don't answer delay no hold that has nothing to do with them."""

import asyncio

import pytest

from retentiond.cli.placing import until_active
from retentiond.control import holds
from retentiond.domain.holds import HoldState
from retentiond.errors import StillPending
from retentiond.sweep.engine import Engine
from tests.integration.native.test_activation import activate, placed


class Silent:
    """Never answers until it may; `names` are the targets whose holds it has to do with."""

    def __init__(self, name, *, more=()):
        self.name, self.more = name, more
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    def concerned(self, known):
        return [h.id for h in known if h.holds and (not h.scope.targets or self.name in h.scope.targets)]

    async def settle(self, known):
        self.asked.set()
        await self.may.wait()
        return {}


@pytest.fixture
async def company(apart):
    await apart.company()
    apart.targets["logs"]["native_holds"] = True
    for number in range(20):
        apart.target(f"silent{number}", native_holds=True)
    return apart


def with_silent(app, monkeypatch):
    silent = {f"silent{number}": Silent(f"silent{number}") for number in range(20)}
    natives = {"logs": app.native["logs"], **silent}
    monkeypatch.setattr(type(app), "natives", lambda _: natives)
    return silent


async def state(app, hold):
    async with app.database.transaction(read_only=True) as tx:
        return (await holds.get(tx, hold.id)).state


async def test_only_targets_that_pending_holds_bear_on_are_asked(company, monkeypatch):
    async with company.app() as app:
        silent = with_silent(app, monkeypatch)
        hold = await placed(app, targets=("logs",), accounts=("1",))
        assert (await activate(app))[0] == [hold.id]
        assert not any(each.asked.is_set() for each in silent.values())


async def test_a_hold_is_active_while_another_one_still_waits_for_targets_that_do_not_answer(company, monkeypatch):
    async with company.app() as app:
        silent = with_silent(app, monkeypatch)
        everywhere = await placed(app, accounts=("1",))
        here = await placed(app, targets=("logs",))
        activating = asyncio.create_task(activate(app))
        while await state(app, here) is HoldState.PENDING:
            assert not activating.done()
            await asyncio.sleep(0.02)
        assert await state(app, everywhere) is HoldState.PENDING
        for each in silent.values():
            each.may.set()
        active, why = await activating
        assert (active, why) == ([here.id, everywhere.id], {})


async def test_what_has_not_answered_when_it_is_given_up_keeps_nothing_running(company, monkeypatch):
    async with company.app() as app:
        silent = with_silent(app, monkeypatch)
        hold = await placed(app, targets=("silent3",))
        activating = asyncio.create_task(activate(app))
        await silent["silent3"].asked.wait()
        activating.cancel()
        await asyncio.gather(activating, return_exceptions=True)
        assert not [task for task in asyncio.all_tasks() if "taken" in repr(task.get_coro())]
        assert await state(app, hold) is HoldState.PENDING


async def test_hold_place_has_its_hold_active_while_another_ones_targets_do_not_answer(company, monkeypatch):
    """Nor does it wait for them afterwards: the round that asks them is not over."""
    async with company.app() as app:
        silent = with_silent(app, monkeypatch)
        everywhere = await placed(app, accounts=("1",))
        here = await placed(app, targets=("logs",))
        active = await until_active(app, here, 120.0, by="counsel")
        assert active.state is HoldState.ACTIVE
        assert await state(app, everywhere) is HoldState.PENDING
        assert not any(each.may.is_set() for each in silent.values())


async def test_hold_place_has_its_hold_active_before_the_targets_can_be_opened(company, monkeypatch):
    async with company.app() as app:
        with_silent(app, monkeypatch)
        here = await placed(app, targets=("logs",))
        whole = Engine.open

        async def opened(self, target):
            while await state(app, here) is HoldState.PENDING:
                await asyncio.sleep(0.02)
            return await whole(self, target)

        monkeypatch.setattr(Engine, "open", opened)
        assert (await until_active(app, here, 120.0, by="counsel")).state is HoldState.ACTIVE


async def test_hold_place_gives_up_in_time_whatever_its_targets_are_at_and_says_what_it_knows(company, monkeypatch):
    monkeypatch.setattr("retentiond.cli.placing._FIRST_SECONDS", 0.1)
    async with company.app() as app:
        with_silent(app, monkeypatch)
        hold = await placed(app, targets=("silent3",))
        with pytest.raises(StillPending, match="has not answered"):
            await until_active(app, hold, 0.0, by="counsel")
        assert not [task for task in asyncio.all_tasks() if "taken" in repr(task.get_coro())]
        assert await state(app, hold) is HoldState.PENDING
