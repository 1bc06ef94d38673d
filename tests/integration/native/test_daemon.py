"""The daemon and the commands keep native holds in step by themselves, and say where they can't."""

import logging

import asyncpg
import pytest
import structlog

from retentiond import logs
from retentiond.control import holds
from retentiond.daemon_loop import Daemon
from retentiond.daemon_ready import HOLDS
from retentiond.daemon_signals import Signals
from retentiond.daemon_watch import Watch
from retentiond.errors import Blind, RetentiondError
from retentiond.metrics import Metrics
from tests.integration.native.test_activation import placed
from tests.services.daemon import running, until
from tests.services.native import refused
from tests.services.process import run_retentiond


@pytest.fixture
async def company(rig):
    await rig.company()
    rig.targets["logs"]["native_holds"] = True
    return rig


@pytest.fixture
async def daemon(company):
    """A daemon that ticks when the test says so."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("json", "info")
    watch = Watch(Metrics((), (), version="1", mode="enforce"))
    async with company.app(observer=watch, mode="plan") as app:
        watch.metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="plan")
        made = Daemon(app, watch)
        yield made
        await made.drain(Signals())
    root.handlers[:], root.level = before
    structlog.reset_defaults()


async def ticked(daemon):
    async def idle():
        return not daemon._work.working and not daemon._jobs._running

    await daemon.tick()
    await until(idle)


async def test_it_makes_holds_active_natively_keeps_them_so_and_lets_them_go(company, daemon):
    app = daemon.app
    hold = await placed(app, accounts=("1",))
    await ticked(daemon)
    await refused(company.db, "DELETE FROM logs WHERE id = 1")
    daemon.watch.require(HOLDS)
    trigger = app.native["logs"].names.trigger_of("delete")
    await company.db.execute(f"ALTER TABLE logs DISABLE TRIGGER {trigger}")
    daemon._jobs._native_epoch = -1  # what a minute does
    with structlog.testing.capture_logs() as told:
        await ticked(daemon)
    (mended,) = [each for each in told if each["event"] == "native holds mended"]
    assert mended["found"] == (f"trigger {trigger} on public.logs is disabled",)
    await refused(company.db, "DELETE FROM logs WHERE id = 1")
    await holds.release(app.database, hold.id, "test", "over", grace_seconds=0)
    await ticked(daemon)
    await ticked(daemon)
    await company.db.execute("DELETE FROM logs WHERE id = 1")


async def test_it_takes_up_holds_from_before_it_started(company, daemon):
    company.targets["logs"]["native_holds"] = False
    async with company.app(mode="plan") as other:
        await company.hold(other, accounts=("1",))
    await daemon.start()
    await until(lambda: _is_refused(company))


async def _is_refused(company):
    try:
        await company.db.execute("BEGIN; DELETE FROM logs WHERE id = 1")
    except asyncpg.PostgresError as error:
        return error.sqlstate == "RH001"
    finally:
        await company.db.execute("ROLLBACK")
    return False


async def test_what_it_can_not_mend_is_said_by_readiness_with_the_reason(company, daemon):
    app = daemon.app
    await company.hold(app, accounts=("1",))
    await company.db.execute("ALTER TABLE logs RENAME COLUMN account_id TO account")
    await ticked(daemon)
    with pytest.raises(RetentiondError, match="account_id") as refusal:
        daemon.watch.require(HOLDS)
    assert isinstance(refusal.value, Blind)
    assert refusal.value.remedy


async def test_a_hold_placed_by_the_command_is_in_force_natively_when_it_returns(company):
    async with company.app():
        pass
    env = company.environment()
    result = await run_retentiond("hold", "place", "--matter", "2026-17", "--reason", "x", "--account", "1", env=env)
    assert result.code == 0, result.stderr
    assert "but on logs, whose store refuses them" in result.stderr
    assert "2026-17" in str(await refused(company.db, "DELETE FROM logs WHERE id = 1"))
    checked = await run_retentiond("check", "--json", env=env)
    assert not [each for each in checked.json["findings"] if each["severity"] == "error"], checked.stdout
    await company.db.execute("ALTER TABLE logs DISABLE TRIGGER ALL")
    checked = await run_retentiond("check", "--json", env=env)
    assert "is disabled" in str([each for each in checked.json["findings"] if each["severity"] == "error"])


async def test_a_hold_that_waits_for_a_writer_is_said_to_by_the_command_and_carried_on_by_the_daemon(company):
    async with company.app():
        pass
    env = company.environment(mode="plan")
    writer = await asyncpg.connect(company.dsn)
    try:
        await writer.execute("BEGIN; DELETE FROM logs WHERE id = 2")
        given = ("--matter", "m", "--reason", "r", "--account", "1", "--timeout", "0")
        result = await run_retentiond("hold", "place", *given, env=env)
        assert result.code == 4
        assert f"target logs: not in force in the store itself: backends {writer.get_server_pid()}" in result.stderr
        await writer.execute("COMMIT")
    finally:
        await writer.close()
    async with running(env) as real:
        await until(lambda: _is_refused(company))
        await real.until_ready()
