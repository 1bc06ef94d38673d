"""The machine of `test_any_order` is no decoration: with one rule of the protocol taken out, it finds what that breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from retentiond.control import activation, permits, units
from retentiond.errors import EpochMoved
from retentiond.stores.base import Fate
from retentiond.stores.postgres import batch, quick, store
from retentiond.stores.postgres.connection import roll_back
from retentiond.sweep import sweeper
from tests.services.anyorder import AnyOrder, World, profile


def no_wait(patch):
    patch.setattr(activation, "_clear", lambda *args: True)


def no_first_lock(patch):
    patch.setattr(quick, "_BEGIN", quick._BEGIN.replace("pg_advisory_xact_lock_shared($1)", "$1::bigint"))


def no_lock(patch):
    patch.setattr(batch, "_BEGIN", batch._BEGIN.replace("{lock}($1)", "$1::bigint"))


def no_question(patch):
    async def hand_over(self):
        self._first_id = ""
        await roll_back(self._first)

    patch.setattr(quick.QuickBatch, "_hand_over", hand_over)


def no_fence(patch):
    mine = units.MINE.replace("fence = $4", "$4::bigint IS NOT NULL")
    assert mine != units.MINE
    patch.setattr(units, "MINE", mine)


def no_end_of_leases(patch):
    mine = units.MINE.replace(" AND lease_until > pg_catalog.clock_timestamp()", "")
    assert mine != units.MINE
    patch.setattr(units, "MINE", mine)


def no_epoch(patch):
    check = permits._check

    def unchecked(found, sought):
        try:
            check(found, sought)
        except EpochMoved:
            return

    patch.setattr(permits, "_check", unchecked)


def no_holds(patch):
    with_holds = sweeper.with_holds

    async def as_it_was(database, store, plan):
        found = await with_holds(database, store, plan)
        return replace(found, holds=plan.holds)

    patch.setattr(sweeper, "with_holds", as_it_was)


def no_look(patch):
    async def fate(self, prepared):
        return Fate("aborted")

    patch.setattr(store.PostgresStore, "fate", fate)


WORK = {"a_worker_goes_on", "a_worker_is_stopped_in_the_middle_of_a_batch"}
COUNSEL = {"counsel_places_a_hold", "a_daemon_activates_what_can_be"}
LATER = COUNSEL | {"a_hold_comes_when_a_plan_is_made"}
TAKEOVER = {"a_lease_runs_out_and_another_worker_comes", "a_worker_renews_its_lease"}
TROUBLE = {"something_happens_to_a_worker"}
LOST = {"a_quick_batch_loses_its_first_transaction_while_the_permit_is_asked_for"}

IN_FLIGHT = "a batch that was let go before it is in flight"
DEFECTS = {
    "an activation that does not wait for batches": (no_wait, WORK | COUNSEL, IN_FLIGHT),
    "a quick batch whose first transaction takes no lock": (no_first_lock, WORK | COUNSEL, IN_FLIGHT),
    "a careful batch that takes no lock": (no_lock, WORK | COUNSEL, IN_FLIGHT),
    "a quick batch that does not ask whether it kept the fence": (
        no_question,
        WORK | LOST,
        "could not take effect any more, and took",
    ),
    "leases told by the name of the owner alone": (no_fence, WORK | TAKEOVER, "a fence of the past|and the unit is"),
    "leases that never run out": (no_end_of_leases, WORK | TAKEOVER, "when the lease was over|and the unit is"),
    "permits under holds of any epoch": (no_epoch, WORK | LATER, "is held, and went|they are not active"),
    "holds read again that leave the plan as it was": (no_holds, WORK | LATER, "is held, and went"),
    "a recovery that takes every batch for undone": (no_look, WORK | TROUBLE | TAKEOVER, "took effect: True"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_machine_finds(postgres_server, monkeypatch, defect):
    break_it, rules, found = DEFECTS[defect]
    break_it(monkeypatch)
    find(postgres_server, rules, found)


def find(server, rules, found, **kind):
    """Only these rules are left, those that bear on the defect, so that it takes seconds and not minutes."""
    others = [name for name in dir(AnyOrder) if hasattr(getattr(AnyOrder, name), RULE_MARKER) and name not in rules]
    with World(server, **kind) as world, pytest.raises(AssertionError, match=found):
        run_state_machine_as_test(
            type("WithDefect", (AnyOrder,), {**dict.fromkeys(others), "world": world}),
            settings=settings(profile(100), phases=(Phase.generate,), report_multiple_bugs=False),
        )


def test_the_machine_finds_a_native_hold_that_is_not_in_force_when_the_hold_is_active(postgres_server, monkeypatch):
    async def as_if(*_, **__):
        yield {}

    monkeypatch.setattr(activation.natives, "settling", as_if)
    rules = COUNSEL | {"somebody_else_deletes_a_row"}
    find(postgres_server, rules, "the database let somebody delete row", native=True)
