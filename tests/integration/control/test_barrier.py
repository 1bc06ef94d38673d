"""The hold barrier of 4-safety.md, sentence by sentence, on a real Postgres; of permits see `test_permits`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retentiond.control import barrier, holds, permits
from retentiond.control.database import Database
from retentiond.domain.permit import Unit
from retentiond.errors import EpochMoved, Unreachable


async def always(number: int) -> bool:
    return True


async def never(number: int) -> bool:
    return False


async def dead(number: int) -> bool:
    raise Unreachable("no route to host")


async def test_a_hold_without_open_permits_becomes_active_at_once(control):
    hold = await control.place()
    assert (hold.state, hold.effective_at) == ("pending", None)
    (active,) = await control.activate()
    assert active.id == hold.id
    assert active.state == "active"
    assert active.effective_at is not None
    assert active.effective_at >= hold.placed_at


async def test_a_hold_placed_while_a_permit_is_open_stays_pending_until_it_ends(control):
    permit = await control.permit(await control.lease())
    hold = await control.place()
    assert await control.activate(never) == []
    assert (await control.hold(hold.id)).state == "pending"
    await control.end(permit)
    assert [active.id for active in await control.activate(never)] == [hold.id]


async def test_a_hold_becomes_active_as_soon_as_the_fence_is_shown_to_hold(control):
    await control.permit(await control.lease())
    hold = await control.place()
    assert [active.id for active in await control.activate(always)] == [hold.id]


async def test_an_unreachable_target_keeps_the_hold_pending_and_says_so(control):
    permit = await control.permit(await control.lease())
    await control.place()
    said = []
    assert await control.activate(dead, on_wait=lambda hold, reasons: said.append(reasons)) == []
    ((reason,),) = said
    assert (reason.why, reason.number, reason.target) == ("unreachable", permit.number, "request_logs")
    assert "no route to host" in reason.detail


async def test_a_target_that_does_not_answer_in_time_keeps_the_hold_pending(control):
    await control.permit(await control.lease())
    await control.place()
    said = []

    async def hangs(number: int) -> bool:
        await asyncio.sleep(60)
        return True

    await control.activate(hangs, on_wait=lambda hold, reasons: said.append(reasons[0].why), probe_seconds=0.05)
    assert said == ["unreachable"]


async def test_a_permit_of_a_target_that_is_not_configured_keeps_the_hold_pending(control):
    await control.permit(await control.lease(Unit("gone")))
    await control.place()
    said = []
    await control.activate(always, on_wait=lambda hold, reasons: said.append(reasons[0].why))
    assert said == ["unknown_target"]


async def test_the_hold_waits_for_any_number_of_earlier_permits(control):
    open_ = [await control.permit(await control.lease(Unit("request_logs", str(n)))) for n in range(5)]
    hold = await control.place()
    for permit in open_:
        assert await control.activate() == []
        await control.end(permit)
    assert [active.id for active in await control.activate()] == [hold.id]


async def test_a_hold_does_not_wait_for_permits_issued_after_it(control):
    hold = await control.place()
    await control.permit(await control.lease())
    assert [active.id for active in await control.activate(never)] == [hold.id]


async def test_the_barrier_and_not_the_number_decides_which_permit_is_earlier(control):
    reserved_early = await permits.reserve(control.db)
    first, second = await control.lease(), await control.lease(Unit("audit"))
    early = await control.permit(second)
    hold = await control.place()
    late = await control.permit(first, number=reserved_early)
    assert late.number < early.number
    await control.end(early)
    assert [active.id for active in await control.activate(never)] == [hold.id]


async def test_the_barrier_decides_also_for_a_large_number_issued_before_the_hold(control):
    first = await control.permit(await control.lease())
    await control.place("a1")
    later = await control.place("a2")
    await control.end(first)
    await control.permit(await control.lease(Unit("audit")))
    assert {hold.matter for hold in await control.activate(never)} == {later.matter}
    assert (await control.hold(later.id)).state == "active"


async def test_of_two_pending_holds_only_the_one_with_open_earlier_permits_waits(control):
    early = await control.place("a1")
    await control.permit(await control.lease())
    late = await control.place("a2")
    assert [active.id for active in await control.activate(never)] == [early.id]
    assert (await control.hold(late.id)).state == "pending"


async def test_a_permit_asked_for_under_an_epoch_of_before_the_hold_is_refused(control):
    lease = await control.lease()
    epoch = await control.epoch()
    await control.place()
    with pytest.raises(EpochMoved):
        await control.permit(lease, epoch=epoch)
    assert await control.open() == []


async def test_a_pending_hold_is_among_the_holds_that_a_worker_reads(control):
    hold = await control.place()
    async with control.db.transaction() as tx:
        read = await holds.current(tx)
    assert [found.id for found in read.holds] == [hold.id]
    assert read.epoch == await control.epoch()


async def test_every_change_of_a_hold_raises_the_epoch(control):
    seen = [await control.epoch()]
    hold = await control.place()
    for step in (
        control.activate(),
        holds.release(control.db, hold.id, "counsel", "settled", grace_seconds=0),
        holds.reinstate(control.db, hold.id, "counsel", "appeal"),
        holds.release(control.db, hold.id, "counsel", "over", grace_seconds=0),
        holds.finish_releases(control.db),
    ):
        seen.append(await control.epoch())
        await step
    seen.append(await control.epoch())
    assert seen == sorted(set(seen))


async def test_placing_waits_for_a_permit_that_is_being_issued_and_sees_it(control):
    lease = await control.lease()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def linger(tx, permit):
        inside.set()
        await go_on.wait()

    issuing = asyncio.create_task(control.permit(lease, record=linger))
    await inside.wait()
    placing = asyncio.create_task(control.place())
    await asyncio.sleep(0.2)
    assert not placing.done()
    go_on.set()
    permit, hold = await issuing, await placing
    assert permit.epoch < await control.epoch()
    assert await control.activate(never) == []
    await control.end(permit)
    assert [active.id for active in await control.activate()] == [hold.id]


async def test_a_permit_asked_for_while_a_hold_is_being_placed_waits_and_then_sees_the_hold(control):
    lease = await control.lease()
    epoch = await control.epoch()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def linger(tx, hold, event):
        inside.set()
        await go_on.wait()

    placing = asyncio.create_task(control.place(record=linger))
    await inside.wait()
    issuing = asyncio.create_task(control.permit(lease, epoch=epoch))
    await asyncio.sleep(0.2)
    assert not issuing.done()
    go_on.set()
    await placing
    with pytest.raises(EpochMoved):
        await issuing
    assert await control.open() == []


async def test_a_transaction_is_read_committed_even_where_the_server_says_otherwise(control):
    await control.sql("SELECT 1")
    name = (await control.sql("SELECT current_database() AS name"))[0]["name"]
    async with control.db.transaction() as tx:
        await tx.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
        await tx.execute(f"ALTER DATABASE {name} SET synchronous_commit = 'off'")
    other = await Database.connect(control.dsn)
    async with other.transaction() as tx:
        assert await tx.fetchval("SHOW transaction_isolation") == "read committed"
        assert await tx.fetchval("SHOW synchronous_commit") == "on"
        assert await tx.fetchval("SHOW statement_timeout") == "5s"
        assert await tx.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"
        assert await tx.fetchval("SHOW lock_timeout") == "5s"
    await other.close()


async def test_the_whole_permit_transaction_is_limited_from_postgres_17_on(control18):
    async with control18.db.transaction(total_ms=5000) as tx:
        assert await tx.fetchval("SHOW transaction_timeout") == "5s"
    permit = await control18.permit(await control18.lease())
    hold = await control18.place()
    assert await control18.activate() == []
    await control18.end(permit)
    assert [active.id for active in await control18.activate()] == [hold.id]


async def test_a_permit_transaction_left_idle_delays_a_hold_no_longer_than_its_timeout(control):
    stuck = await Database.connect(control.dsn)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        async with stuck.transaction(timeout_ms=700) as tx:
            await barrier.enter_shared(tx)
            await control.place()
            assert time.monotonic() - began > 0.4, "the hold had to wait for that end"
            await tx.fetchval("SELECT 1")
    await stuck.close()


_STOPPED = """
import asyncio, sys
from retentiond.control import barrier
from retentiond.control.database import Database

async def main():
    db = await Database.connect(sys.argv[1])
    async with db.transaction() as tx:
        await barrier.enter_shared(tx)
        print("inside", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_worker_stopped_inside_the_permit_transaction_delays_a_hold_for_five_seconds_at_most(control):
    worker = subprocess.Popen([sys.executable, "-c", _STOPPED, control.dsn], stdout=subprocess.PIPE, cwd=Path.cwd())
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"inside\n"
        worker.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        hold = await control.place()
        assert time.monotonic() - began < 30, "five seconds, on a machine that has time"
        assert [active.id for active in await control.activate()] == [hold.id]
    finally:
        worker.kill()
        worker.communicate()
