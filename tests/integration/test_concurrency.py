"""`workers.concurrency` bounds all that one process sweeps at the same time, from wherever it comes."""

import asyncio

import pytest

from retentiond.control import units
from retentiond.daemon import enter_mode, open_app
from retentiond.daemon_loop import Daemon
from retentiond.daemon_signals import Signals
from retentiond.daemon_watch import Watch
from retentiond.daemon_work import Work
from retentiond.domain.permit import Unit
from retentiond.metrics import Metrics
from retentiond.settings import load
from retentiond.sweep.engine import Engine
from tests.services.daemon import until

MANY = [f"t{i:02}" for i in range(12)]
AT_ONCE = 4
LEFT_BEHIND = """
UPDATE retentiond.units SET owner = 'gone', fence = 1, lease_until = clock_timestamp() - interval '1 second'
WHERE target < 't03'
"""


class Door:
    """What every sweep waits at: how many are there, how many were at once, and which have passed."""

    def __init__(self):
        self.opened, self.here, self.most, self.passed = asyncio.Event(), 0, 0, set()

    async def wait(self, name):
        self.here += 1
        self.most = max(self.most, self.here)
        await self.opened.wait()
        self.here -= 1
        self.passed.add(name)


@pytest.fixture
async def many(apart):
    """More targets than one process may sweep at a time."""
    for name in MANY:
        await apart.db.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz)"
        )
        apart.target(name, tier="free")
    apart.accounts = None
    return apart


@pytest.fixture
async def started(many, request):
    mode = request.param
    settings = load(many.environment(mode=mode, workers={"concurrency": AT_ONCE}))
    watch = Watch(Metrics((), (), version="1", mode=mode))
    async with open_app(settings, create=True, observer=watch) as app:
        watch.metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode=mode)
        daemon = Daemon(app, watch)
        yield daemon
        await daemon.drain(Signals())


async def all_passed(daemon, door):
    async def passed():
        await daemon.tick()
        return door.passed == set(MANY)

    await until(passed, lambda: f"{sorted(door.passed)} {daemon._work.working}")


@pytest.mark.parametrize("started", ["plan"], indirect=True)
async def test_in_plan_mode_no_more_are_counted_at_once_and_each_has_its_turn(started, monkeypatch):
    door = Door()

    async def planned(self, store, target, outcome):
        await door.wait(target.name)

    monkeypatch.setattr(Engine, "_planned", planned)
    for _ in range(3):
        await started.tick()
        await asyncio.sleep(0)
    assert len(started._work.working) == AT_ONCE
    door.opened.set()
    await all_passed(started, door)
    assert door.most <= AT_ONCE


@pytest.mark.parametrize("started", ["enforce"], indirect=True)
async def test_what_was_left_behind_and_what_is_announced_share_one_bound(started, monkeypatch):
    door, refused, real = Door(), [], Work.announced

    async def sweep(self, target, sweep, *, wait):
        await door.wait(target.name)

    async def announced(self, unit):
        if not (fits := await real(self, unit)):
            refused.append(unit)
        return fits

    async def one_was_refused():
        await started.tick()
        return refused and door.here == AT_ONCE

    monkeypatch.setattr(Engine, "_sweep", sweep)
    monkeypatch.setattr(Work, "announced", announced)
    await enter_mode(started.app, "test")
    async with started.app.database.transaction() as tx:
        await units.ensure(tx, map(Unit, MANY))
        await tx.execute(LEFT_BEHIND)
    await until(one_was_refused, lambda: f"at once: {door.most}, refused: {refused}")
    assert door.most == AT_ONCE
    door.opened.set()
    await all_passed(started, door)
    assert door.most == AT_ONCE
