"""The daemon's loop on a real control database: what it takes for trouble, and that nothing ends it."""

import json
import logging
from datetime import datetime, timedelta

import pytest
import structlog

from retentiond import daemon_crew, logs
from retentiond.control import due, holds, overview
from retentiond.control.holds import HoldDraft
from retentiond.control.workers import ROLES
from retentiond.daemon import open_app
from retentiond.daemon_loop import Daemon
from retentiond.daemon_ready import HOLDS, LOOP, MODE, checks
from retentiond.daemon_signals import Signals
from retentiond.daemon_watch import Watch
from retentiond.domain.holds import Scope
from retentiond.domain.native_expiry import NativeRule
from retentiond.errors import Blind, Guarded, PlanMode, PolicySuperseded, RetentiondError, StillPending, Unattended
from retentiond.metrics import Metrics
from retentiond.settings import load
from tests.acceptance.test_core import DUE, company, env  # noqa: F401 - fixtures
from tests.services.daemon import until

BEATS = "SELECT convert_from(leaf, 'UTF8') FROM retentiond.ledger_entries WHERE kind = 'heartbeat' ORDER BY seq"


@pytest.fixture
async def daemon(env):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("json", "info")
    settings = load(env)
    watch = Watch(Metrics((), (), version="1", mode="enforce"))
    async with open_app(settings, create=True, observer=watch) as app:
        watch.metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="enforce")
        made = Daemon(app, watch)
        yield made
        await made.drain(Signals())
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.fixture
async def worker(env):
    """A process that only erases what others announce."""
    settings = load(env)
    watch = Watch(Metrics((), (), version="1", mode="enforce"))
    async with open_app(settings, create=True, observer=watch) as app:
        watch.metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="enforce")
        made = Daemon(app, watch, "worker")
        yield made
        await made.drain(Signals())


async def idle(daemon):
    await until(lambda: _quiet(daemon))
    await until(lambda: _none(daemon._jobs._running))


async def _quiet(daemon):
    async with daemon.app.database.transaction(read_only=True) as tx:
        announced = await tx.fetchval("SELECT count(*) FROM retentiond.pgqueuer")
    return not (announced or daemon._work.working or daemon._looking)


async def _none(tasks):
    return not tasks


async def ticked(daemon):
    await daemon.tick()
    await idle(daemon)


def counted(daemon, kind):
    return daemon.watch.metrics.registry.get_sample_value("retentiond_errors_total", {"kind": kind})


async def test_a_defect_in_one_targets_sweep_is_shown_counted_and_tried_again(daemon, company, capsys):
    async def broken(plan):
        raise RuntimeError("account 4711")

    store = daemon.app.engine.stores["request_logs"]
    store.oldest = broken
    await daemon.start()
    await idle(daemon)
    with pytest.raises(RetentiondError, match="unexpected: RuntimeError"):
        daemon.watch.require_swept("request_logs")
    daemon.watch.require_swept("invoices")
    assert counted(daemon, "unexpected") == 1
    assert "4711" not in "".join(capsys.readouterr())
    assert await company.fetchval(DUE) > 0
    del store.oldest
    await ticked(daemon)
    assert await company.fetchval(DUE) > 0
    daemon._turns.forgive()
    async with daemon.app.database.transaction() as tx:
        await due.make_due(tx)
    await ticked(daemon)
    assert await company.fetchval(DUE) == 0
    daemon.watch.require_swept("request_logs")


async def test_a_defect_in_a_tick_ends_nothing_and_is_shown_until_one_goes_well(daemon, monkeypatch):
    async def broken(*_):
        raise LookupError("4711")

    with monkeypatch.context() as patched:
        patched.setattr(overview, "read", broken)
        await daemon.start()
        with pytest.raises(RetentiondError, match="unexpected: LookupError"):
            daemon.watch.require(LOOP)
    await ticked(daemon)
    daemon.watch.require(LOOP)


async def test_a_defect_in_a_job_is_shown_and_the_job_is_tried_again(daemon, monkeypatch):
    async def broken():
        raise LookupError("4711")

    monkeypatch.setattr(type(daemon._jobs), "_prune", lambda _: broken())
    await daemon.start()
    await idle(daemon)
    with pytest.raises(RetentiondError, match="unexpected: LookupError"):
        daemon.watch.require(LOOP)
    monkeypatch.undo()
    daemon._jobs._not_before.clear()
    await ticked(daemon)
    daemon.watch.require(LOOP)


async def test_a_hold_whose_activation_is_stuck_is_named_with_what_it_waits_for(daemon, company):
    await daemon.start()
    await idle(daemon)
    await company.execute(
        "INSERT INTO retentiond.units (target) VALUES ('elsewhere');"
        "INSERT INTO retentiond.permits (number, target, shard, owner, fence, epoch, digest, batch, intent, issued_at,"
        " deadline) VALUES (7, 'elsewhere', '', 'w', 1, 0, 'd', 'b', '{}', now(), now());"
        "UPDATE retentiond.barrier SET hold_epoch = hold_epoch + 1;"
        "INSERT INTO retentiond.holds (id, matter, reason, scope, state, epoch, placed_by, placed_at) SELECT 'h1', 'm',"
        " 'r', '{\"accounts\": [\"4711\"]}', 'pending', hold_epoch, 'c', now() FROM retentiond.barrier"
    )
    await ticked(daemon)
    daemon.watch.require(HOLDS)
    await company.execute("UPDATE retentiond.holds SET placed_at = now() - interval '2 minutes'")
    await ticked(daemon)
    with pytest.raises(StillPending, match=r"holds h1 \(target elsewhere: no such target is configured here\)") as said:
        daemon.watch.require(HOLDS)
    assert said.value.remedy
    assert daemon.watch.metrics.registry.get_sample_value("retentiond_hold_pending_seconds") > 60
    await company.execute("UPDATE retentiond.permits SET ended_at = now(), outcome = 'aborted' WHERE number = 7")
    await ticked(daemon)
    await ticked(daemon)
    daemon.watch.require(HOLDS)
    assert daemon.watch.metrics.registry.get_sample_value("retentiond_hold_activation_seconds_count") == 1


async def test_the_first_heartbeat_of_an_enforcing_daemon_tells_of_its_mode_and_policy(daemon, company):
    await daemon.start()
    await idle(daemon)
    await ticked(daemon)
    (leaf,) = [row[0] for row in await company.fetch(BEATS)]
    beat = json.loads(leaf)
    assert (beat["mode"], beat["policy"]) == ("enforce", daemon.app.spec.digest)


async def test_a_daemon_that_waits_to_enter_its_mode_adds_no_first_heartbeat(daemon, company, monkeypatch):
    async def refused(app, by):
        raise Guarded("policy", "not approved")

    with monkeypatch.context() as patched:
        patched.setattr("retentiond.daemon_loop.enter_mode", refused)
        await daemon.start()
        await ticked(daemon)
        assert await company.fetch(BEATS) == []
    daemon._ask_again = 0.0
    await ticked(daemon)
    await ticked(daemon)
    (leaf,) = [row[0] for row in await company.fetch(BEATS)]
    assert json.loads(leaf)["mode"] == "enforce"


async def test_a_heartbeat_is_written_when_the_last_one_is_a_day_old(daemon, company):
    beats = "SELECT count(*) FROM retentiond.ledger_entries WHERE kind = 'heartbeat'"
    await daemon.start()
    await idle(daemon)
    await ticked(daemon)
    assert await company.fetchval(beats) == 1
    await company.execute(
        "ALTER TABLE retentiond.ledger_entries DISABLE TRIGGER ledger_append_only;"
        "UPDATE retentiond.ledger_entries SET at = at - interval '24 hours' WHERE kind = 'heartbeat'"
    )
    daemon._jobs._began.clear()
    await ticked(daemon)
    assert await company.fetchval(beats) == 2


async def test_another_control_database_behind_the_same_address_begins_nothing(daemon, company):
    await company.execute("UPDATE retentiond.meta SET control_id = gen_random_uuid()")
    due = await company.fetchval(DUE)
    await daemon.start()
    await idle(daemon)
    with pytest.raises(Guarded, match="another one than at the start"):
        daemon.watch.require(MODE)
    assert await company.fetchval(DUE) == due
    guard = {"guard": "control_id"}
    assert daemon.watch.metrics.registry.get_sample_value("retentiond_guard_tripped", guard) == 1


async def test_another_mode_or_policy_put_in_force_meanwhile_is_shown(daemon, company):
    await daemon.start()
    await idle(daemon)
    await company.execute("UPDATE retentiond.flags SET mode = 'plan'")
    await ticked(daemon)
    with pytest.raises(PlanMode):
        daemon.watch.require(MODE)
    await company.execute("UPDATE retentiond.flags SET mode = 'enforce'")
    await company.execute("INSERT INTO retentiond.policies (digest, document, approved_by) VALUES ('other', '{}', 'x')")
    await ticked(daemon)
    with pytest.raises(PolicySuperseded):
        daemon.watch.require(MODE)
    await company.execute("DELETE FROM retentiond.policies WHERE digest = 'other'")
    await ticked(daemon)
    daemon.watch.require(MODE)


async def test_a_clock_that_differs_trips_its_guard_and_is_not_ready(daemon, company):
    await company.execute(
        "CREATE FUNCTION retentiond.skewed() RETURNS timestamptz LANGUAGE sql AS $$ SELECT clock_timestamp() + '1 h' $$"
    )
    before = overview._SQL
    overview._SQL = before.replace("pg_catalog.clock_timestamp() AS now", "retentiond.skewed() AS now")
    try:
        await daemon.start()
        await idle(daemon)
    finally:
        overview._SQL = before
    check = checks(daemon.app, daemon.watch)["clock"]
    with pytest.raises(Guarded, match="clocks differ"):
        await check()
    assert daemon.watch.metrics.registry.get_sample_value("retentiond_clock_skew_seconds") > 3000
    await ticked(daemon)
    await check()


async def test_how_the_last_sweep_ended_is_known_after_a_restart(daemon, company):
    await company.execute(
        "INSERT INTO retentiond.units (target, next_due_at, outcome, last_success_at) VALUES ('request_logs',"
        ' now() + interval \'1 hour\', \'{"outcome": "guarded", "seconds": 1, "error": {"kind": "guarded",'
        ' "guard": "fraction", "message": "too many", "remedy": "approve it"}}\', \'2026-01-01Z\')'
    )
    await daemon.start()
    await idle(daemon)
    with pytest.raises(Blind, match="too many"):
        daemon.watch.require_swept("request_logs")
    registry = daemon.watch.metrics.registry
    assert registry.get_sample_value("retentiond_guard_tripped", {"guard": "fraction"}) == 1
    success = registry.get_sample_value("retentiond_last_success_timestamp_seconds", {"target": "request_logs"})
    assert success == 1767225600
    age = registry.get_sample_value("retentiond_oldest_record_age_seconds", {"target": "request_logs"})
    assert age > 86_400


async def test_a_table_that_is_missing_at_the_start_is_looked_for_again(daemon, company):
    await company.execute(
        "INSERT INTO retentiond.units (target, next_due_at) VALUES ('request_logs', now() + interval '1 hour');"
        "ALTER TABLE request_logs RENAME TO elsewhere"
    )
    await daemon.start()
    await idle(daemon)
    with pytest.raises(Blind, match="there is no table"):
        daemon.watch.require_swept("request_logs")
    await company.execute("ALTER TABLE elsewhere RENAME TO request_logs")
    daemon._unseen["request_logs"] = 0.0
    await ticked(daemon)
    daemon.watch.require_swept("request_logs")


async def test_a_lost_connection_in_a_tick_is_the_control_databases_fault(daemon, company):
    await daemon.start()
    await idle(daemon)
    await company.execute("ALTER TABLE retentiond.flags RENAME TO gone")
    await daemon.tick()
    with pytest.raises(RetentiondError, match="lacks a part of its state"):
        daemon.watch.require("control")
    await company.execute("ALTER TABLE retentiond.gone RENAME TO flags")
    await ticked(daemon)
    daemon.watch.require("control")


async def test_a_loop_that_looks_at_nothing_any_more_is_not_ready(daemon):
    await daemon.start()
    await idle(daemon)
    check = checks(daemon.app, daemon.watch)["loop"]
    await check()
    daemon.watch.ticked_at -= 3600
    with pytest.raises(Blind, match="has looked at nothing"):
        await check()


async def test_a_pause_begins_no_sweeps_and_is_no_fault(daemon, company):
    due = await company.fetchval(DUE)
    await company.execute("UPDATE retentiond.flags SET paused = true, paused_by = 'x'")
    await daemon.start()
    await idle(daemon)
    assert await company.fetchval(DUE) == due
    for check in checks(daemon.app, daemon.watch).values():
        await check()
    await company.execute("UPDATE retentiond.flags SET paused = false")
    await ticked(daemon)
    assert await company.fetchval(DUE) == 0


async def test_under_a_host_clock_years_ahead_nothing_is_erased_and_all_is_due_again_soon(
    daemon,
    company,
    monkeypatch,
):
    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=730)

    due = await company.fetchval(DUE)
    monkeypatch.setattr("retentiond.sweep.engine.datetime", Ahead)
    await daemon.start()
    await idle(daemon)
    assert await company.fetchval(DUE) == due
    with pytest.raises(Guarded, match="clock_skew"):
        await checks(daemon.app, daemon.watch)["clock"]()
    assert await company.fetchval("SELECT max(next_due_at) < now() + interval '1 hour' FROM retentiond.units")


async def test_a_worker_without_a_scheduler_is_not_ready_and_says_what_to_start(worker, company, monkeypatch):
    monkeypatch.setattr(daemon_crew, "_LACKING", timedelta(0))
    await worker.start()
    await until(lambda: _none(worker._jobs._running))
    await worker.tick()
    check = checks(worker.app, worker.watch)["work"]
    with pytest.raises(Unattended, match="announces what is due: nothing is swept") as said:
        await check()
    assert "--scheduler-only" in said.value.remedy
    registry = worker.watch.metrics.registry
    roles = {role: registry.get_sample_value("retentiond_workers", {"role": role}) for role in ROLES}
    assert roles == {"all": 0, "worker": 1, "scheduler": 0, "sweep": 0}
    # One in plan mode, and one that is gone, announce nothing.
    await company.execute(
        "INSERT INTO retentiond.workers (name, host, pid, version, role, mode, seen_at) VALUES"
        " ('p', 'h', 1, '1', 'scheduler', 'plan', now()),"
        " ('g', 'h', 2, '1', 'scheduler', 'enforce', now() - interval '2 minutes')"
    )
    await worker.tick()
    with pytest.raises(Unattended):
        await check()
    await company.execute("UPDATE retentiond.workers SET mode = 'enforce' WHERE name = 'p'")
    await worker.tick()
    await check()
    assert registry.get_sample_value("retentiond_workers", {"role": "scheduler"}) == 1


async def test_what_is_due_and_begun_by_nobody_is_not_ready_whoever_is_there(worker, company, monkeypatch):
    monkeypatch.setattr(daemon_crew, "_LEAST", timedelta(0))
    monkeypatch.setattr(daemon_crew, "_INTERVALS", 0)
    await worker.start()
    await company.execute(
        "INSERT INTO retentiond.workers (name, host, pid, version, role, mode) VALUES"
        " ('hung', 'h', 1, '1', 'scheduler', 'enforce');"
        "UPDATE retentiond.units SET next_due_at = now() - interval '2 hours' WHERE target = 'request_logs';"
        "UPDATE retentiond.units SET next_due_at = now() + interval '2 hours' WHERE target <> 'request_logs'"
    )
    await worker.tick()
    check = checks(worker.app, worker.watch)["work"]
    with pytest.raises(Unattended, match=r"in 1 of the targets: in request_logs since"):
        await check()
    await company.execute("UPDATE retentiond.units SET next_due_at = now() + interval '2 hours'")
    await worker.tick()
    await check()


async def test_a_store_that_would_erase_what_a_hold_covers_is_not_ready_until_the_rule_is_gone(daemon):
    rules = [NativeRule("lifecycle rule old", "", 3000)]

    async def erases_by_itself():
        return rules

    async def look():
        daemon._jobs._began.pop("native expiry", None)
        daemon._jobs._not_before.pop("native expiry", None)
        await ticked(daemon)

    def conflicts(target):
        return daemon.watch.metrics.registry.get_sample_value("retentiond_native_expiry_conflicts", {"target": target})

    daemon.app.engine.stores["request_logs"].native_rules = erases_by_itself
    await daemon.start()
    await idle(daemon)
    daemon.watch.require(HOLDS)
    assert (conflicts("request_logs"), conflicts("invoices")) == (0, 0)
    draft = HoldDraft("2026-17", "r", Scope(targets=("request_logs",)))
    await holds.place(daemon.app.database, draft, "counsel")
    await look()
    with pytest.raises(Blind, match=r"target request_logs: lifecycle rule old: it erases what hold .* covers"):
        daemon.watch.require(HOLDS)
    assert conflicts("request_logs") == 1
    rules.clear()
    await look()
    daemon.watch.require(HOLDS)
    assert conflicts("request_logs") == 0


async def test_rules_that_may_not_be_seen_are_no_number_and_stop_nothing(daemon):
    async def hidden():
        raise Blind("not allowed")

    daemon.app.engine.stores["request_logs"].native_rules = hidden
    await daemon.start()
    await idle(daemon)
    daemon.watch.require(HOLDS)
    value = daemon.watch.metrics.registry.get_sample_value(
        "retentiond_native_expiry_conflicts", {"target": "request_logs"}
    )
    assert value != value
