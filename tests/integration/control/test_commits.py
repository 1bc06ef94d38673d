"""A connection that is lost in the COMMIT: what was asked for happens once, whether or not it had taken effect."""

from __future__ import annotations

from uuid import uuid4

import pytest

from retentiond.control import database, holds
from retentiond.control.database import CommitUnknown
from retentiond.domain.holds import Scope
from retentiond.errors import Unreachable


async def always(number: int) -> bool:
    return True


def draft(account: str = "a1", **more) -> holds.HoldDraft:
    return holds.HoldDraft("case 1", "subpoena", Scope(accounts=(account,)), **more)


async def die_once_on(control, table: str) -> None:
    """The first commit of an insert into that table ends its own session instead."""
    await control.sql("CREATE SEQUENCE public.deaths")
    await control.sql(
        "CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('public.deaths') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
        " RETURN NULL; END $$"
    )
    await control.sql(
        f"CREATE CONSTRAINT TRIGGER die AFTER INSERT ON retentiond.{table} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION public.die()"
    )


async def active_hold(control) -> holds.Hold:
    await control.place()
    (hold,) = await control.activate(always)
    return hold


async def test_a_lost_commit_of_a_placement_that_took_effect_places_one_hold(control, monkeypatch):
    commit, lost = database._commit, []

    async def commit_and_lose(connection, transaction):
        await commit(connection, transaction)
        if not lost:
            lost.append(True)
            raise CommitUnknown("the cable was pulled")

    monkeypatch.setattr(database, "_commit", commit_and_lose)
    hold = await control.place()
    async with control.db.transaction() as tx:
        assert [found.id for found in await holds.list_all(tx)] == [hold.id]


async def test_a_lost_commit_of_a_release_or_reinstatement_that_took_effect_is_no_error(control, monkeypatch):
    hold = await active_hold(control)
    commit, lost = database._commit, []

    async def commit_and_lose(connection, transaction):
        await commit(connection, transaction)
        lost.append(True)
        if len(lost) in (1, 3):
            raise CommitUnknown("the cable was pulled")

    monkeypatch.setattr(database, "_commit", commit_and_lose)
    assert (await holds.release(control.db, hold.id, "counsel", "settled")).state == "releasing"
    assert (await holds.reinstate(control.db, hold.id, "counsel", "appeal")).state == "active"


async def test_a_server_that_dies_in_the_commit_leaves_the_placement_to_the_second_attempt(control):
    await die_once_on(control, "holds")
    hold = await control.place()
    assert (await control.hold(hold.id)).state == "pending"
    assert (await control.sql("SELECT last_value AS n FROM public.deaths"))[0]["n"] == 2


async def test_a_placement_of_unknown_outcome_names_the_hold_to_look_up(control, monkeypatch):
    async def lose(connection, transaction):
        raise CommitUnknown("the cable was pulled")

    monkeypatch.setattr(database, "_commit", lose)
    hold_id = str(uuid4())
    with pytest.raises(CommitUnknown, match=hold_id) as error:
        await holds.place(control.db, draft(id=hold_id), "counsel")
    assert isinstance(error.value, Unreachable)
    assert error.value.exit_code == 4


async def test_a_lost_commit_of_a_permit_that_took_effect_gives_that_permit(control, monkeypatch):
    lease, epoch = await control.lease(), await control.epoch()
    commit, lost = database._commit, []

    async def commit_and_lose(connection, transaction):
        await commit(connection, transaction)
        lost.append(True)
        if len(lost) == 2:  # the first is that of the number
            raise CommitUnknown("the cable was pulled")

    monkeypatch.setattr(database, "_commit", commit_and_lose)
    permit = await control.permit(lease, epoch=epoch)
    assert await control.open() == [permit.number]


async def test_a_server_that_dies_in_the_commit_of_a_permit_leaves_it_to_the_second_attempt(control):
    lease, epoch = await control.lease(), await control.epoch()
    await die_once_on(control, "permits")
    permit = await control.permit(lease, epoch=epoch)
    assert await control.open() == [permit.number]


async def test_a_transaction_that_swallowed_a_failed_statement_is_no_success(control):
    with pytest.raises(Exception, match="ROLLBACK"):
        async with control.db.transaction() as tx:
            with pytest.raises(Exception, match="division"):
                await tx.execute("SELECT 1 / 0")
