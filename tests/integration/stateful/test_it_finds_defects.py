"""The machine of `test_any_order` is no decoration: with one rule of the protocol taken out, it finds what that breaks."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from retentiond.control import activation, permits, units
from retentiond.errors import EpochMoved
from retentiond.stores.postgres import batch, quick, store
from retentiond.stores.postgres.connection import roll_back
from retentiond.sweep import sweeper
from tests.services.anyorder import AnyOrder, World, profile

FOUND: dict[str, str] = {
    "an activation that does not wait for batches": "a batch that was let go before it is in flight",
    "a quick batch whose first transaction takes no lock": "a batch that was let go before it is in flight",
    "a careful batch that takes no lock": "a batch that was let go before it is in flight",
    "a quick batch that does not ask whether the fence was kept": "could not take effect any more, and took",
    "leases told by the owner's name alone": "under a fence of the past|and the unit is",
    "leases that never run out": "given when the lease was over|and the unit is",
    "permits under holds of any epoch": "is held, and went|is not the plan's",
    "holds read again that leave the plan as it was": "is held, and went",
    "a recovery that takes every batch for undone": "took effect: True",
    "a recovery that does not write what it found": "deletions and outcomes differ",
    "a permit that ends with no ledger entry": "deletions and outcomes differ",
}


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
        return sweeper.replace(found, holds=plan.holds)

    patch.setattr(sweeper, "with_holds", as_it_was)


def no_look(patch):
    async def fate(self, transaction):
        return "aborted"

    patch.setattr(store.PostgresStore, "fate", fate)


DEFECTS = {
    "an activation that does not wait for batches": no_wait,
    "a quick batch whose first transaction takes no lock": no_first_lock,
    "a careful batch that takes no lock": no_lock,
    "a quick batch that does not ask whether the fence was kept": no_question,
    "leases told by the owner's name alone": no_fence,
    "leases that never run out": no_end_of_leases,
    "permits under holds of any epoch": no_epoch,
    "holds read again that leave the plan as it was": no_holds,
    "a recovery that takes every batch for undone": no_look,
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_machine_finds(postgres_server, monkeypatch, defect):
    DEFECTS[defect](monkeypatch)
    with World(postgres_server) as world, pytest.raises(AssertionError, match=FOUND[defect]):
        run_state_machine_as_test(
            type("WithDefect", (AnyOrder,), {"world": world}),
            settings=settings(profile(300), phases=(Phase.generate,), report_multiple_bugs=False),
        )
